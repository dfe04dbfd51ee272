package access

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// holds is the reference for a condition: whether it is true of the rule that
// this is what did not match, by the rule alone.
func (s *scene) holds(r Rule, miss Condition) bool {
	q := s.request
	switch miss {
	case MissListeners:
		return r.Listeners != nil && !slices.Contains(r.Listeners, q.Listener)
	case MissProtocols:
		return r.Protocols != nil && !slices.Contains(r.Protocols, q.Protocol)
	case MissCommands:
		return r.Commands != nil && !slices.Contains(r.Commands, q.Command)
	case MissPorts:
		return r.Ports != nil && (q.Target.Port < r.Ports[0].First || q.Target.Port > r.Ports[0].Last)
	case MissFrom:
		return !s.plainly(Rule{From: r.From, FromSets: r.FromSets})
	case MissUsers:
		return s.plainly(r) && s.isForOthers(r)
	case MissDuring:
		return s.plainly(r) && !s.isForOthers(r) && r.During == worldNights
	case MissTo:
		hit, _ := s.about(r, s.addrs)
		return s.plainly(r) && !s.isForOthers(r) && (len(hit) == 0 || len(s.addrs) > 1) // of several addresses some may be decided on
	case MissProof:
		return s.plainly(r) && (r.Users != nil || r.Proofs != nil)
	case MissRest:
		return s.plainly(r) && r.Deny && len(s.addrs) > 1
	}
	return s.plainly(r) && !s.isForOthers(r) && r.During != worldNights
}

// TestExplainAgrees puts 100,000 requests to generated rules: what is explained is
// what is decided, step by step, and an open session that was granted so may go on.
func TestExplainAgrees(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	sets := worldSets(t)
	resolver := &zone{}
	misses := map[Condition]int{}
	turns := uint64(2000)
	if testing.Short() {
		turns = 100
	}
	for turn := range turns {
		m := newMaker(seed, turn, sets)
		rules := m.rules(turn)
		p := newPolicy(resolver, rules...)
		p.clock = func() time.Time { return worldNoon }
		for range 50 {
			s := m.scene(rules)
			s.sets, s.request.Relayed = sets, true // no identd is asked: that is in TestRandomRules
			resolver.hosts = s.hosts()
			grant, err := p.Decide(t.Context(), s.request)
			e := p.Explain(t.Context(), s.request)
			if fault := s.compare(grant, err, e, misses); fault != "" {
				t.Fatalf("%s\ndecided %+v, %v\nexplained %+v\nrequest %+v to %v\n%+v\nagain: -seed %d", fault, grant, err, e, *s.request, s.addrs, rules, seed)
			}
			if err := staysGranted(p, s.request, grant); err != nil {
				t.Fatalf("granted by %q, and then: %v\nrequest %+v\n%+v\nagain: -seed %d", grant.Rule, err, *s.request, rules, seed)
			}
		}
	}
	for _, miss := range []Condition{"", MissListeners, MissProtocols, MissCommands, MissPorts, MissFrom, MissUsers, MissDuring, MissTo, MissProof, MissRest} {
		if misses[miss] < 20 {
			t.Errorf("%q came up only %d times (seed %d)", miss, misses[miss], seed)
		}
	}
}

// staysGranted asks again for the session that a grant made.
func staysGranted(p *Policy, q *server.Request, grant server.Grant) error {
	if q.Command == socks.Bind && q.Target.IP.IsUnspecified() {
		return nil // the server grants it where the rule says any_peer
	}
	for _, a := range grant.Addrs {
		until, err := p.Still(server.Held{Request: *q, Grant: grant, Address: netip.AddrPortFrom(a, q.Target.Port)})
		if err != nil || !until.Equal(grant.Until) {
			return fmt.Errorf("%s: until %v, %w", a, until, err)
		}
	}
	return nil
}

// compare returns what is wrong with an explanation.
func (s *scene) compare(grant server.Grant, err error, e Explanation, misses map[Condition]int) string {
	switch {
	case (err == nil) != (e.Err == nil), err != nil && err.Error() != e.Err.Error():
		return "another error"
	case grant.Rule != e.Grant.Rule, grant.Identity != e.Grant.Identity, !slices.Equal(grant.Addrs, e.Grant.Addrs), !grant.Until.Equal(e.Grant.Until):
		return "another grant"
	}
	decided := false
	for i, step := range e.Steps {
		r := s.rules[i]
		misses[step.Miss]++
		switch {
		case step.Rule != r.Name, step.Place != i, step.Deny != r.Deny, step.Text == "", decided:
			return "another step than " + step.Rule
		case !s.holds(r, step.Miss):
			return "not true of " + step.Rule + ": " + string(step.Miss)
		}
		decided = step.Miss == ""
	}
	reason := server.ReasonOf(err)
	switch {
	case decided != (err == nil || reason == server.Denied && grant.Rule != "" || reason == server.NoName):
		return "it is not said which rule decided"
	case decided && reason != server.NoName && e.Steps[len(e.Steps)-1].Rule != grant.Rule:
		return "another rule decided"
	case !decided && len(e.Steps) != len(s.rules):
		return "steps are missing"
	}
	return ""
}

func TestExplainTexts(t *testing.T) {
	p := newPolicy(&zone{hosts: map[string]string{"two.example": "8.8.8.8 10.0.0.1"}},
		Rule{Name: "wan", Listeners: []string{"wan"}},
		Rule{Name: "web", Protocols: []server.Protocol{server.HTTP}},
		Rule{Name: "bind", Commands: []socks.Command{socks.Bind}},
		Rule{Name: "mail", Ports: onPort25.Ports},
		Rule{Name: "office", From: from("10.0.0.0/8")},
		Rule{Name: "bob", Users: &Users{Names: []string{"bob"}}, Proofs: []server.Proof{server.Claimed}},
		Rule{Name: "night", During: NewSchedule(nil, nil)},
		Rule{Name: "there", To: to("9.9.9.9")},
		Rule{Name: "login", Proofs: []server.Proof{server.Password}, Limits: []string{"daily"}},
		Rule{Name: "inside", Deny: true, To: to("private")},
		Rule{Name: "else", Limits: []string{"fair"}},
	)
	e := p.Explain(t.Context(), newRequest(t, "two.example:80", "fred"))
	want := []string{
		"listeners: it is for the listeners wan, not for lan",
		"protocols: it is for http, not for socks4a",
		"commands: it is for bind, not for connect",
		"ports: the port 80 is not among its ports",
		"from: the client 127.0.0.1 is not where it says",
		`users: it is for other users than "fred"`,
		"during: it is for other hours",
		"to: the target two.example is not where it says",
		"proof: it wants to be shown password",
		"rest: it denies some of the target's addresses, and there are others",
		": it matches, and allows",
	}
	for i, step := range e.Steps {
		if got := string(step.Miss) + ": " + step.Text; i >= len(want) || got != want[i] {
			t.Errorf("step %d: %q", i, got)
		}
	}
	if len(e.Steps) != len(want) || !slices.Equal(e.Addrs, addrs("8.8.8.8 10.0.0.1")) || !slices.Equal(e.Limits, []string{"fair"}) || !slices.Equal(e.Grant.Addrs, addrs("8.8.8.8")) {
		t.Errorf("%+v", e)
	}
	if login := e.Steps[8]; !slices.Equal(login.Wants, []server.Proof{server.Password}) {
		t.Errorf("what would have helped: %v", login.Wants)
	}
}

// A session goes on as long as the policy would grant it to whoever it is, where
// it is.
func TestStill(t *testing.T) {
	fred := &Users{Names: []string{"fred"}}
	named := newRequest(t, "host.example:80", "fred")
	byIP := newRequest(t, "8.8.8.8:80", "fred")
	udp := newRequest(t, "0.0.0.0:0", "fred")
	udp.Command = socks.Associate
	claimed, ident := server.Identity{Name: "fred", Proof: server.Claimed}, server.Identity{Name: "fred", Proof: server.Ident}
	public, private := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.0.0.1")
	never := NewSchedule(nil, nil)
	for _, test := range []struct {
		name    string
		rules   []Rule
		request *server.Request
		id      server.Identity
		addr    netip.Addr
		want    server.Reason
	}{
		{"as before", []Rule{{Name: "now"}}, byIP, claimed, public, server.Closed},
		{"no rule is left", nil, byIP, claimed, public, server.Revoked},
		{"another port", []Rule{onPort25}, byIP, claimed, public, server.Revoked},
		{"a name is denied", []Rule{{Deny: true, To: to("*.example")}, {Name: "now"}}, named, claimed, public, server.Revoked},
		{"the address is denied", []Rule{{Deny: true, To: to("8.8.8.8")}, {Name: "now"}}, named, claimed, public, server.Revoked},
		{"another address of the name is denied", []Rule{{Deny: true, To: to("8.8.4.4")}, {Name: "now"}}, named, claimed, public, server.Closed},
		{"the name vouches", []Rule{{Name: "now", To: to("host.example")}}, named, claimed, private, server.Closed},
		{"nothing vouches", []Rule{{Name: "now"}}, named, claimed, private, server.Revoked},
		{"the hour has passed", []Rule{{Name: "now", During: never}}, byIP, claimed, public, server.Schedule},
		{"identd said so once", []Rule{{Name: "now", Users: fred, Proofs: []server.Proof{server.Ident}}}, byIP, ident, public, server.Closed},
		{"identd was not asked", []Rule{{Name: "now", Users: fred, Proofs: []server.Proof{server.Ident}}}, byIP, claimed, public, server.Revoked},
		{"another user", []Rule{{Name: "now", Users: &Users{Names: []string{"alice"}}, Proofs: []server.Proof{server.Ident}}}, byIP, ident, public, server.Revoked},
		{"a name that was sent on", []Rule{{Name: "now", To: to("any"), SendNames: true}}, named, claimed, netip.Addr{}, server.Closed},
		{"a name that was sent on is denied", []Rule{{Deny: true, To: to("host.example")}, {Name: "now", To: to("any"), SendNames: true}}, named, claimed, netip.Addr{}, server.Revoked},
		{"an association", []Rule{{Name: "now", To: to("9.9.9.9")}}, udp, claimed, netip.Addr{}, server.Closed},
		{"no association", []Rule{{Name: "now", Commands: []socks.Command{socks.Connect}}}, udp, claimed, netip.Addr{}, server.Revoked},
		{"no association at this hour", []Rule{{Name: "now", During: never}}, udp, claimed, netip.Addr{}, server.Schedule},
	} {
		resolver := &zone{}
		held := server.Held{Request: *test.request, Grant: server.Grant{Identity: test.id}}
		if test.addr.IsValid() {
			held.Address = netip.AddrPortFrom(test.addr, 80)
		}
		_, err := newPolicy(resolver, test.rules...).Still(held)
		if server.ReasonOf(err) != test.want || resolver.asked.Load() > 0 {
			t.Errorf("%s: %v, want %v; %d names looked up", test.name, err, test.want, resolver.asked.Load())
		}
	}
}

// TestExplainIdentd: what is said in the place of identd is taken as what it says.
func TestExplainIdentd(t *testing.T) {
	rules := []Rule{{Name: "by identd", Users: &Users{Any: true}, Proofs: []server.Proof{server.Ident}}}
	q := newRequest(t, "8.8.8.8:80", "fred")
	for says, want := range map[string]server.Reason{"fred": server.Closed, "bob": server.OtherUser, "": server.NoIdentd} {
		p := NewPolicy(rules, Options{Identd: func(_ context.Context, local, client netip.AddrPort) (string, error) {
			if says == "" || local != q.Local || client != q.Client {
				return "", server.NoIdentd
			}
			return says, nil
		}})
		if e := p.Explain(t.Context(), q); server.ReasonOf(e.Err) != want {
			t.Errorf("identd says %q: %v, want %s", says, e.Err, want)
		}
	}
}
