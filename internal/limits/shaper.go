package limits

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// catchUp is how much time unused is made up for afterwards, if the settings do not
	// allow a larger burst: timers come late.
	catchUp = 50 * time.Millisecond

	// round is in what time each session that shares a limit should have its turn,
	// and slowRound the same where the pieces would be less than piece bytes.
	round     = 20 * time.Millisecond
	slowRound = 50 * time.Millisecond
	piece     = 1 << 10

	// leastPiece is the least that a session moves in its turn, in bytes, however
	// many they are.
	leastPiece = 32

	// mostPiece is the most, in bytes. Rates and bursts may be larger than an int of 32 bits.
	mostPiece = math.MaxInt32

	// shortest is the pause that is worth a timer.
	shortest = time.Millisecond

	// activeFor is for how long a session has a share after its last turn.
	activeFor = 100 * time.Millisecond
)

// shaper is one rate that any number of sessions share. It is a queue of which
// nobody keeps the content: whoever has moved a piece may move the next one when
// all pieces that were moved before it are paid for. So the sessions take turns,
// and as their pieces are as large as each other, so are their shares. What one
// does not use is not counted, and falls to the others.
//
// Its mutex guards what is changed. The atomics are read without it: how large a piece
// is to be need not be told to the byte.
type shaper struct {
	flow flow

	tempo  atomic.Pointer[tempo] // nil: no limit
	paid   atomic.Int64          // the instant at which all that was moved is paid for
	loose  atomic.Int64          // bytes that were moved and are not in paid yet
	shares atomic.Int64          // sessions that have lanes in active

	mu     sync.Mutex
	active chain[lane] // those that had a turn lately, the last turn last
}

// tempo is how fast a shaper is.
type tempo struct {
	rate   float64       // bytes a second, over 0
	burst  time.Duration // how much time unused is made up for
	slight int64         // bytes that are paid for in less than is worth a pause
}

// instant is a moment by the clock that nobody puts back, in nanoseconds.
type instant int64

var firstInstant = time.Now()

// longAgo is before all that counts.
const longAgo instant = math.MinInt64 / 2

func instantOf(t time.Time) instant { return instant(t.Sub(firstInstant)) }

// presently returns that of now, for which one clock is asked, and not the one on the
// wall as well.
func presently() instant { return instant(time.Since(firstInstant)) }

// turns are those of a session with the shapers of one counter.
type turns struct {
	lanes  [2]lane  // of each direction
	shares [2]share // of them; the first of both, where both directions are limited together
}

// share is a session's part of a shaper. Its lanes count towards it together.
type share struct {
	shaper *shaper
	lanes  atomic.Int32 // that are active
}

// lane is one direction of a share. The shaper's mutex guards it.
type lane struct {
	*share
	place  link[lane]  // in active
	active atomic.Bool // it is there
	due    instant     // when its last turn is paid for
	own    instant     // when its datagrams would be, with no more than its part of the rate
}

// shaper returns that of a direction; nil: it is not limited now.
func (h *holding) shaper(d direction) *shaper {
	s := h.counter.up
	if d == down {
		s = h.counter.down
	}
	if s == nil || s.tempo.Load() == nil {
		return nil
	}
	return s
}

// lane returns that of a direction that is limited. Who has had no turn worth mentioning
// has none yet.
func (h *holding) lane(d direction) *lane {
	t := h.turns.Load()
	for t == nil {
		h.turns.CompareAndSwap(nil, h.newTurns())
		t = h.turns.Load()
	}
	return &t.lanes[d]
}

func (h *holding) newTurns() *turns {
	t := &turns{}
	for i, s := range [...]*shaper{h.counter.up, h.counter.down} {
		t.shares[i].shaper, t.lanes[i].own = s, longAgo
	}
	t.lanes[up].share, t.lanes[down].share = &t.shares[0], &t.shares[0]
	if h.counter.up != h.counter.down {
		t.lanes[down].share = &t.shares[1]
	}
	return t
}

// close is the end of them; of nil it is none.
func (t *turns) close() {
	if t == nil {
		return
	}
	for i := range t.shares {
		one := &t.shares[i]
		if one.lanes.Load() == 0 {
			continue // nor will there be one
		}
		one.shaper.mu.Lock()
		for j := range t.lanes {
			if t.lanes[j].share == one {
				t.lanes[j].leave()
			}
		}
		one.shaper.mu.Unlock()
	}
}

// newShaper returns one without a limit.
func newShaper() *shaper {
	s := &shaper{}
	s.paid.Store(int64(longAgo))
	return s
}

// set changes the rate, and the burst, in bytes. What is not paid for yet is from now
// on paid by the new one.
func (s *shaper) set(rate float64, burst int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := s.tempo.Load(), presently()
	if before != nil {
		s.pay(before, now)
	}
	if rate == 0 {
		s.tempo.Store(nil)
	} else {
		slight := int64(min(rate*shortest.Seconds(), math.MaxInt32))
		s.tempo.Store(&tempo{rate, max(catchUp, seconds(float64(burst)/rate)), slight})
	}
	debt := time.Duration(instant(s.paid.Load()) - now)
	if debt <= 0 || before == nil {
		return
	}
	if rate > 0 {
		now += instant(seconds(debt.Seconds() * before.rate / rate))
	}
	s.paid.Store(int64(now))
}

// seconds returns a time that fits, and be it an age.
func seconds(n float64) time.Duration {
	return time.Duration(min(n, math.MaxInt32) * float64(time.Second))
}

// isPaid reports whether nothing is owed and all of the burst is there, so that the
// shaper can be forgotten.
func (s *shaper) isPaid(now time.Time) bool {
	burst := catchUp
	if t := s.tempo.Load(); t != nil {
		burst = t.burst
		if s.loose.Load() > 0 {
			s.mu.Lock()
			s.pay(t, instantOf(now))
			s.mu.Unlock()
		}
	}
	return instant(s.paid.Load()) <= instantOf(now)-instant(burst)
}

// chunk returns how much may be moved in a turn, of one of so many equal parts of the rate.
func (s *shaper) chunk(parts float64) int {
	t := s.tempo.Load()
	if t == nil {
		return math.MaxInt
	}
	part := t.rate / parts
	slow := min(piece, part*slowRound.Seconds())
	saved := 0.0 // of a burst
	if t.burst > catchUp {
		unused := time.Duration(presently() - instant(s.paid.Load()))
		saved = min(unused, t.burst).Seconds() * part
	}
	return int(min(mostPiece, max(leastPiece, slow, part*round.Seconds(), saved)))
}

// parts is into how many equal parts the rate is divided, of which the direction has one.
func (h *holding) parts(s *shaper, d direction) float64 {
	if h.turns.Load() == nil {
		return float64(s.shares.Load() + 1)
	}
	return h.lane(d).parts()
}

// note takes n bytes that were moved, and reports whether all that are not counted yet are
// so few that they need not be: nobody would pause for them.
func (s *shaper) note(n int) bool {
	loose := s.loose.Add(int64(n))
	t := s.tempo.Load()
	return t == nil || loose < t.slight
}

// pay counts what was noted, and returns when it is paid for. Callers hold mu.
func (s *shaper) pay(t *tempo, now instant) instant {
	n, due := s.loose.Swap(0), instant(s.paid.Load())
	if n == 0 {
		return due
	}
	s.flow.moved.Add(n)
	due = max(due, now-instant(t.burst)) + instant(seconds(float64(n)/t.rate))
	s.paid.Store(int64(due))
	return due
}

// parts is into how many equal parts the rate is divided, of which l has one.
func (l *lane) parts() float64 {
	shares, lanes := l.shaper.shares.Load(), l.lanes.Load()
	if lanes == 0 {
		shares++
	}
	if !l.active.Load() {
		lanes++
	}
	return float64(shares * int64(lanes))
}

// took counts the n bytes of a turn, which were noted, and returns how long it is to the
// next one.
func (l *lane) took(n int, now instant) time.Duration {
	s := l.shaper
	if s.tempo.Load() == nil {
		return 0
	}
	if n > 0 {
		s.mu.Lock()
		l.count(now)
		s.mu.Unlock()
	}
	if wait := time.Duration(instant(s.paid.Load()) - now); wait >= shortest {
		return wait
	}
	return 0
}

// count has a turn paid for. Callers hold the shaper's mutex.
func (l *lane) count(now instant) {
	s := l.shaper
	t := s.tempo.Load()
	if t == nil {
		return
	}
	l.due = s.pay(t, now)
	if !l.active.Load() {
		l.active.Store(true)
		if l.lanes.Add(1) == 1 {
			s.shares.Add(1)
		}
	}
	s.active.remove(&l.place)
	s.active.add(&l.place, l)
	s.rest(now)
}

// rest takes out the lanes that had no turn for a while. Their order is that in
// which their turns are paid for.
func (s *shaper) rest(now instant) {
	for l := s.active.head(); l != nil && now-l.due > instant(activeFor); l = s.active.head() {
		l.leave()
	}
}

// leave takes the lane out of the active ones. Callers hold the shaper's mutex.
func (l *lane) leave() {
	if !l.active.Load() {
		return
	}
	l.shaper.active.remove(&l.place)
	l.active.Store(false)
	if l.lanes.Add(-1) == 0 {
		l.shaper.shares.Add(-1)
	}
}

// fits reports whether a datagram may pass: where nothing waits, or where the
// lane has used less than its part.
func (l *lane) fits() bool {
	s := l.shaper
	if s.tempo.Load() == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := presently()
	return instant(s.paid.Load()) <= now || l.own-now <= instant(catchUp)
}

// pass counts a datagram.
func (l *lane) pass(n int) {
	s := l.shaper
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tempo.Load()
	if t == nil {
		return
	}
	now := presently()
	l.own = max(l.own, now) + instant(seconds(float64(n)*l.parts()/t.rate))
	s.note(n)
	l.count(now)
}
