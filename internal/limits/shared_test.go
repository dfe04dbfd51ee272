package limits

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestSharedRates: nodes that move under one rate have it together, soon in about
// equal parts, and what some do not use falls to the others; alone, one has all of it.
func TestSharedRates(t *testing.T) {
	const rate = 8_000_000 // bits a second: a million bytes
	for name, test := range map[string]struct {
		demand []float64 // of each node, in parts of the rate
		want   []float64
	}{
		"one":                     {[]float64{9}, []float64{1}},
		"two":                     {[]float64{9, 9}, []float64{0.5, 0.5}},
		"five":                    {[]float64{9, 9, 9, 9, 9}, []float64{0.2, 0.2, 0.2, 0.2, 0.2}},
		"one wants little":        {[]float64{9, 9, 0.1}, []float64{0.45, 0.45, 0.1}},
		"one wants nothing":       {[]float64{9, 0}, []float64{1, 0}},
		"all want less than that": {[]float64{0.2, 0.3}, []float64{0.2, 0.3}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var nodes []*sharer
			for _, demand := range test.demand {
				nodes = append(nodes, newSharer(t, rate, demand))
			}
			for range 20 {
				second(nodes)
			}
			for _, n := range nodes {
				n.moved = 0
			}
			for range 20 {
				second(nodes)
			}
			for i, n := range nodes {
				if got := float64(n.moved) / 20 / (rate / 8); math.Abs(got-test.want[i]) > 0.03 {
					t.Errorf("%s: the node %d has %.3f of the rate, want %.3f", name, i, got, test.want[i])
				}
			}
		})
	}
}

// sharer is a node on which alice wants so many bytes a second.
type sharer struct {
	table  *Table
	guest  *guest
	demand float64
	due    time.Time // when she may go on
	moved  int64
}

func newSharer(t *testing.T, rate int64, demand float64) *sharer {
	t.Helper()
	tab := &Table{}
	tab.Set(map[string]Limit{"fair": {Per: User, Rate: rate, Shared: true}})
	tab.Rates(time.Now())
	return &sharer{table: tab, guest: in(t, tab, "alice", "fair"), demand: demand * float64(rate) / 8}
}

// second has all move for a second, then the bank come to all.
func second(nodes []*sharer) {
	wanted := make([]float64, len(nodes))
	for range 1000 {
		time.Sleep(time.Millisecond) // of the bubble
		for i, n := range nodes {
			wanted[i] += n.demand / 1000
			for float64(n.guest.down.Chunk()) > 0 && wanted[i] >= 1 && !n.due.After(time.Now()) {
				piece := min(n.guest.down.Chunk(), int(wanted[i]))
				n.moved += int64(piece)
				wanted[i] -= float64(piece)
				n.due = time.Now().Add(n.guest.down.Took(piece))
			}
		}
	}
	var uses []RateUse
	by := make(map[int]RateUse)
	for i, n := range nodes {
		for _, u := range n.table.Rates(time.Now()) {
			uses = append(uses, u)
			by[i] = u
		}
	}
	for i, n := range nodes {
		own, ok := by[i]
		if !ok {
			continue
		}
		others := RateOfOthers{RateUse: RateUse{Account: own.Account}}
		for _, u := range uses {
			others.Up += u.Up
		}
		others.Up -= own.Up
		others.Nodes = len(uses) - 1
		n.table.Shared([]RateOfOthers{others})
	}
}
