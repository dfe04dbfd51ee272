package ledger

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestHostsAreBounded: beyond the bound hosts are counted together, for each user by
// itself, and the sums stay right.
func TestHostsAreBounded(t *testing.T) { everywhere(t, hostsAreBounded) }

func hostsAreBounded(t *testing.T, place Place) {
	l, err := Open(t.Context(), place, Options{Keep: keepAll, Apart: Apart{Hosts: 3}, Log: slog.New(slog.DiscardHandler)})
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

// TestClientsDoNotFillTheLedger: who claims another name, or has another address of his network, in each
// session, let in or not, is counted together beyond the bounds; the sums stay right.
func TestClientsDoNotFillTheLedger(t *testing.T) { everywhere(t, clientsDoNotFillTheLedger) }

func clientsDoNotFillTheLedger(t *testing.T, place Place) {
	l, err := Open(t.Context(), place, Options{Keep: keepAll, Apart: Apart{Names: 2, Sources: 3}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 10 {
		client := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)), 4000)
		l.Closed(server.NewSession(server.Record{Client: client}), server.Denied)
		l.Closed(server.NewSession(server.Record{
			Identity: server.Identity{Name: fmt.Sprintf("name%d", i), Proof: server.Claimed}, Client: client,
			Target: socks.Addr{Name: "h.example", Port: 443}, Address: netip.MustParseAddrPort("192.0.2.1:443"),
		}), nil)
	}
	l.visit(t.Context(), noon)
	for by, want := range map[string]string{
		"user":   "(other) 8 0 0 0;  0 10 0 0; name0 1 0 0 0; name1 1 0 0 0",
		"source": "2001:db8::/64 7 7 0 0; 2001:db8:: 1 1 0 0; 2001:db8::1 1 1 0 0; 2001:db8::2 1 1 0 0",
		"host":   " 0 10 0 0; h.example 10 0 0 0",
	} {
		got := reads(t, place, Query{By: by})
		lines, wanted := strings.Split(text(got), "; "), strings.Split(want, "; ")
		slices.Sort(lines)
		slices.Sort(wanted)
		if !slices.Equal(lines, wanted) {
			t.Errorf("by %s: %s\nwant %s", by, text(got), want)
		}
		if got.Sum.Sessions != 10 || got.Sum.Refused != 10 {
			t.Errorf("the sum is %+v", got.Sum)
		}
	}
}

// apartTest compares what is counted with what is asked for.
type apartTest struct {
	*testing.T
	apart
}

func (t *apartTest) bounds(at time.Time, proved bool, k, want Key) {
	t.Helper()
	k.Listener, k.Rule, want.Listener, want.Rule = "lan", "web", "lan", "web"
	if got := t.bound(k, proved, at); got != want {
		t.Errorf("%+v becomes %+v, want %+v", k, got, want)
	}
}

// TestHostsOfADay: a user has hosts of his own, wherever he comes from; who has proved no
// name has those of his source, whatever he calls himself. Each day begins anew.
func TestHostsOfADay(t *testing.T) {
	a := &apartTest{t, apart{most: Apart{Hosts: 2}}}
	const here, there = "192.0.2.1", "192.0.2.2"
	for day := range 2 {
		at := noon.Add(time.Duration(day) * 24 * time.Hour)
		same := func(proved bool, k Key) { t.Helper(); a.bounds(at, proved, k, k) }
		same(true, Key{User: "alice", Source: here, Host: "a"})
		same(true, Key{User: "alice", Source: there, Host: "b"})
		a.bounds(at, true, Key{User: "alice", Source: here, Host: "c"}, Key{User: "alice", Source: here, Host: other})
		same(true, Key{User: "alice", Source: here, Host: "b"})
		same(true, Key{User: "bob", Source: here, Host: "c"})
		same(true, Key{User: "bob", Source: here})

		same(false, Key{User: "carol", Source: here, Host: "a"})
		same(false, Key{Source: here, Host: "a"})
		a.bounds(at, false, Key{User: "eve", Source: here, Host: "a"}, Key{User: "eve", Source: here, Host: other})
		same(false, Key{User: "eve", Source: there, Host: "a"})
	}
}

// TestNamesOfADay: names that nobody has proved are bounded by source, which is the /64 where there are
// IPv6 addresses; those that were proved are not.
func TestNamesOfADay(t *testing.T) {
	a := &apartTest{t, apart{most: Apart{Names: 2, Sources: 2}}}
	same := func(proved bool, k Key) { t.Helper(); a.bounds(noon, proved, k, k) }
	same(false, Key{User: "a", Source: "2001:db8::1"})
	same(false, Key{User: "b", Source: "2001:db8::2"})
	a.bounds(noon, false, Key{User: "c", Source: "2001:db8::1"}, Key{User: other, Source: "2001:db8::1"})
	a.bounds(noon, false, Key{User: "b", Source: "2001:db8::3"}, Key{User: "b", Source: "2001:db8::/64"})
	a.bounds(noon, false, Key{User: "c", Source: "2001:db8::4"}, Key{User: other, Source: "2001:db8::/64"})
	same(false, Key{User: "c", Source: "2001:db8:0:1::4"})
	same(true, Key{User: "c", Source: "2001:db8::1"})
	a.bounds(noon, true, Key{User: "c", Source: "2001:db8::5"}, Key{User: "c", Source: "2001:db8::/64"})
	for i := range 10 { // an address of IPv4 is a source of its own
		same(false, Key{User: "a", Source: fmt.Sprintf("192.0.2.%d", i)})
	}
}

// TestMostOfADay: when there is too much of all, what is new is counted by what the
// administrator has chosen.
func TestMostOfADay(t *testing.T) {
	defer func(n int) { mostApart = n }(mostApart)
	mostApart = 6
	a := &apartTest{t, apart{}}
	for day := range 2 {
		at := noon.Add(time.Duration(day) * 24 * time.Hour)
		known := Key{User: "alice", Source: "192.0.2.1", Host: "a"}
		a.bounds(at, true, known, known)
		a.bounds(at, true, Key{User: "alice", Source: "192.0.2.1", Host: other}, Key{User: "alice", Source: "192.0.2.1", Host: other})
		a.bounds(at, false, Key{Source: "192.0.2.1", Host: "a"}, Key{Source: "192.0.2.1", Host: "a"}) // two digests each, but for a host that is there
		held := len(a.seen)
		a.bounds(at, true, known, known)
		a.bounds(at, true, Key{User: "alice", Source: "192.0.2.1", Host: "b"}, Key{User: "alice", Source: "192.0.2.1", Host: other})
		a.bounds(at, true, Key{User: "alice", Source: "192.0.2.2", Host: "a"}, Key{User: "alice", Source: other, Host: other})
		a.bounds(at, false, Key{User: "eve", Source: "192.0.2.2", Host: "a"}, Key{User: other, Source: other, Host: other})
		a.bounds(at, false, Key{Source: "192.0.2.2"}, Key{Source: other})
		if len(a.seen) != held {
			t.Errorf("%d digests are held, and %d before", len(a.seen), held)
		}
	}
}

// TestUsualApart: without a word there is a bound.
func TestUsualApart(t *testing.T) {
	a := &apartTest{t, apart{}}
	for i := range DefaultApart {
		k := Key{User: "alice", Host: fmt.Sprint(i)}
		a.bounds(noon, true, k, k)
	}
	a.bounds(noon, true, Key{User: "alice", Host: "one more"}, Key{User: "alice", Host: other})
}
