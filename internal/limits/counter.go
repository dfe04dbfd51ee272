package limits

import "time"

// counter is what one limit has counted for one key. The table's mutex guards it,
// but for the shapers.
type counter struct {
	of       claim
	sessions int           // that are open
	up, down *shaper       // of a rate; the same one for both directions together
	full     time.Time     // of new sessions: when as many may come at once as ever
	known    link[counter] // among those of the limit
	idle     link[counter] // among those that nobody is open of
	*tally                 // of a quota; nil: it is of another kind
}

// set takes over the numbers of a limit.
func (c *counter) set(l Limit) {
	if c.tally != nil {
		c.retune()
		return
	}
	if c.up == nil {
		return
	}
	if c.up == c.down {
		c.up.set(c.part(c.up)*float64(l.Rate)/8, l.Burst)
		return
	}
	c.up.set(c.part(c.up)*float64(l.Up)/8, l.Burst)
	c.down.set(c.part(c.down)*float64(l.Down)/8, l.Burst)
}

// part is which part of the limit's rate is this node's.
func (c *counter) part(s *shaper) float64 {
	if !c.of.isShared() || s.flow.part == 0 {
		s.flow.part = 1
	}
	return s.flow.part
}

// find returns the counter of a claim, or makes it. It is not held yet: what is made
// and not entered was never put into the limit.
func (cl claim) find() *counter {
	if cl.Per != Session {
		if c := cl.counters[cl.key]; c != nil {
			return c
		}
	}
	c := &counter{of: cl}
	switch cl.kind() {
	case together:
		c.up = newShaper()
		c.down = c.up
	case apart:
		c.up, c.down = newShaper(), newShaper()
	case quota:
		c.up = newShaper() // of those that are over
		c.down, c.tally = c.up, newTally()
	}
	c.set(cl.Limit)
	return c
}

// enter counts one more session, of a stranger's if from is not 0.
func (c *counter) enter(now time.Time, from digest) {
	l := c.of.limit
	if c.sessions == 0 { // else both have it
		l.keep(c, from)
	}
	c.sessions++
	l.idle.remove(&c.idle)
	if c.tally != nil {
		c.begins(now)
	}
	if l.New > 0 {
		if c.full.Before(now) {
			c.full = now
		}
		c.full = c.full.Add(l.In / time.Duration(l.New))
	}
}

// keep has the limit know a counter, if it does not yet.
func (l *limit) keep(c *counter, from digest) {
	if c.known.of != nil {
		return
	}
	if l.open.add(&c.known, c); l.Per != Session {
		l.counters[c.of.key] = c
	}
	if l.Per == User {
		l.strange.add(c.of.key, from)
	}
}

// leave counts one less, and forgets the counter where nothing is to be known of it
// any more.
func (c *counter) leave() {
	if c.tally != nil && c.isTimed() {
		c.countTime(time.Now())
	}
	c.sessions--
	if c.tally != nil {
		c.sharers.Store(int64(c.sessions))
	}
	if c.sessions > 0 {
		return
	}
	l := c.of.limit
	l.idle.add(&c.idle, c)
	l.sweep(time.Now())
}

// sweep forgets idle counters from which nothing follows any more.
func (l *limit) sweep(now time.Time) {
	for c := l.idle.head(); c != nil && (c.isFresh(now) || l.idle.length > mostIdle); c = l.idle.head() {
		l.idle.remove(&c.idle)
		l.table.leaveDue(c, now)
		l.open.remove(&c.known)
		if l.counters[c.of.key] == c {
			delete(l.counters, c.of.key)
			l.strange.remove(c.of.key)
		}
	}
}

// isFresh reports whether a new counter would say the same as c.
func (c *counter) isFresh(now time.Time) bool {
	if c.of.gone || c.of.Per == Session {
		return true
	}
	if c.tally != nil {
		return c.isUnused(now)
	}
	if c.up != nil {
		return c.up.isPaid(now) && c.down.isPaid(now)
	}
	return !c.full.After(now)
}
