package ledger

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestHostsAreBounded: beyond the bound hosts are counted together, for each user by
// itself, and the sums stay right.
func TestHostsAreBounded(t *testing.T) { everywhere(t, hostsAreBounded) }

func hostsAreBounded(t *testing.T, place Place) {
	l, err := Open(t.Context(), place, Options{Keep: keepAll, Hosts: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	visit := func(user, host string) {
		l.Closed(server.NewSession(server.Record{
			Identity: server.Identity{Name: user, Proof: server.Password}, Target: socks.Addr{Name: host, Port: 443},
			Address: netip.MustParseAddrPort("192.0.2.1:443"),
		}), nil)
	}
	for range 2 {
		for i := range 10 {
			visit("alice", fmt.Sprintf("h%d.example", i))
		}
		visit("bob", "h9.example")
	}
	l.visit(t.Context(), noon)
	got := reads(t, place, Query{By: "host"})
	if want := "(other) 14 0 0 0; h0.example 2 0 0 0; h1.example 2 0 0 0; h2.example 2 0 0 0; h9.example 2 0 0 0"; text(got) != want {
		t.Errorf("%s\nwant\n%s", text(got), want)
	}
	if got.Sum.Sessions != 22 {
		t.Errorf("the sum is %+v", got.Sum)
	}
}

// TestHostsOfADay: each day begins anew, and in sum there is a bound as well.
func TestHostsOfADay(t *testing.T) {
	defer func(n int) { mostHosts = n }(mostHosts)
	mostHosts = 5
	h := hosts{most: 4}
	asks := func(at time.Time, user, host string, want string) {
		t.Helper()
		k := Key{User: user, Source: "192.0.2.1", Listener: "lan", Rule: "web", Host: host}
		if got := h.bound(k, at); got.Host != want || got.User != user || got.Source != k.Source {
			t.Errorf("%+v becomes %+v, want %q", k, got, want)
		}
	}
	for day := range 2 {
		at := noon.Add(time.Duration(day) * 24 * time.Hour)
		for _, host := range []string{"a", "b", "c", "d"} {
			asks(at, "alice", host, host)
		}
		asks(at, "alice", "e", other)
		asks(at, "alice", "d", "d")
		asks(at, "bob", "e", "e")
		asks(at, "carol", "f", other)
		asks(at, "carol", "", "")
	}
	h = hosts{}
	mostHosts = 2 * DefaultHosts
	for i := range DefaultHosts {
		asks(noon, "alice", fmt.Sprint(i), fmt.Sprint(i))
	}
	asks(noon, "alice", "one more", other)
}
