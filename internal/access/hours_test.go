package access

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
)

// hours are open from nine to five on Wednesday, 25 November 2026, in UTC.
var hours = NewSchedule([]Span{on(time.Wednesday, 540, 1020)}, time.UTC)

func at(hour, minute int) func() time.Time {
	return func() time.Time { return time.Date(2026, 11, 25, hour, minute, 0, 0, time.UTC) }
}

var noon = at(12, 0)

func TestHours(t *testing.T) {
	lunch := NewSchedule([]Span{daily(720, 780)}, time.UTC)
	five, one := at(17, 0)(), at(13, 0)()
	office := Rule{Name: "office", During: hours}
	other := Rule{Name: "other", Ports: onPort25.Ports, During: hours}
	for _, test := range []struct {
		name     string
		rules    []Rule
		listener *Schedule
		now      func() time.Time
		want     string
		until    time.Time
	}{
		{"in its hours", []Rule{office}, nil, at(9, 0), "office: 8.8.8.8", five},
		{"before", []Rule{office}, nil, at(8, 59), "schedule office", time.Time{}},
		{"after", []Rule{office}, nil, at(17, 0), "schedule office", time.Time{}},
		{"a rule without hours", []Rule{office, everybody}, nil, at(17, 0), everybody.Name + ": 8.8.8.8", time.Time{}},
		{"the hours of another port", []Rule{other}, nil, at(17, 0), "denied", time.Time{}},
		{"the first of two", []Rule{other, office, {Name: "second", During: hours}}, nil, at(17, 0), "schedule office", time.Time{}},
		{"a wall behind it", []Rule{office, {Name: "wall", Deny: true}}, nil, at(17, 0), "denied wall", time.Time{}},
		{"denied at some hours", []Rule{{Name: "no", Deny: true, During: hours}, {Name: "yes"}}, nil, at(12, 0), "denied no", time.Time{}},
		{"and not at others", []Rule{{Name: "no", Deny: true, During: hours}, {Name: "yes"}}, nil, at(17, 0), "yes: 8.8.8.8", time.Time{}},
		{"only denied, at other hours", []Rule{{Name: "no", Deny: true, During: hours}}, nil, at(17, 0), "denied", time.Time{}},
		{"the listener's hours end first", []Rule{office}, lunch, noon, "office: 8.8.8.8", one},
		{"the rule's do", []Rule{{Name: "lunch", During: lunch}}, hours, noon, "lunch: 8.8.8.8", one},
		{"the listener's alone", []Rule{{Name: "all"}}, lunch, noon, "all: 8.8.8.8", one},
		{"the listener is closed", []Rule{office, everybody}, lunch, at(13, 0), "schedule", time.Time{}},
		{"no rules", nil, lunch, at(13, 0), "schedule", time.Time{}},
	} {
		p := newPolicy(&zone{}, test.rules...)
		p.clock, p.hours = test.now, map[string]*Schedule{"lan": test.listener, "other": NewSchedule(nil, nil)}
		q := newRequest(t, "8.8.8.8:80", "fred")
		wantVerdict(t, p, q, test.want)
		grant, err := p.Decide(t.Context(), q)
		if !grant.Until.Equal(test.until) {
			t.Errorf("%s: until %v, want %v", test.name, grant.Until, test.until)
		}
		denied := server.ReasonOf(err) == server.Denied // of datagrams that cannot be said before they come
		if _, associates := p.MayAssociate(t.Context(), q); !denied && server.ReasonOf(associates) != server.ReasonOf(err) {
			t.Errorf("%s: an association ends with %v, a CONNECT with %v", test.name, associates, err)
		}
	}
}

// For the sake of the reason nobody is asked: neither a resolver nor identd.
func TestHoursAskNobody(t *testing.T) {
	d := newIdentd(t, "127.0.0.1", names("fred"))
	resolver := &zone{hosts: map[string]string{"host.example": "8.8.8.8"}}
	p := newPolicy(resolver, Rule{Name: "late", During: hours, Proofs: []server.Proof{server.Ident}})
	p.clock, p.ident.Port = at(17, 0), d.port
	wantVerdict(t, p, newRequest(t, "host.example:80", "fred"), "schedule late")
	if resolver.asked.Load() != 0 || d.asked.Load() != 0 {
		t.Errorf("the resolver was asked %d times, identd %d times", resolver.asked.Load(), d.asked.Load())
	}
}

// What a client has to show follows from the rules of the hour, of the sets that
// hold it, and of every proof.
func TestLoginAtThisTime(t *testing.T) {
	near, err := OpenSet("near", to("192.0.2.0/24"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	far, err := OpenSet("far", to("198.51.100.0/24", "host.example"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	password, certificate := []server.Proof{server.Password}, []server.Proof{server.Certificate}
	for _, test := range []struct {
		name  string
		rules []Rule
		now   func() time.Time
		want  server.Login
	}{
		{"at its hour", []Rule{{Proofs: password, During: hours}}, noon, server.LoginRequired},
		{"at another", []Rule{{Proofs: password, During: hours}, everybody}, at(17, 0), server.LoginNone},
		{"open at its hour", []Rule{byPassword, {During: hours}}, noon, server.LoginOptional},
		{"closed at another", []Rule{byPassword, {During: hours}}, at(17, 0), server.LoginRequired},
		{"a wall at its hour", []Rule{{Deny: true, During: hours}, byPassword}, noon, server.LoginNone},
		{"no wall at another", []Rule{{Deny: true, During: hours}, byPassword}, at(17, 0), server.LoginRequired},
		{"from a set", []Rule{{Proofs: password, FromSets: []*Set{near}}}, noon, server.LoginRequired},
		{"from another", []Rule{{Proofs: password, FromSets: []*Set{far}}, everybody}, noon, server.LoginNone},
		{"from one of two", []Rule{{Proofs: password, FromSets: []*Set{far, near}}}, noon, server.LoginRequired},
		{"from a set or a network", []Rule{{Proofs: password, FromSets: []*Set{far}, From: from("192.0.2.1")}}, noon, server.LoginRequired},
		{"a wall for a set", []Rule{{Deny: true, FromSets: []*Set{near}}, byPassword}, noon, server.LoginNone},
		{"a wall for another", []Rule{{Deny: true, FromSets: []*Set{far}}, byPassword}, noon, server.LoginRequired},
		{"no wall to a set", []Rule{{Deny: true, ToSets: []*Set{far}}, byPassword}, noon, server.LoginRequired},
		{"by certificate", []Rule{{Proofs: certificate}}, noon, server.LoginNone},
		{"some by certificate, some by password", []Rule{{Proofs: certificate}, byPassword}, noon, server.LoginOptional},
	} {
		p := newPolicy(nil, test.rules...)
		p.clock = test.now
		if got := p.login("lan", server.SOCKS5, netip.MustParseAddr("192.0.2.1")); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	p := newPolicy(nil, byPassword)
	p.clock, p.hours = at(17, 0), map[string]*Schedule{"lan": hours}
	if got := p.login("lan", server.SOCKS5, netip.MustParseAddr("192.0.2.1")); got != server.LoginNone {
		t.Errorf("a listener that is closed: %d", got)
	}
}

// TestNoMethodOpensWhatAnotherRuleCloses is the shape of CVE-2024-54662, where
// the method that one rule was content with opened what another asked more for:
// whatever the client was let through the handshake with, a rule grants only
// what was shown of all that it asks.
func TestNoMethodOpensWhatAnotherRuleCloses(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	sets := worldSets(t)
	identities := []server.Identity{{}, {Name: "fred", Proof: server.Password}, {Name: "alice", Proof: server.Certificate}}
	seen := map[string]int{}
	for turn := range uint64(500) {
		m := newMaker(seed, turn, sets)
		rules := m.rules(turn)
		for i := range rules {
			if m.maybe(20) {
				rules[i].Proofs = []server.Proof{server.Certificate}
			}
		}
		resolver := &zone{}
		p := newPolicy(resolver, rules...)
		p.clock = func() time.Time { return worldNoon }
		for range 50 {
			s := m.scene(rules)
			q := s.request
			q.Relayed = true // so no identd
			q.Protocol = server.Protocol(m.pick([]string{"socks5", "http"}))
			q.Identity = identities[m.IntN(len(identities))]
			resolver.hosts = s.hosts()
			login := p.login(q.Listener, q.Protocol, q.Client.Addr())
			grant, err := p.Decide(t.Context(), q)
			seen[fmt.Sprint("login ", login)]++
			if err != nil {
				continue
			}
			seen[fmt.Sprint("granted ", q.Identity.Proof)]++
			by := rules[slices.IndexFunc(rules, func(r Rule) bool { return r.Name == grant.Rule })]
			if fault := isShown(by, q.Identity, login); fault != nil {
				t.Fatalf("%v: granted by %q to %+v, login %d\n%+v\n%+v\nagain: -seed %d", fault, grant.Rule, q.Identity, login, *q, rules, seed)
			}
		}
	}
	for _, kind := range []string{"granted ", "granted password", "granted certificate", "login 0", "login 1", "login 2"} {
		if seen[kind] < 30 {
			t.Errorf("%q came up only %d times (seed %d)", kind, seen[kind], seed)
		}
	}
}

// isShown checks by the rule alone that the client may use it, and that the
// handshake asked for what it has shown.
func isShown(r Rule, id server.Identity, login server.Login) error {
	asksUser := r.Users != nil || len(r.Proofs) > 0
	switch {
	case login == server.LoginRequired && id.Proof == server.NoProof:
		return errors.New("a password was needed, and there is none")
	case !asksUser:
		return nil
	case login == server.LoginNone && id.Proof == server.Password:
		return errors.New("nobody was asked for the password that it takes")
	case id.Name == "":
		return errors.New("nothing was shown")
	case len(r.Proofs) > 0 && !slices.Contains(r.Proofs, id.Proof):
		return errors.New("another proof was shown")
	case r.Users != nil && !r.Users.Any && !slices.Contains(r.Users.Names, id.Name):
		return errors.New("it is for others")
	}
	return nil
}
