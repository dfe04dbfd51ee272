package limits

import (
	"math"
	"time"
)

// upward and downward are a stay as the pacer of one direction, through all rates and
// quotas that it counts towards. They are the stay itself, and need no memory.
// They implement [server.Pacer].
type (
	upward   stay
	downward stay
)

// Chunk implements [server.Pacer].
func (u *upward) Chunk() int { return (*stay)(u).chunk(up) }

// Took implements [server.Pacer].
func (u *upward) Took(n int) time.Duration { return (*stay)(u).took(n, up) }

// Passes implements [server.Pacer].
func (u *upward) Passes(n int) bool { return (*stay)(u).passes(n, up) }

// Chunk implements [server.Pacer].
func (d *downward) Chunk() int { return (*stay)(d).chunk(down) }

// Took implements [server.Pacer].
func (d *downward) Took(n int) time.Duration { return (*stay)(d).took(n, down) }

// Passes implements [server.Pacer].
func (d *downward) Passes(n int) bool { return (*stay)(d).passes(n, down) }

// direction is that of bytes.
type direction int

const (
	up direction = iota
	down
)

func (s *stay) chunk(d direction) int {
	least := math.MaxInt
	for _, h := range s.of {
		if limited := h.shaper(d); limited != nil {
			least = min(least, limited.chunk(h.parts(limited, d)))
		}
		if h.tally != nil {
			least = min(least, h.chunk())
		}
	}
	return least
}

func (s *stay) took(n int, d direction) time.Duration {
	if n == 0 && !s.waits(d) {
		return 0
	}
	var now clock
	var longest time.Duration
	for _, h := range s.of { // first: what is still within a quota is not slowed by its end
		if limited := h.shaper(d); limited != nil && !(limited.note(n) && s.owesNothing(limited)) {
			longest = max(longest, h.lane(d).took(n, now.get()))
		}
	}
	for _, h := range s.of {
		if h.tally != nil {
			longest = max(longest, h.took(n, d, now.get()))
		}
	}
	return longest
}

// clock is asked once, and only when it is wanted.
type clock struct {
	now   instant
	asked bool
}

func (c *clock) get() instant {
	if !c.asked {
		c.now, c.asked = presently(), true
	}
	return c.now
}

// owesNothing reports whether all that was counted is paid for, as far as can be told
// without the clock: it was when the stay began.
func (s *stay) owesNothing(limited *shaper) bool {
	return s.account != nil && instant(limited.paid.Load()) <= s.since
}

// waits reports whether there may be anything to wait for before the first piece. It
// asks no clock: as a rule there is nothing, and never was since the stay began.
func (s *stay) waits(d direction) bool {
	for _, h := range s.of {
		if h.tally != nil && h.stops() {
			return true
		}
		if limited := h.shaper(d); limited != nil && !s.owesNothing(limited) {
			return true
		}
	}
	return false
}

func (s *stay) passes(n int, d direction) bool {
	for _, h := range s.of {
		if h.tally != nil && h.stops() {
			return false
		}
		if h.shaper(d) != nil && !h.lane(d).fits() {
			return false
		}
	}
	for _, h := range s.of {
		if h.shaper(d) != nil {
			h.lane(d).pass(n)
		}
	}
	for _, h := range s.of {
		if h.tally != nil {
			h.spend(n, d, presently())
		}
	}
	return true
}
