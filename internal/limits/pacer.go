package limits

import (
	"math"
	"time"
)

// pacer is one direction of a session through all rates and quotas that it counts
// towards. It implements [server.Pacer].
type pacer struct {
	lanes  []*lane
	quotas []*counter
	isUp   bool
}

// paces reports whether anything in it could hold the session up.
func (p *pacer) paces() bool { return len(p.lanes) > 0 || len(p.quotas) > 0 }

// add has the session count towards one more.
func (p *pacer) add(l *lane, c *counter) {
	if l != nil {
		p.lanes = append(p.lanes, l)
	}
	if c.tally != nil {
		p.quotas = append(p.quotas, c)
	}
}

// Chunk implements [server.Pacer].
func (p *pacer) Chunk() int {
	least := math.MaxInt
	for _, c := range p.quotas {
		least = min(least, c.chunk())
	}
	for _, l := range p.lanes {
		least = min(least, l.chunk())
	}
	return least
}

// Took implements [server.Pacer].
func (p *pacer) Took(n int) time.Duration {
	now := time.Now()
	var longest time.Duration
	for _, l := range p.lanes { // first: what is still within a quota is not slowed by its end
		longest = max(longest, l.took(n, now))
	}
	for _, c := range p.quotas {
		longest = max(longest, c.took(n, p.isUp, now))
	}
	return longest
}

// Passes implements [server.Pacer].
func (p *pacer) Passes(n int) bool {
	for _, c := range p.quotas {
		if c.stops() {
			return false
		}
	}
	for _, l := range p.lanes {
		if !l.fits() {
			return false
		}
	}
	for _, l := range p.lanes {
		l.pass(n)
	}
	for _, c := range p.quotas {
		c.spend(n, p.isUp, time.Now())
	}
	return true
}
