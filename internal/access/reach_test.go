package access

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestReach: what the allow rules are about that a client could come to, whoever it is
// and whatever the hour.
func TestReach(t *testing.T) {
	set, err := OpenSet("x", []Destination{{Name: "set.example"}}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) []Destination { return []Destination{{Name: name}} }
	lan := []Network{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
	p := NewPolicy([]Rule{
		{Name: "of another listener", Listeners: []string{"wan"}, To: named("wan.example")},
		{Name: "of another protocol", Protocols: []server.Protocol{server.SOCKS5}, To: named("socks.example")},
		{Name: "of another command", Commands: []socks.Command{socks.Bind}, To: named("bind.example")},
		{Name: "from elsewhere", From: []Network{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}, To: named("elsewhere.example")},
		{Name: "some is denied", Deny: true, To: named("denied.example")},
		{Name: "by a password", From: lan, Users: &Users{Any: true}, Proofs: []server.Proof{server.Password}, To: named("password.example")},
		{Name: "by a claim", From: lan, Users: &Users{Any: true}, Proofs: []server.Proof{server.Claimed}, To: named("claim.example")},
		{Name: "of a user", From: lan, Users: &Users{Names: []string{"alice"}}, To: named("alice.example")},
		{Name: "of a port", From: lan, Ports: []server.PortRange{{First: 22, Last: 22}}, To: named("port.example")},
		{Name: "at no hour", From: lan, Deny: true, During: NewSchedule(nil, nil)},
		{Name: "all", From: lan},
		{Name: "from here all is denied", Deny: true, From: lan},
		{Name: "never reached", From: lan, To: named("behind.example")},
		{Name: "a set", From: []Network{{Prefix: netip.MustParsePrefix("172.16.0.0/12")}}, ToSets: []*Set{set}},
	}, Options{})
	for _, test := range []struct {
		listener string
		protocol server.Protocol
		client   string
		want     []string
		sets     bool
	}{
		{"lan", server.HTTP, "10.0.0.1", []string{"password.example", "alice.example", "port.example", ""}, false},
		{"lan", server.SOCKS5, "10.0.0.1", []string{"socks.example", "password.example", "alice.example", "port.example", ""}, false},
		{"lan", server.SOCKS4, "10.0.0.1", []string{"claim.example", "alice.example", "port.example", ""}, false},
		{"wan", server.HTTP, "198.51.100.1", []string{"wan.example"}, false},
		{"lan", server.HTTP, "192.0.2.1", []string{"elsewhere.example"}, false},
		{"lan", server.HTTP, "172.16.0.1", nil, true},
		{"lan", server.HTTP, "198.51.100.1", nil, false},
	} {
		got := p.Reach(test.listener, test.protocol, netip.MustParseAddr(test.client))
		var names []string
		for _, d := range got.To {
			names = append(names, d.Name)
		}
		if !slices.Equal(names, test.want) || got.Sets != test.sets || got.MayPass() != (test.sets || len(test.want) > 0) {
			t.Errorf("%s by %s from %s: %q, sets %v; want %q, %v", test.listener, test.protocol, test.client, names, got.Sets, test.want, test.sets)
		}
	}
}
