package limits

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// TestAway: while the bank cannot be asked, who has used up what it has lent goes on
// up to the quota, or is ended and refused, as it is said; who has not, goes on; and
// when the bank is there again it is as ever.
func TestAway(t *testing.T) {
	const quota, lent = 64 * mib, 4 * mib
	for allow, want := range map[bool]int64{true: quota + 1, false: lent + 1} {
		synctest.Test(t, func(t *testing.T) {
			tab := &Table{}
			tab.Set(map[string]Limit{"monthly": {Per: User, Quota: quota, Every: Every{Unit: Month}}})
			tab.Restore(nil, 1.0/64)
			alice, bob := in(t, tab, "alice", "monthly"), in(t, tab, "bob", "monthly")
			start := tab.Due(time.Now()) // nothing
			if len(start) > 0 {
				t.Errorf("%+v", start)
			}
			moved := int64(moves(alice.down, 1000))
			due := tab.Due(time.Now())
			tab.Settled([]Balance{{Account: due[0].Account, Slots: []Slot{{Start: due[0].Start, Used: due[0].Used}}, Lease: lent - moved}})
			tab.Away(allow)
			for range 10_000 {
				n := min(alice.down.Chunk(), 16<<10)
				moved += int64(n)
				if alice.down.Took(n) > 0 || len(alice.ended) > 0 {
					break
				}
			}
			tab.tick(time.Now())
			if moved != want {
				t.Errorf("allow %v: %d bytes were moved, want %d", allow, moved, want)
			}
			if moves(bob.down, 1000); len(bob.ended) > 0 {
				t.Errorf("allow %v: bob, who has used nothing, is ended with %v", allow, bob.ended[0])
			}
			_, err := tries(tab, "alice", "monthly")
			reason := server.NoLedger
			if allow {
				reason = server.Quota
			}
			if len(alice.ended) == 0 || !errors.Is(alice.ended[0], reason) || !errors.Is(err, reason) {
				t.Errorf("allow %v: alice is ended with %v, and refused with %v; want %v", allow, alice.ended, err, reason)
			}
			due = tab.Due(time.Now())
			if allow {
				return
			}
			tab.Settled([]Balance{{Account: due[0].Account, Slots: []Slot{{Start: due[0].Start, Used: Amount{Down: moved}}}, Lease: lent}})
			in(t, tab, "alice", "monthly")
			c := tab.named["monthly"].counters[key{name: "alice"}]
			if left := c.line.Load() - c.used.Load(); left != lent {
				t.Errorf("when the bank is there again she may have %d", left)
			}
		})
	}
}
