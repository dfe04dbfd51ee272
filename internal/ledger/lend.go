package ledger

import "time"

// A *lease* is what a node may use of a quota before it asks again; a slice of the
// quota. What all nodes have used, and what they have leased and not used yet, is
// never more than the quota. So it is overrun only by nodes that cannot ask: by what
// each of them has leased when its lease is given to others, and by what one may use
// before it has asked for the first time. Neither is more than a slice.
const (
	// firstShare is the part of a quota that a node may use before it has asked.
	firstShare = 1.0 / 64
	// leastSlice and mostSlice are parts of a quota: one in so many.
	leastSlice = 64
	mostSlice  = 16
	// crumb is the part of a quota that is not divided any more.
	crumb = 1024
	// idleLease is for how long a lease is kept that nothing is used of.
	idleLease = 10 * time.Second
	// deadLease is after what time a node that does not come any more has lost its
	// leases. Longer than idleLease, so that a node that lives has given back before.
	deadLease = 30 * time.Second
)

// lend returns how much of a quota of most a node gets that has used recent since it
// asked last, where left is neither used nor leased to others. Who is fast gets more,
// so that he need not wait; but of what is left never more than a half, so that those
// who come next get as much.
func lend(most, left, recent int64) int64 {
	if left <= 0 {
		return 0
	}
	least := max(most/crumb, 1)
	want := min(max(most/leastSlice, 2*recent), max(most/mostSlice, 1))
	return min(left, max(least, min(want, left/2)))
}
