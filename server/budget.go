package server

import (
	"time"

	"github.com/sallyport/sallyport/internal/relay"
)

// Budget is what a session counts towards: how many may be open, how many may
// begin, how fast they may go. A [Policy] puts it into a [Grant] with the keys of
// the request resolved, and has not counted anything yet. Its methods do not
// block and are called from many goroutines at once.
type Budget interface {
	// Enter counts the session in, or returns an error that wraps [TooMany],
	// [TooFast] or [Quota] and counts nothing. The session of an association enters for each
	// destination that is granted: before is a stay that it has already (nil:
	// none), whose counts it shares and adds to. end ends the session with a reason,
	// when it has used up what it may; it does not block, may be called from any
	// goroutine, within a call of a [Pacer] too, and after the end.
	Enter(before Stay, end func(reason error)) (Stay, error)
}

// Stay is a session's time within a [Budget].
type Stay interface {
	// Pace says how fast the session may go: the client's bytes, and the
	// target's; nil: as fast as they do. No pacer is used after Leave.
	Pace() (up, down Pacer)
	// Leave counts the session out, with whatever its stays share. The server calls
	// it once for each session that has a stay.
	Leave()
}

// Pacer says how fast one direction may go. It never waits itself, and may be used
// by many goroutines at once.
type Pacer interface {
	// Chunk returns how much may be moved before Took is called, in bytes, at least 1.
	Chunk() int
	// Took counts n bytes that were moved, and returns for how long no more may
	// follow. It is first called with 0, before anything is moved.
	Took(n int) time.Duration
	// Passes counts a datagram of n bytes, which cannot wait; or it reports false,
	// and counts nothing, where it is to be dropped.
	Passes(n int) bool
}

// enter counts the session towards a budget, until its end; b may be nil. The paces are
// for what this grant is about; nil: as fast as it goes.
func (s *Session) enter(b Budget) (*paces, error) {
	if b == nil {
		return nil, nil
	}
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	before := s.life.tied().stay
	stay, err := b.Enter(before, s.End)
	if err != nil {
		return nil, err
	}
	ties := s.life.tie()
	is := &ties.paces
	if before != nil {
		is = &paces{}
	}
	is.up, is.down = stay.Pace()
	if ties.stay = stay; s.life.ended {
		s.leave() // it is over: nobody else would
	}
	if is.up == nil && is.down == nil {
		return nil, nil
	}
	return is, nil
}

// leave counts the session out. Callers hold life.mu.
func (s *Session) leave() {
	if stay := s.life.tied().stay; stay != nil {
		s.life.ties.stay = nil
		stay.Leave()
	}
}

// limits are those of the session's relay.
func (s *Session) limits(t Timeouts) relay.Limits {
	return relay.Limits{Idle: t.Idle, HalfClosed: t.HalfClosed, Up: (*upward)(s), Down: (*downward)(s)}
}
