package limits

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/server"
)

// state is how a key stands with a quota.
type state int32

const (
	under   state = iota
	waiting       // what the bank has lent is used up, and the bank was not there again yet
	over          // the quota is used up
)

const (
	// endless is a pause that the session's end cuts short.
	endless = time.Hour
	// askPause is how long who waits for the bank pauses before another look.
	askPause = 50 * time.Millisecond
	// lastPiece is the least that a direction may move while so much is left, in bytes.
	lastPiece = 4 << 10
	// mostSlots bounds what is kept by slot while the bank does not come.
	mostSlots = 2 * slotsOf
)

// tally is what one quota has counted for one key. Relays add to the atomics and look
// at mark; whatever follows from that, and from the end of a slot, happens in look,
// under the table's mutex, which guards what is no atomic.
type tally struct {
	movedUp         atomic.Int64 // bytes of the present slot that are not gathered yet
	movedDown       atomic.Int64
	openFor         atomic.Int64 // likewise; nanoseconds
	used            atomic.Int64 // all that counts now, in the quota's measure
	line            atomic.Int64 // how much may be used
	mark            atomic.Int64 // beyond it used is worth a look: at a warning, or at the line
	earliest, until atomic.Int64 // the present slot, Unix nanoseconds; of the clock on the wall
	ends            atomic.Int64 // the instant at which it ends, if nobody sets that clock: then it is as of the last look
	sharers         atomic.Int64 // sessions that are open
	counts          atomic.Int32 // a Measure
	stands          atomic.Int32 // a state

	start, since int64     // the present slot, and the oldest that counts; Unix seconds
	slots        []slot    // the oldest first
	counted      int64     // how much of used is in slots
	lease        int64     // up to where the bank lets used go; below 0: anywhere
	heard        bool      // the bank was there, and lease is what it said
	asked        time.Time // when the bank was last asked
	online       time.Time // up to when time was counted
	warned       int       // so many of the warnings were given
	holders      chain[holding]
}

// slot is what was counted in a slot.
type slot struct {
	start          int64  // Unix seconds
	known, fresh   Amount // as the bank knows it, and what it does not know yet
	granted, given int64  // the same of what was granted beyond the quota
}

func newTally() *tally { return &tally{lease: -1} }

func (t *tally) is() state { return state(t.stands.Load()) }

// chunk returns how much may be moved in one direction before took is called: its part
// of what is left up to the line, so that all together do not move more; of little
// that is left, all of it. And a byte, so that who has used just all is not ended for
// that.
func (c *counter) chunk() int {
	line := c.line.Load()
	if line == math.MaxInt64 {
		return math.MaxInt
	}
	left := max(line-c.used.Load(), 0)
	part := max(left/(2*max(c.sharers.Load(), 1)), min(left, lastPiece))
	return int(min(part, math.MaxInt-1)) + 1
}

// took counts n bytes, and returns for how long no more may follow.
func (c *counter) took(n int, d direction, now instant) time.Duration {
	c.spend(n, d, now)
	switch {
	case !c.stops():
		return 0
	case c.is() == waiting:
		return askPause
	}
	return endless
}

// stops reports whether nothing may pass.
func (c *counter) stops() bool {
	return c.is() != under && c.line.Load() != math.MaxInt64
}

// spend counts n bytes.
func (c *counter) spend(n int, d direction, now instant) {
	if int64(now) >= c.ends.Load() {
		c.lookLocked()
	}
	if n == 0 {
		return
	}
	moved, other := &c.movedDown, Up
	if d == up {
		moved, other = &c.movedUp, Down
	}
	moved.Add(int64(n))
	if m := Measure(c.counts.Load()); m == Online || m == other {
		return
	}
	if c.used.Add(int64(n)) > c.mark.Load() {
		c.lookLocked()
	}
}

func (c *counter) lookLocked() {
	table := c.of.table
	table.mu.Lock()
	defer table.unlock()
	c.look(time.Now())
}

// The table's mutex is held in all that follows.

// look sees to what follows from the time and from what was used.
func (c *counter) look(now time.Time) {
	c.roll(now)
	c.ends.Store(int64(instantOf(now)) + min(c.until.Load()-now.UnixNano(), math.MaxInt64/2))
	c.judge()
}

// admitsMore says why a session may not begin.
func (c *counter) admitsMore(now time.Time) error {
	if c.is() == under && c.isIn(now) && c.used.Load() <= c.mark.Load() {
		return nil // as the last look has found
	}
	c.look(now)
	l := c.of.limit
	if c.is() == waiting {
		if err := c.isCut(); err != nil {
			return err
		}
	}
	if l.Then > 0 || c.used.Load() < c.most() {
		return nil
	}
	l.refused++
	return c.isUsedUp()
}

func (c *counter) isUsedUp() error {
	l := c.of.limit
	err := fmt.Errorf("%w: the limit %q is used up by %s", server.Quota, l.name, l.Per)
	if l.Every.never() || l.Every.Rolling {
		return err
	}
	return fmt.Errorf("%w until %s", err, time.Unix(0, c.until.Load()).In(l.Every.zone()).Format("2006-01-02 15:04 MST"))
}

// isIn reports whether the present slot is that of a time.
func (t *tally) isIn(now time.Time) bool {
	at := now.UnixNano()
	return at >= t.earliest.Load() && at < t.until.Load()
}

// roll goes on to the slot of now. One is not left for one before it because a clock
// was put back, unless by more than the slot's length: nobody gets a window twice.
func (c *counter) roll(now time.Time) {
	if c.isIn(now) {
		return
	}
	c.gather()
	l := c.of.limit
	if l.Every.never() {
		c.earliest.Store(math.MinInt64)
		c.until.Store(math.MaxInt64)
		return
	}
	from, until := l.Every.slot(now)
	c.start, c.since = from.Unix(), l.Every.since(from).Unix()
	c.earliest.Store(from.Add(from.Sub(until)).UnixNano())
	c.until.Store(until.UnixNano())
	c.forget()
	c.sum()
}

// gather puts what was moved in the present slot to its sum.
func (c *counter) gather() {
	a := Amount{c.movedUp.Swap(0), c.movedDown.Swap(0), time.Duration(c.openFor.Swap(0))}
	if a == (Amount{}) {
		return
	}
	s := c.slot(c.start)
	if c.of.table.banked && c.of.Per != Session {
		s.fresh = s.fresh.plus(a)
	} else {
		s.known = s.known.plus(a)
	}
	c.counted += Measure(c.counts.Load()).Of(a)
}

// slot returns the one that begins at a time. The next call may move it.
func (c *counter) slot(start int64) *slot {
	i, found := slices.BinarySearchFunc(c.slots, start, func(s slot, start int64) int {
		switch {
		case s.start < start:
			return -1
		case s.start > start:
			return 1
		}
		return 0
	})
	if !found {
		c.slots = slices.Insert(c.slots, i, slot{start: start})
	}
	return &c.slots[i]
}

// forget drops the slots that do not count any more and that the bank knows all of.
func (c *counter) forget() {
	c.slots = slices.DeleteFunc(c.slots, func(s slot) bool {
		return s.start < c.since && s.fresh == (Amount{}) && s.given == 0
	})
	for len(c.slots) > mostSlots { // the bank was away for long: it gets to know of one in the place of two
		c.slots[1].fresh = c.slots[1].fresh.plus(c.slots[0].fresh)
		c.slots = c.slots[1:]
	}
}

// sum finds out how much of what is in the slots counts.
func (c *counter) sum() {
	var n int64
	for _, s := range c.slots {
		if s.start >= c.since {
			n += Measure(c.counts.Load()).Of(s.known.plus(s.fresh))
		}
	}
	c.used.Add(n - c.counted)
	c.counted = n
}

// most is how much may be used: the quota, and what was granted beyond it.
func (c *counter) most() int64 {
	n := c.of.Quota
	for _, s := range c.slots {
		if s.start >= c.since {
			n += s.granted + s.given
		}
	}
	return max(n, 0)
}

// lent is how far the bank lets used go.
func (c *counter) lent(most int64) int64 {
	switch {
	case c.of.Per == Session || !c.of.table.banked || c.of.table.first >= 1 || c.of.table.away == allows:
		return most
	case !c.heard:
		return int64(float64(most) * c.of.table.first)
	case c.lease >= 0:
		return min(most, c.lease)
	}
	return most
}

// judge compares what was used with what may be.
func (c *counter) judge() {
	l := c.of.limit
	if l.Quota == 0 { // it is gone
		c.put(under, math.MaxInt64, math.MaxInt64)
		return
	}
	most, used := c.most(), c.used.Load()
	line := c.lent(most)
	mark := min(line, c.warn(most, used))
	switch {
	case used > most && l.Then > 0:
		c.put(over, math.MaxInt64, math.MaxInt64)
	case used > most:
		c.put(over, most, math.MaxInt64)
		reason := c.isUsedUp()
		for h := range c.holders.all() {
			if h.ended {
				continue // it is about to leave
			}
			h.ended = true
			c.of.table.dismiss(h.by, reason)
			l.ended++
		}
	case used > line:
		c.put(waiting, line, most)
		if err := c.isCut(); err != nil {
			for h := range c.holders.all() {
				c.of.table.dismiss(h.by, err)
			}
		}
	default:
		c.put(under, line, mark)
	}
}

// put changes how the key stands.
func (c *counter) put(s state, line, mark int64) {
	c.line.Store(line)
	c.mark.Store(mark)
	if before := state(c.stands.Swap(int32(s))); before == s && s != over {
		return
	}
	rate := int64(0)
	if s == over {
		rate = c.of.Then
	}
	c.up.set(float64(rate)/8, 0)
}

// warn gives the warnings that are due, and returns how much may be used before the
// next.
func (c *counter) warn(most, used int64) int64 {
	for i := range len(c.of.Warn) + 1 {
		percent, at, reached := 100, most, used > most
		if i < len(c.of.Warn) {
			percent = c.of.Warn[i]
			at = int64(float64(most) / 100 * float64(percent))
			reached = used >= at
		}
		switch {
		case !reached:
			c.warned = min(c.warned, i)
			return at - 1
		case i >= c.warned:
			c.warned = i + 1
			c.of.table.tell(c, percent)
		}
	}
	return math.MaxInt64
}

// retune follows a change of the limit.
func (c *counter) retune() {
	now := time.Now()
	c.countTime(now)
	c.gather()
	c.counts.Store(int32(c.of.Counts))
	c.until.Store(math.MinInt64) // the windows may be others
	c.sum()
	c.look(now)
}

// isTimed reports whether it is time that counts.
func (t *tally) isTimed() bool { return Measure(t.counts.Load()) == Online }

// countTime counts the time in which a session was open.
func (c *counter) countTime(now time.Time) {
	if !c.isTimed() || c.sessions == 0 {
		c.online = now
		return
	}
	if n := int64(now.Sub(c.online)); n > 0 { // by the monotonic clock
		c.roll(now)
		c.openFor.Add(n)
		c.used.Add(n)
	}
	c.online = now
}

// begins notes that there is a session more.
func (c *counter) begins(now time.Time) {
	if c.sessions == 1 {
		c.online = now
	}
	c.sharers.Store(int64(c.sessions))
}

// isUnused reports whether a new counter would say the same.
func (c *counter) isUnused(now time.Time) bool {
	c.gather()
	c.roll(now)
	for _, s := range c.slots {
		if s.fresh != (Amount{}) || s.given != 0 {
			return false
		}
	}
	return c.used.Load() == 0 && c.most() <= c.of.Quota
}
