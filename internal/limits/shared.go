package limits

import (
	"sync/atomic"
	"time"
)

// A rate with [Limit.Shared] holds for all nodes of a bank together. With each of its
// writes the bank comes for how fast each key was on this node ([Table.Rates]), and
// then says how fast the others were ([Table.Shared]): this node gets what they leave,
// but never less than an equal part. Between two writes the parts are as they were.

// RateUse is how fast a key was, in bytes a second.
type RateUse struct {
	Account
	Up, Down float64 // where the rate is of both directions together, Up is both
}

// RateOfOthers is how fast a key was on the other nodes, in sum.
type RateOfOthers struct {
	RateUse
	Nodes int // how many others there are
}

// flow is what was moved by a shared rate, and which part of the rate is this node's.
type flow struct {
	moved atomic.Int64
	part  float64 // the table's mutex guards it
}

// since returns how fast it was since a time, and begins anew.
func (f *flow) since(elapsed time.Duration) float64 {
	n := f.moved.Swap(0)
	return float64(n) / max(elapsed, time.Millisecond).Seconds()
}

// divide sets the part of a rate, in bytes a second, where others use so much of it.
// Half of the way: where all do it at the same time, they would else all take what
// one leaves, and leave it again.
func (f *flow) divide(rate, used float64, others int) {
	switch {
	case rate <= 0:
	case others == 0:
		f.part = 1
	default:
		f.part = (f.part + max(1/float64(others+1), 1-used/rate)) / 2
	}
}

// isShared reports whether the bank is to come for how fast the limit's keys are.
func (l *limit) isShared() bool {
	return l.Limit.Shared && !l.gone && l.Per != Session && (l.kind() == together || l.kind() == apart)
}

// Rates returns how fast the keys of shared rates were since the last call, but for
// those that moved nothing.
func (t *Table) Rates(now time.Time) (all []RateUse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	elapsed := now.Sub(t.measured)
	t.measured = now
	for _, l := range t.named {
		if !l.isShared() {
			continue
		}
		for c := range l.open.all() {
			u := RateUse{c.account(), c.up.flow.since(elapsed), 0}
			if c.down != c.up {
				u.Down = c.down.flow.since(elapsed)
			}
			if u.Up > 0 || u.Down > 0 {
				all = append(all, u)
			}
		}
	}
	return all
}

// Shared takes how fast others were.
func (t *Table) Shared(all []RateOfOthers) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range all {
		l := t.named[o.Limit]
		if l == nil || !l.isShared() {
			continue
		}
		k, ok := o.key(l.Per)
		c := l.counters[k]
		if !ok || c == nil {
			continue
		}
		if c.up == c.down {
			c.up.flow.divide(float64(l.Rate)/8, o.Up, o.Nodes)
		} else {
			c.up.flow.divide(float64(l.Up)/8, o.Up, o.Nodes)
			c.down.flow.divide(float64(l.Down)/8, o.Down, o.Nodes)
		}
		c.set(l.Limit)
	}
}
