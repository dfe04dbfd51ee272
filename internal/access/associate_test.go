package access

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

var (
	_ server.AssociatePolicy = (*Policy)(nil)
	_ server.PromptPolicy    = (*Policy)(nil)
)

func TestMayAssociate(t *testing.T) {
	udp := []socks.Command{socks.Associate}
	office := []Network{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
	alice := &Users{Names: []string{"alice"}}
	for _, test := range []struct {
		name string
		rule Rule
		want server.Reason
	}{
		{"a rule for all commands", Rule{}, server.Closed},
		{"a rule for datagrams, to one place only", Rule{Commands: udp, To: []Destination{{Name: "a.example"}}}, server.Closed},
		{"a rule for other commands", Rule{Commands: []socks.Command{socks.Connect, socks.Bind}}, server.Denied},
		{"a rule that denies", Rule{Deny: true}, server.Denied},
		{"a rule for other clients", Rule{From: office}, server.Denied},
		{"a rule for another user", Rule{Users: &Users{Names: []string{"bob"}}}, server.Denied},
		{"a rule for this user", Rule{Users: alice}, server.Closed},
		{"a rule for another proof", Rule{Users: alice, Proofs: []server.Proof{server.Certificate}}, server.Denied},
	} {
		p := NewPolicy([]Rule{test.rule}, Options{})
		_, err := p.MayAssociate(t.Context(), &server.Request{
			Protocol: server.SOCKS5, Command: socks.Associate,
			Identity: server.Identity{Name: "alice", Proof: server.Password},
			Client:   netip.MustParseAddrPort("127.0.0.1:40000"),
		})
		if got := server.ReasonOf(err); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// TestMayAssociateUntil: with the last rule that could grant a destination, without
// asking anybody for its sake.
func TestMayAssociateUntil(t *testing.T) {
	evening := NewSchedule([]Span{daily(600, 1200)}, time.UTC)
	five, eight := at(17, 0)(), at(20, 0)()
	office, late := Rule{Name: "office", During: hours}, Rule{Name: "late", During: evening}
	only := func(r Rule, names ...string) Rule {
		r.Users, r.Proofs = &Users{Names: names}, []server.Proof{server.Password}
		return r
	}
	always := Rule{Name: "always"}
	for _, test := range []struct {
		name  string
		rules []Rule
		want  time.Time
	}{
		{"one rule", []Rule{office}, five},
		{"the second ends later", []Rule{office, late}, eight},
		{"the first does", []Rule{late, office}, eight},
		{"one does not end", []Rule{office, always}, time.Time{}},
		{"nor does the first", []Rule{always, office}, time.Time{}},
		{"what denies does not count", []Rule{office, {Name: "no", Deny: true}}, five},
		{"nor does what is closed", []Rule{office, {Name: "night", During: NewSchedule([]Span{daily(1200, 600)}, time.UTC)}}, five},
		{"nor what is for others", []Rule{only(office, "alice"), only(always, "bob")}, five},
		{"what is for this user", []Rule{only(office, "alice"), only(late, "alice")}, eight},
	} {
		p := NewPolicy(test.rules, Options{Now: noon})
		q := &server.Request{
			Protocol: server.SOCKS5, Command: socks.Associate, Client: netip.MustParseAddrPort("127.0.0.1:40000"),
			Identity: server.Identity{Name: "alice", Proof: server.Password},
		}
		until, err := p.MayAssociate(t.Context(), q)
		if err != nil || !until.Equal(test.want) {
			t.Errorf("%s: until %v, %v; want %v", test.name, until, err, test.want)
		}
		if again, err := p.Still(server.Held{Request: *q}); err != nil || !again.Equal(until) {
			t.Errorf("%s: still until %v, %v", test.name, again, err)
		}
	}
}

// TestCertificateOfASOCKS4Client: what was proven counts, whatever the protocol
// could have claimed.
func TestCertificateOfASOCKS4Client(t *testing.T) {
	request := &server.Request{
		Protocol: server.SOCKS4, Command: socks.Connect,
		Identity: server.Identity{Name: "alice", Proof: server.Certificate},
		Client:   netip.MustParseAddrPort("127.0.0.1:40000"),
		Target:   socks.Addr{IP: netip.MustParseAddr("8.8.8.8"), Port: 53},
	}
	for name, test := range map[string]struct {
		rule Rule
		want server.Reason
	}{
		"a rule that takes it":              {Rule{Users: &Users{Names: []string{"alice"}}, Proofs: []server.Proof{server.Certificate}}, server.Closed},
		"a rule without proofs":             {Rule{Users: &Users{Any: true}}, server.Closed},
		"a rule for somebody else":          {Rule{Users: &Users{Names: []string{"bob"}}}, server.Denied},
		"a rule that wants IDENT's word":    {Rule{Proofs: []server.Proof{server.Ident}}, server.Denied},
		"a rule that is content with claim": {Rule{Proofs: []server.Proof{server.Claimed}}, server.Denied},
	} {
		grant, err := NewPolicy([]Rule{test.rule}, Options{}).Decide(t.Context(), request)
		if got := server.ReasonOf(err); got != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if err == nil && grant.Identity != request.Identity {
			t.Errorf("%s: the identity became %v", name, grant.Identity)
		}
	}
}

// TestPrefixesLookThroughTranslators: a network that is denied is denied by way
// of NAT64 and 6to4 as well.
func TestPrefixesLookThroughTranslators(t *testing.T) {
	p := NewPolicy([]Rule{
		{Name: "not there", Deny: true, To: []Destination{{Network: Network{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}},
		{Name: "else", To: []Destination{{Network: Network{Class: Any}}}},
	}, Options{})
	for target, want := range map[string]string{
		"10.1.2.3": "not there", "64:ff9b::10.1.2.3": "not there", "2002:a01:203::1": "not there",
		"11.1.2.3": "else", "64:ff9b::11.1.2.3": "else", "2001:db8::a01:203": "else",
	} {
		grant, _ := p.Decide(t.Context(), &server.Request{Target: socks.Addr{IP: netip.MustParseAddr(target), Port: 80}})
		if grant.Rule != want {
			t.Errorf("%s: the rule %q decided, want %q", target, grant.Rule, want)
		}
	}
}
