package access

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	attacker = netip.MustParseAddr("198.51.100.9")
	home     = netip.MustParseAddr("203.0.113.7")
)

// guessing tries wrong passwords one after the other, as fast as it may, and
// returns how long that takes.
func guessing(g *guesses, from netip.Addr, user func(n int) string, times int, now time.Time) time.Time {
	for n := range times {
		for wait := g.admit(from, user(n), now); wait > 0; wait = g.admit(from, user(n), now) {
			now = now.Add(wait)
		}
		g.ended(from, user(n), false, now)
	}
	return now
}

func alice(int) string { return "alice" }

func anybody(n int) string { return fmt.Sprintf("user%d", n) }

// Pauses grow with each wrong password for one user, and slower with those for
// many; then they stay as they are.
func TestGuessesSlowDown(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name  string
		user  func(int) string
		times int
		took  time.Duration
	}{
		{"one user, mistyped", alice, 3, 0},
		{"one user, once more", alice, 4, 500 * time.Millisecond},
		{"one user, again", alice, 5, 1500 * time.Millisecond},
		{"one user, many", alice, 107, (500 + 1000 + 2000 + 101*4000) * time.Millisecond},
		{"many users, each once", anybody, 20, 0},
		{"many users, a few more", anybody, 23, (100 + 200 + 400) * time.Millisecond},
		{"many users", anybody, 126, (100+200+400+800+1600)*time.Millisecond + 101*2*time.Second},
	} {
		g := newGuesses()
		if took := guessing(g, attacker, c.user, c.times, start).Sub(start); took != c.took {
			t.Errorf("%s: %d guesses took %v, want %v", c.name, c.times, took, c.took)
		}
	}
}

// Guesses do not keep the true user out: elsewhere nothing has happened.
func TestGuessesElsewhere(t *testing.T) {
	g := newGuesses()
	now := guessing(g, attacker, alice, 50, time.Now())
	if wait := g.admit(home, "alice", now); wait != 0 {
		t.Errorf("the true user has to wait %v", wait)
	}
	if wait := g.admit(attacker, "alice", now); wait <= 0 {
		t.Error("the attacker has not to wait")
	}
}

// Of IPv6 a source is a /64; an IPv4 address is one in either form.
func TestGuessesSource(t *testing.T) {
	for _, c := range []struct {
		one, other string
		same       bool
	}{
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::2", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
	} {
		g := newGuesses()
		now := guessing(g, netip.MustParseAddr(c.one), alice, 10, time.Now())
		if same := g.admit(netip.MustParseAddr(c.other), "alice", now) > 0; same != c.same {
			t.Errorf("%s and %s: the same source: %v, want %v", c.one, c.other, same, c.same)
		}
	}
}

// A right password makes the user's own mistakes forgotten, and nothing else:
// an account of one's own buys no guesses.
func TestRightPasswordForgives(t *testing.T) {
	g := newGuesses()
	now := guessing(g, home, alice, 2, time.Now())
	g.ended(home, "alice", true, now)
	if after := guessing(g, home, alice, 3, now); after != now {
		t.Errorf("a pause of %v after a right password", after.Sub(now))
	}
	now = guessing(g, attacker, anybody, 40, now)
	g.ended(attacker, "mallory", true, now)
	if g.admit(attacker, "bob", now) <= 0 {
		t.Error("a right password for one user bought guesses at others")
	}
}

func TestGuessesAreForgotten(t *testing.T) {
	g := newGuesses()
	now := guessing(g, attacker, alice, 60, time.Now())
	now = now.Add(forgetGuesses)
	if after := guessing(g, attacker, alice, 3, now); after != now {
		t.Errorf("a pause of %v after a long while", after.Sub(now))
	}
}

// A pause begins with the guess, so that others beside it do not come in, also
// where it turns out right.
func TestGuessesBesideEachOther(t *testing.T) {
	g := newGuesses()
	now := guessing(g, attacker, alice, 10, time.Now()).Add(4 * time.Second)
	if wait := g.admit(attacker, "alice", now); wait != 0 {
		t.Fatalf("still a pause of %v", wait)
	}
	if g.admit(attacker, "alice", now) <= 0 {
		t.Error("a second guess came in beside the first")
	}
}

// The tables stay as they are, however many come.
func TestGuessesAreBounded(t *testing.T) {
	g := newGuesses()
	now := time.Now()
	for n := range 5 * maxGuesses {
		from := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		g.ended(from, anybody(n), false, now)
	}
	for name, size := range map[string]int{
		"sources": len(g.sources.now) + len(g.sources.old),
		"pairs":   len(g.pairs.now) + len(g.pairs.old),
	} {
		if size > 2*maxGuesses || size < maxGuesses {
			t.Errorf("%d %s are known, want from %d to %d", size, name, maxGuesses, 2*maxGuesses)
		}
	}
}

// What is used stays; what is not makes room.
func TestRecent(t *testing.T) {
	r := recent[int, string]{limit: 10}
	r.put(-1, "kept")
	r.put(-2, "dropped")
	r.put(-3, "removed")
	for n := range 1000 {
		r.put(n, "")
		if v, ok := r.get(-1); !ok || v != "kept" {
			t.Fatalf("%q, %v after %d others", v, ok, n)
		}
		if n == 5 {
			r.remove(-3)
			if _, ok := r.get(-3); ok {
				t.Error("what was removed is there")
			}
		}
		if size := len(r.now) + len(r.old); size > 20 {
			t.Fatalf("%d entries", size)
		}
	}
	if _, ok := r.get(-2); ok {
		t.Error("what was not used is still there")
	}
	for n := 990; n < 1000; n++ {
		if _, ok := r.get(n); !ok {
			t.Errorf("%d was forgotten too early", n)
		}
	}
}
