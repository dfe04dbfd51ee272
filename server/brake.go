package server

import (
	"math"
	"time"
)

// brakes are what slows one session down, besides its budget.
type brakes struct{ up, down Pacer }

// Slow has an open session go no faster than the pacers say, besides what its budget
// allows; nil: as fast as that. A piece that is being read is moved before. It takes the
// place of an earlier call, does not block, and may be called at any time.
func (s *Session) Slow(up, down Pacer) {
	if up == nil && down == nil {
		s.slow.Store(nil)
		return
	}
	for _, p := range []Pacer{up, down} {
		if p != nil {
			p.Took(0)
		}
	}
	s.slow.Store(&brakes{up, down})
}

// upward and downward are a session as the pacer of one direction: that of its budget
// and, where there is one, the brake. They are the session itself, so that what nobody
// slows needs no memory for it.
type (
	upward   Session
	downward Session
)

func (u *upward) parts() (own, brake Pacer) {
	if b := u.slow.Load(); b != nil {
		brake = b.up
	}
	if u.pace != nil {
		own = u.pace.up
	}
	return own, brake
}

func (d *downward) parts() (own, brake Pacer) {
	if b := d.slow.Load(); b != nil {
		brake = b.down
	}
	if d.pace != nil {
		own = d.pace.down
	}
	return own, brake
}

// Chunk implements [Pacer].
func (u *upward) Chunk() int { return leastChunk(u.parts()) }

// Took implements [Pacer].
func (u *upward) Took(n int) time.Duration {
	own, brake := u.parts()
	return longestPause(own, brake, n)
}

// Passes implements [Pacer].
func (u *upward) Passes(n int) bool {
	own, brake := u.parts()
	return bothPass(own, brake, n)
}

// Chunk implements [Pacer].
func (d *downward) Chunk() int { return leastChunk(d.parts()) }

// Took implements [Pacer].
func (d *downward) Took(n int) time.Duration {
	own, brake := d.parts()
	return longestPause(own, brake, n)
}

// Passes implements [Pacer].
func (d *downward) Passes(n int) bool {
	own, brake := d.parts()
	return bothPass(own, brake, n)
}

func leastChunk(own, brake Pacer) int {
	least := math.MaxInt
	if own != nil {
		least = own.Chunk()
	}
	if brake != nil {
		least = min(least, brake.Chunk())
	}
	return least
}

func longestPause(own, brake Pacer, n int) (longest time.Duration) {
	if own != nil {
		longest = own.Took(n)
	}
	if brake != nil {
		longest = max(longest, brake.Took(n))
	}
	return longest
}

// bothPass asks the brake first: what it drops counts towards nothing.
func bothPass(own, brake Pacer, n int) bool {
	return (brake == nil || brake.Passes(n)) && (own == nil || own.Passes(n))
}

// inRate counts a datagram of n bytes towards the pacer of its destination and the
// brake of its session, or reports that it is too fast.
func (u *upward) inRate(own Pacer, n int) bool {
	_, brake := u.parts()
	return bothPass(own, brake, n)
}

func (d *downward) inRate(own Pacer, n int) bool {
	_, brake := d.parts()
	return bothPass(own, brake, n)
}
