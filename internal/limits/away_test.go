package limits

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

const (
	quotaOfAway = 64 * mib
	lentOfAway  = 4 * mib
)

// takesAll moves pieces until there is a pause or an end, and returns how much that was.
func takesAll(g *guest) (moved int64) {
	for range 10_000 {
		n := min(g.down.Chunk(), 16<<10)
		moved += int64(n)
		if g.down.Took(n) > 0 || len(g.ended) > 0 {
			break
		}
	}
	return moved
}

// TestAway: while the bank cannot be asked, who has used up what it has lent goes on
// up to the quota, or is ended and refused, as it is said; who has not, goes on; and
// when the bank is there again it is as ever.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { away(t, true, quotaOfAway+1, server.Quota) })
	synctest.Test(t, func(t *testing.T) { away(t, false, lentOfAway+1, server.NoLedger) })
}

func away(t *testing.T, allow bool, want int64, reason server.Reason) {
	tab := &Table{}
	tab.Set(map[string]Limit{"monthly": {Per: User, Quota: quotaOfAway, Every: Every{Unit: Month}}})
	tab.Restore(nil, 1.0/64)
	alice, bob := in(t, tab, "alice", "monthly"), in(t, tab, "bob", "monthly")
	moved := int64(moves(alice.down, 1000))
	due := tab.Due(time.Now())
	settles := func(lease int64) {
		tab.Settled([]Balance{{Account: due[0].Account, Slots: []Slot{{Start: due[0].Start, Used: Amount{Down: moved}}}, Lease: lease}})
	}
	settles(lentOfAway - moved)
	tab.Away(allow)
	moved += takesAll(alice)
	tab.tick(time.Now())
	if moved != want {
		t.Errorf("allow %v: %d bytes were moved, want %d", allow, moved, want)
	}
	if moves(bob.down, 1000); len(bob.ended) > 0 {
		t.Errorf("allow %v: bob, who has used nothing, is ended with %v", allow, bob.ended[0])
	}
	_, err := tries(tab, "alice", "monthly")
	if len(alice.ended) == 0 || !errors.Is(alice.ended[0], reason) || !errors.Is(err, reason) {
		t.Errorf("allow %v: alice is ended with %v, and refused with %v; want %v", allow, alice.ended, err, reason)
	}
	if allow {
		return
	}
	tab.Due(time.Now())
	settles(lentOfAway)
	in(t, tab, "alice", "monthly")
	c := tab.named["monthly"].counters[key{name: "alice"}]
	if left := c.line.Load() - c.used.Load(); left != lentOfAway {
		t.Errorf("when the bank is there again she may have %d", left)
	}
}
