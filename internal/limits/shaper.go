package limits

import (
	"container/list"
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
type shaper struct {
	open atomic.Bool // rate is 0
	flow flow

	mu     sync.Mutex
	rate   float64       // bytes a second; 0: no limit
	burst  time.Duration // how much time unused is made up for
	paid   time.Time     // when all that was moved is paid for
	shares int           // sessions that have lanes in active
	active list.List     // of *lane: those that had a turn lately, the last turn last
}

// share is a session's part of a shaper. Its lanes count towards it together.
type share struct {
	shaper *shaper
	lanes  int // that are active
}

// lane is one direction of a share, or one lane both. The shaper's mutex guards
// it.
type lane struct {
	*share
	place *list.Element // in active; nil: it is not
	due   time.Time     // when its last turn is paid for
	own   time.Time     // when its datagrams would be, with no more than its part of the rate
}

// set changes the rate, and the burst, in bytes. What is not paid for yet is from now
// on paid by the new one.
func (s *shaper) set(rate float64, burst int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if debt := s.paid.Sub(now); debt > 0 && s.rate > 0 {
		owed := debt.Seconds() * s.rate
		s.paid = now
		if rate > 0 {
			s.paid = now.Add(seconds(owed / rate))
		}
	}
	s.rate, s.burst = rate, catchUp
	if rate > 0 {
		s.burst = max(catchUp, seconds(float64(burst)/rate))
	}
	s.open.Store(rate == 0)
}

// seconds returns a time that fits, and be it an age.
func seconds(n float64) time.Duration {
	return time.Duration(min(n, math.MaxInt32) * float64(time.Second))
}

// isPaid reports whether nothing is owed and all of the burst is there, so that the
// shaper can be forgotten.
func (s *shaper) isPaid(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.paid.After(now.Add(-s.burst))
}

// chunk returns how much the lane may move in its turn.
func (l *lane) chunk() int {
	s := l.shaper
	if s.open.Load() {
		return math.MaxInt
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == 0 {
		return math.MaxInt
	}
	part := s.rate / l.parts()
	slow := min(piece, part*slowRound.Seconds())
	saved := 0.0 // of a burst
	if s.burst > catchUp {
		saved = min(time.Since(s.paid), s.burst).Seconds() * part
	}
	return int(max(leastPiece, slow, part*round.Seconds(), saved))
}

// parts is into how many equal parts the rate is divided, of which l has one.
func (l *lane) parts() float64 {
	shares, lanes := l.shaper.shares, l.lanes
	if l.lanes == 0 {
		shares++
	}
	if l.place == nil {
		lanes++
	}
	return float64(shares * lanes)
}

// took counts n bytes of a turn, and returns how long it is to the next one.
func (l *lane) took(n int, now time.Time) time.Duration {
	s := l.shaper
	if s.open.Load() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == 0 {
		return 0
	}
	if n > 0 {
		l.count(n, now)
	}
	if wait := s.paid.Sub(now); wait >= shortest {
		return wait
	}
	return 0
}

// count notes that n bytes were moved. Callers hold the shaper's mutex.
func (l *lane) count(n int, now time.Time) {
	s := l.shaper
	s.flow.moved.Add(int64(n))
	if earliest := now.Add(-s.burst); s.paid.Before(earliest) {
		s.paid = earliest
	}
	s.paid = s.paid.Add(seconds(float64(n) / s.rate))
	l.due = s.paid
	if l.place == nil {
		l.place = s.active.PushBack(l)
		if l.lanes++; l.lanes == 1 {
			s.shares++
		}
	}
	s.active.MoveToBack(l.place)
	s.rest(now)
}

// rest takes out the lanes that had no turn for a while. Their order is that in
// which their turns are paid for.
func (s *shaper) rest(now time.Time) {
	for e := s.active.Front(); e != nil; e = s.active.Front() {
		l, ok := e.Value.(*lane)
		if !ok || now.Sub(l.due) <= activeFor {
			return
		}
		l.leave()
	}
}

// leave takes the lane out of the active ones. Callers hold the shaper's mutex.
func (l *lane) leave() {
	if l.place == nil {
		return
	}
	l.shaper.active.Remove(l.place)
	l.place = nil
	if l.lanes--; l.lanes == 0 {
		l.shaper.shares--
	}
}

// close is the end of the lane.
func (l *lane) close() {
	l.shaper.mu.Lock()
	defer l.shaper.mu.Unlock()
	l.leave()
}

// fits reports whether a datagram may pass: where nothing waits, or where the
// lane has used less than its part.
func (l *lane) fits() bool {
	s := l.shaper
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return s.rate == 0 || !s.paid.After(now) || l.own.Sub(now) <= catchUp
}

// pass counts a datagram.
func (l *lane) pass(n int) {
	s := l.shaper
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == 0 {
		return
	}
	now := time.Now()
	if l.own.Before(now) {
		l.own = now
	}
	l.own = l.own.Add(seconds(float64(n) * l.parts() / s.rate))
	l.count(n, now)
}
