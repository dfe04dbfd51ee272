package server

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	quickly "testing/quick"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// full returns what has another value in each field than the zero one.
func full() *whole {
	record := Record{
		ID: 7, Started: time.Unix(1e9, 5), Listener: "lan", Client: netip.MustParseAddrPort("192.0.2.1:4999"),
		Through: netip.MustParseAddrPort("192.0.2.2:5000"), TLS: true, HTTP2: true, Protocol: SOCKS5, Command: socks.Connect,
		Identity: Identity{Name: "alice", Proof: Ident, Mark: 1<<63 + 5}, Target: socks.Addr{Name: "host.example", Port: 443}, Socket: "/run/socket",
		Address: netip.MustParseAddrPort("[2001:db8::1]:443"), Bound: netip.MustParseAddrPort("[fe80::1%eth0]:60000"),
		Rule: "web", Via: "hq", Proxy: "socks5://gw1:1080", To: socks.Addr{IP: netip.MustParseAddr("192.0.2.3"), Port: 53}, Primary: "held", Offered: true,
	}
	return &whole{
		record: record,
		request: &Request{
			Protocol: record.Protocol, Command: record.Command, Identity: Identity{Name: strings.Repeat("a", 70_000), Proof: Claimed, Mark: 1},
			Target: record.Target, Client: record.Client, Local: netip.MustParseAddrPort("192.0.2.9:1080"), Relayed: true, Listener: "lan before",
		},
		grant: Grant{
			Rule: record.Rule, Identity: Identity{Name: "alice", Proof: Password, Mark: 2}, Addrs: []netip.Addr{record.Address.Addr()},
			Bind:  BindOptions{PrimaryOptional: true, AnyPeer: true, WaitForRightPeer: true},
			Until: time.Unix(2e9, 0), Way: &Way{Via: "hq"}, Budget: &nominal{"fair"}, ByName: true, Virtual: true,
		},
	}
}

// nominal is a Budget that nobody enters.
type nominal struct{ name string }

func (*nominal) Enter(Stay, func(error)) (Stay, error) { panic("it was entered") }

// comesBack returns what becomes of w while it rests.
func comesBack(w *whole) *whole {
	s := &Session{ID: w.record.ID, Started: w.record.Started, rest: w.pack()}
	return s.known()
}

// TestRestKeepsAll: of what is known of a session, nothing is another for its having
// been at rest.
func TestRestKeepsAll(t *testing.T) {
	for _, part := range []any{full().record, *full().request, full().grant} {
		v := reflect.ValueOf(part)
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Replier" {
				t.Errorf("%s.%s is not tried", v.Type(), name)
			}
		}
	}
	test := func(what string, change func(*whole)) {
		t.Helper()
		w, want := full(), full()
		change(w)
		change(want)
		want.grant.Way, want.grant.Budget = w.grant.Way, w.grant.Budget
		if got := comesBack(w); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\n%+v\nwant\n%+v\n%+v", what, got, got.request, want, want.request)
		}
	}
	test("all", func(*whole) {})
	test("an IPv4 target, nobody known", func(w *whole) {
		w.record.Target = socks.Addr{IP: netip.MustParseAddr("192.0.2.3"), Port: 80}
		w.request.Target, w.request.Identity, w.grant.Identity, w.record.Identity = w.record.Target, Identity{}, Identity{}, Identity{}
	})
	test("one identity", func(w *whole) { w.request.Identity, w.grant.Identity = w.record.Identity, w.record.Identity })
	for bit := range 64 { // some of which look like characters of several bytes
		test("a mark", func(w *whole) { w.record.Identity.Mark = 0xa8a3c2b5d3a1c3b2 >> bit })
	}
	test("nothing rare", func(w *whole) {
		r, g := &w.record, &w.grant
		r.Through, r.To, r.Socket, r.Proxy, r.Primary = netip.AddrPort{}, socks.Addr{}, "", "", ""
		g.Until, g.Budget = time.Time{}, nil
	})
	test("no address that is known", func(w *whole) {
		w.record.Address = netip.AddrPort{}
		w.grant.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.4")}
	})
}

// TestRestKeepsEveryMark: a mark is any number, and its bytes may look like a character of several.
func TestRestKeepsEveryMark(t *testing.T) {
	kept := func(mark uint64, before, behind string) bool {
		w := full()
		w.record.Identity = Identity{Name: before, Proof: Password, Mark: mark}
		w.grant.Identity = Identity{Name: behind, Proof: Password, Mark: ^mark}
		got := comesBack(w)
		return got.record.Identity == w.record.Identity && got.grant.Identity == w.grant.Identity
	}
	if err := quickly.Check(kept, &quickly.Config{MaxCount: 10_000}); err != nil {
		t.Error(err)
	}
}

// TestRestIsSmall: nothing rare has a place where there is nothing of it.
func TestRestIsSmall(t *testing.T) {
	w := full()
	w.record = Record{Client: w.record.Client, Target: socks.FromIP(w.record.Client), Address: w.record.Client, Bound: w.record.Client}
	w.request = &Request{Local: w.record.Client, Client: w.record.Client, Target: w.record.Target}
	w.grant = Grant{Addrs: []netip.Addr{w.record.Client.Addr()}}
	if r := w.pack(); r.rare != nil || len(r.packed) > 32 {
		t.Errorf("%d bytes, and %v", len(r.packed), r.rare)
	}
	w.grant.Until = time.Unix(1, 0)
	if w.pack().rare == nil {
		t.Error("the end of a grant is forgotten")
	}
}
