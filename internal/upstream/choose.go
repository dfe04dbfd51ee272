package upstream

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Choose is which of those that are alive comes first. The words are those of the
// settings.
type Choose string

// The choices.
const (
	FirstAlive    Choose = "first alive" // the first in the list; the others stand by
	RoundRobin    Choose = "round robin" // each in turn
	Random        Choose = "random"
	ByClient      Choose = "by client"      // the same one for a client's address, as long as it is alive
	LeastSessions Choose = "least sessions" // the one with the fewest; of [Targets], which alone count them
)

// chooser puts those that are as good as each other in an order.
type chooser struct {
	choose Choose
	turn   atomic.Uint64
}

// order returns the indexes of all: those that are alive as they were chosen, then,
// for want of better, the others.
func (c *chooser) order(client netip.Addr, all []*health) []int {
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	switch c.choose {
	case RoundRobin, LeastSessions: // those that have as few take turns
		n := int((c.turn.Add(1) - 1) % uint64(len(all)))
		order = append(order[n:], order[:n]...)
	case Random:
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	case ByClient:
		slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(weight(client, all[i]), weight(client, all[j])) })
	}
	if c.choose == LeastSessions {
		slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(all[i].open.Load(), all[j].open.Load()) })
	}
	now := time.Now()
	down := func(i int) int {
		if all[i].usable(now) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(order, func(i, j int) int { return down(i) - down(j) })
	return order
}

// weight is a number that only the client and the name decide, and by which they
// are put in order: where one is added or fails, most clients keep theirs.
func weight(client netip.Addr, of *health) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, client, " ", of.name)
	return h.Sum64()
}
