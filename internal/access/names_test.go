package access

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// oneAnswer resolves every name to the same addresses, and counts.
type oneAnswer struct {
	addrs []netip.Addr
	asked int
}

func (o *oneAnswer) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	o.asked++
	return o.addrs, nil
}

// TestSendNames: a name leaves unresolved where nothing in the rules needs its
// addresses, and otherwise only what was judged may leave.
func TestSendNames(t *testing.T) {
	way := &server.Way{Via: "hq"}
	public, private := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.0.0.1")
	anywhere := []Destination{{Network: Network{Class: Any}}}
	byName := []Destination{{Name: "corp.example", Suffix: true}}
	net10 := []Destination{{Network: Network{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}
	via := func(to []Destination) Rule { return Rule{Name: "via", To: to, Way: way, SendNames: true} }
	for _, test := range []struct {
		name    string
		rules   []Rule
		host    string
		command socks.Command
		byName  bool
		addrs   []netip.Addr // of the grant
	}{
		{"any", []Rule{via(anywhere)}, "www.example", socks.Connect, true, nil},
		{"any, BIND", []Rule{via(anywhere)}, "www.example", socks.Bind, true, nil},
		{"by name", []Rule{via(byName)}, "a.corp.example", socks.Connect, true, nil},
		{"a datagram", []Rule{via(anywhere)}, "www.example", socks.Associate, false, []netip.Addr{public, private}},
		{"the Internet", []Rule{via(nil)}, "www.example", socks.Connect, false, []netip.Addr{public}},
		{"a network", []Rule{via(net10)}, "www.example", socks.Connect, false, []netip.Addr{private}},
		{"by name or a network", []Rule{via(slices.Concat(byName, net10))}, "a.corp.example", socks.Connect, true, nil},
		{"a network, of another name", []Rule{via(slices.Concat(byName, net10))}, "www.example", socks.Connect, false, []netip.Addr{private}},
		{"an address that is denied before it", []Rule{{Name: "no", Deny: true, To: net10}, via(anywhere)}, "www.example", socks.Connect, false, []netip.Addr{public}},
		{"another name that is denied before it", []Rule{{Name: "no", Deny: true, To: byName}, via(anywhere)}, "www.example", socks.Connect, true, nil},
		{"a rule before it that is for others", []Rule{{Name: "no", Deny: true, To: net10, Ports: []server.PortRange{{First: 1, Last: 2}}}, via(anywhere)}, "www.example", socks.Connect, true, nil},
		{"an upstream that takes no names", []Rule{{Name: "via", To: anywhere, Way: way}}, "www.example", socks.Connect, false, []netip.Addr{public, private}},
		{"localhost", []Rule{via(anywhere)}, "localhost", socks.Connect, false, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}},
		{"an address", []Rule{via(anywhere)}, "", socks.Connect, false, []netip.Addr{public}},
	} {
		t.Run(test.name, func(t *testing.T) {
			resolver := &oneAnswer{addrs: []netip.Addr{public, private}}
			p := newPolicy(resolver, test.rules...)
			target := socks.Addr{Name: test.host, Port: 80}
			if test.host == "" {
				target = socks.Addr{IP: public, Port: 80}
			}
			g, err := p.Decide(t.Context(), &server.Request{Command: test.command, Target: target, Protocol: server.SOCKS5})
			if err != nil {
				t.Fatal(err)
			}
			if g.ByName != test.byName || !slices.Equal(g.Addrs, test.addrs) || g.Way != way {
				t.Errorf("by name %v, addresses %v, way %v", g.ByName, g.Addrs, g.Way)
			}
			if test.byName && resolver.asked > 0 {
				t.Error("the name was looked up")
			}
		})
	}
}
