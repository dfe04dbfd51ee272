package access

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestStillAgreesWithDecide: what random rules grant they grant still, at each
// address, and other rules grant still no more than they would.
func TestStillAgreesWithDecide(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	d := newIdentd(t, "127.0.0.1", func(c net.Conn) {
		if query, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			_, _ = io.WriteString(c, fmt.Sprintf("%s : USERID : UNIX : fred\r\n", strings.TrimSpace(query)))
		}
	})
	resolver := &zone{}
	sets := worldSets(t)
	w := stillWorld{d, resolver, seed}
	grants, kept, revoked := 0, 0, 0
	for set := range uint64(300) {
		m := newMaker(seed, set, sets)
		policies := [2]*Policy{w.policy(m), w.policy(m)}
		for range 50 {
			s := m.scene(nil)
			resolver.hosts = map[string]string{s.request.Target.Name: strings.Join(s.addrs, " ")}
			grant, err := policies[0].Decide(t.Context(), s.request)
			if err != nil {
				continue
			}
			grants++
			still, gone := w.judgesAll(t, policies, s, grant)
			kept, revoked = kept+still, revoked+gone
		}
	}
	if grants < 500 || kept < 100 || revoked < 100 {
		t.Errorf("%d grants, %d kept, %d revoked: the world is too small (seed %d)", grants, kept, revoked, seed)
	}
}

// stillWorld is what random policies ask.
type stillWorld struct {
	identd   *identd
	resolver *zone
	seed     uint64
}

func (w stillWorld) policy(m maker) *Policy {
	var rules []Rule
	for n := range 1 + m.IntN(6) {
		rules = append(rules, m.rule(fmt.Sprintf("rule-%d", n)))
	}
	p := newPolicy(w.resolver, rules...)
	p.clock = func() time.Time { return worldNoon }
	p.ident.Port = w.identd.port
	return p
}

// judgesAll judges every address of a grant, and counts.
func (w stillWorld) judgesAll(t *testing.T, policies [2]*Policy, s *scene, grant server.Grant) (kept, revoked int) {
	t.Helper()
	if s.request.Command == socks.Bind && s.request.Target.IP.IsUnspecified() {
		return 0, 0 // which has a rule of its own: TestStillAnyPeer
	}
	for _, a := range grant.Addrs {
		if w.judges(t, policies, s, grant, a) {
			kept++
		} else {
			revoked++
		}
	}
	return kept, revoked
}

// judges puts what the first policy has granted to both, and reports whether the
// second would keep it.
func (w stillWorld) judges(t *testing.T, policies [2]*Policy, s *scene, grant server.Grant, a netip.Addr) (kept bool) {
	t.Helper()
	h := server.Held{Request: *s.request, Grant: grant, Address: netip.AddrPortFrom(a, 80)}
	before := w.resolver.asked.Load() + w.identd.asked.Load()
	_, first := policies[0].Still(h)
	_, second := policies[1].Still(h)
	if after := w.resolver.asked.Load() + w.identd.asked.Load(); after != before {
		t.Fatalf("Still asked somebody")
	}
	asked := w.identd.asked.Load()
	other, refused := policies[1].Decide(t.Context(), s.request)
	alike := len(s.addrs) == 1 && w.identd.asked.Load() == asked
	switch {
	case first != nil:
		t.Fatalf("granted, and then not: %v\n%+v at %v\n%+v\nagain: go test -run TestStillAgrees -seed %d", first, *s.request, a, policies[0].rules, w.seed)
	case second != nil && !errors.Is(second, server.Revoked) && !errors.Is(second, server.Schedule):
		t.Fatalf("%v, want one that says revoked or schedule", second)
	case second == nil && alike && (refused != nil || !slices.Contains(other.Addrs, a)):
		t.Fatalf("kept what would not be granted: %v\n%+v at %v\n%+v\nagain: -seed %d", refused, *s.request, a, policies[1].rules, w.seed)
	}
	return second == nil
}

// TestStillAnyPeer: a BIND for any peer needs a rule that has any_peer.
func TestStillAnyPeer(t *testing.T) {
	h := server.Held{
		Request: server.Request{Command: socks.Bind, Target: socks.Addr{IP: netip.IPv4Unspecified()}, Client: netip.MustParseAddrPort("10.0.0.1:4")},
		Address: netip.MustParseAddrPort("8.8.8.8:4"),
	}
	for anyPeer, want := range map[bool]error{true: nil, false: server.Revoked} {
		p := newPolicy(nil, Rule{Name: "all", To: to("any"), Bind: server.BindOptions{AnyPeer: anyPeer}})
		if _, err := p.Still(h); !errors.Is(err, want) {
			t.Errorf("any_peer %v: %v, want %v", anyPeer, err, want)
		}
	}
}

// TestStillAssociate: an association without a destination is held by whoever
// could be granted some.
func TestStillAssociate(t *testing.T) {
	h := server.Held{Request: server.Request{
		Command: socks.Associate, Protocol: server.SOCKS5, Listener: "lan",
		Client: netip.MustParseAddrPort("10.0.0.1:4"), Identity: server.Identity{Name: "alice", Proof: server.Password},
	}}
	for user, want := range map[string]error{"alice": nil, "bob": server.Revoked} {
		p := newPolicy(nil, Rule{Name: "all", Users: &Users{Names: []string{user}}})
		if _, err := p.Still(h); !errors.Is(err, want) {
			t.Errorf("a rule for %s: %v, want %v", user, err, want)
		}
	}
}

// TestLoginThatIsStillGood until the user's line changes.
func TestLoginThatIsStillGood(t *testing.T) {
	const bob, bobsOther = "bob:$2y$04$QwK.BLnEkcjlnwN3jl7NouSvBEFx.2cB4c1G8lSsB3Ecmdj3R3cYq\n", "bob:$2y$04$abcdefghijklmnopqrstuuG0rM0cKzhlSLLAoCJc2PZz4r3SVoYwe\n"
	const eve = "eve:$2y$04$QwK.BLnEkcjlnwN3jl7NouSvBEFx.2cB4c1G8lSsB3Ecmdj3R3cYq\n"
	u := newUsersAt(t, bob)
	p := NewPasswords(&Policy{}, u.UsersFile, nil)
	id, err := p.Foretell("bob", server.Password)
	if want := (server.Identity{Name: "bob", Proof: server.Password, Mark: u.now.Load().accounts.marks["bob"]}); id != want || err != nil {
		t.Errorf("bob's password would prove %+v, %v; want %+v", id, err, want)
	}
	for _, p := range []*Passwords{p, nil} {
		if id, err := p.Foretell("eve", server.Password); !errors.Is(err, server.BadLogin) || id != (server.Identity{}) {
			t.Errorf("the password of nobody would prove %+v, %v", id, err)
		}
	}
	for _, step := range []struct {
		lines string
		want  string
	}{
		{bob, ""}, {eve + bob, ""}, {eve, "the user is gone"}, {bobsOther, "another password"}, {eve + bob, ""},
	} {
		writeUsers(t, u.path, step.lines)
		u.Look()
		err := p.Still(id)
		if step.want == "" && err != nil || step.want != "" && (!errors.Is(err, server.Revoked) || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("with %q: %v, want %q", step.lines, err, step.want)
		}
	}
	if err := (*Passwords)(nil).Still(id); !errors.Is(err, server.Revoked) {
		t.Errorf("without users: %v", err)
	}
	if err := (*Passwords)(nil).Still(server.Identity{Name: "bob", Proof: server.Ident}); err != nil {
		t.Errorf("what rests on no password: %v", err)
	}
}

// TestWatch calls back for other users, and for nothing else.
func TestWatch(t *testing.T) {
	u := newUsersAt(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	changed, over := make(chan bool, 10), make(chan bool)
	go func() { defer close(over); u.Watch(ctx, func() { changed <- true }) }()
	writeUsers(t, u.path, "# nobody\nno hash\n") // no good: no change
	u.Look()
	writeUsers(t, u.path, "# nobody\n")
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Error("the change was not noticed")
	}
	cancel()
	<-over
	if len(changed) > 0 {
		t.Error("told twice")
	}
}

// TestRenewedRemembersGuesses: a reload is no way to guess on.
func TestRenewedRemembersGuesses(t *testing.T) {
	p, _, _ := newTestPasswords(0)
	renewed := p.Renewed(&Policy{}, p.users)
	if renewed.guesses != p.guesses || renewed.policy == p.policy {
		t.Error("want the guesses of before, for the rules of now")
	}
}
