package relay

import (
	"math"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// watchEvery is how often the session looks after a connection that no direction reads at present.
const watchEvery = time.Second

const (
	// never is a time that does not come.
	never = time.Duration(math.MaxInt64)

	// ages is a time that does not come either, and can be added to another.
	ages = never / 2
)

// past is a deadline that ends every wait at once.
var past = time.Unix(1, 0)

// session is what the two directions of a relay share: the time of the last byte, and the first fault.
//
// Deadlines are set in one place only, by end, to the past, and for good. Silence is measured by a timer of the session's
// own: it costs nothing while bytes flow, and cannot undo the deadline that ends the relay.
type session struct {
	up, down *direction
	limits   Limits
	ended    chan struct{} // closed at a fault; nil where no direction has a pacer: nobody waits for it
	start    time.Time
	last     atomic.Int64 // when the last byte moved, as a time.Duration since start
	done     func(error)  // is called at the end

	mu      sync.Mutex
	running int           // directions that have not left
	half    bool          // one direction has ended by FIN
	over    bool          // ended by a fault, or both directions by FIN: the connections are not touched any more
	err     error         // the first fault
	timer   *time.Timer   // calls look; nil until it is first wanted
	due     time.Duration // when timer fires, since start
}

func newSession(client, target Side, m *Meter, l Limits, best means) *session {
	s := &session{limits: l, start: time.Now(), due: never, running: 2}
	c := &endpoint{conn: client.Conn, port: newPort(client.Conn, best), reset: ErrClientReset}
	t := &endpoint{conn: target.Conn, port: newPort(target.Conn, best), reset: ErrTargetReset}
	s.up = &direction{session: s, from: c, to: t, head: client.Head, meter: &m.up, pacer: l.Up}
	s.down = &direction{session: s, from: t, to: c, head: target.Head, meter: &m.down, pacer: l.Down}
	if l.Up != nil || l.Down != nil {
		s.ended = make(chan struct{})
	}
	for _, conn := range []net.Conn{client.Conn, target.Conn} {
		_ = conn.SetDeadline(time.Time{}) // if this fails, so does the first read
	}
	return s
}

// Start is what Relay says.
func (s *session) Start(done func(error)) { go s.run(done) }

// OwnsSockets returns false: the Conns are read and written.
func (*session) OwnsSockets() bool { return false }

// run runs both directions, one of them in the caller's goroutine.
func (s *session) run(done func(error)) {
	s.done = done
	s.look()
	go s.up.run()
	s.down.run()
}

// now returns the time since the session's start, by the monotonic clock.
func (s *session) now() time.Duration { return time.Since(s.start) }

// touch notes that a byte moved just now.
func (s *session) touch() { s.last.Store(int64(s.now())) }

// watch makes look come within watchEvery, and look after d.from while d.deaf is set.
func (s *session) watch(d *direction) {
	d.deaf.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if now := s.now(); s.due-now > watchEvery {
		s.lookIn(now, watchEvery)
	}
}

// halfClose notes that d has read a FIN. From now on nobody reads d.from, but it can still reset. It returns false when
// the session is over, and the FIN must not be passed on: once look has taken a reset's error, a read meets EOF instead.
func (s *session) halfClose(d *direction) bool {
	d.deaf.Store(true)
	s.touch()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.half = true
	s.lookNow()
	return !s.over
}

// look ends the session if it was silent for too long, or if a connection that nobody reads was reset; else it sees to
// it that it is called again in time.
func (s *session) look() {
	defer s.contain()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.lookNow()
	}
}

// lookNow is look for callers that hold mu and know that the session is not over.
func (s *session) lookNow() {
	if s.up.paused.Load() || s.down.paused.Load() {
		s.touch()
	}
	now, wait := s.now(), never
	if limit, reason := s.limits.patience(s.half); limit > 0 {
		wait = time.Duration(s.last.Load()) + limit - now
		if wait <= 0 {
			s.end(reason)
			return
		}
	}
	for _, d := range []*direction{s.up, s.down} {
		if !d.deaf.Load() {
			continue
		}
		if err := d.from.pendingError(); err != nil {
			s.end(d.from.fault(err))
			return
		}
		wait = min(wait, watchEvery)
	}
	s.lookIn(now, wait)
}

// contain makes a panic of whoever defers it the end of the session.
func (s *session) contain() {
	if v := recover(); v != nil {
		s.End(&Fault{v, debug.Stack()})
	}
}

// lookIn makes the timer call look in wait from now, whatever was planned before. Callers hold mu.
func (s *session) lookIn(now, wait time.Duration) {
	if wait == never {
		s.due = never // the timer has fired, or was never made
		return
	}
	s.due = now + wait
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.look)
		return
	}
	s.timer.Reset(wait)
}

// End ends both directions for a reason, unless there is none or the session is over.
func (s *session) End(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason != nil && !s.over {
		s.end(reason)
	}
}

// end is End for callers that hold mu and know that the session is not over.
func (s *session) end(err error) {
	s.over, s.err = true, err
	if s.ended != nil {
		close(s.ended)
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	for _, conn := range []net.Conn{s.up.from.conn, s.up.to.conn} {
		resetOnClose(conn)
		_ = conn.SetDeadline(past) // fails on a closed connection only, which waits for nothing
	}
}

// leave is the end of a direction, and err why: nil after a FIN that was passed on. The last one to leave ends the relay, and tells
// the first fault; afterwards nothing touches the connections.
func (s *session) leave(err error) {
	if s.leaves(err) {
		s.done(s.err)
	}
}

// leaves counts a direction out, and reports whether it was the last.
func (s *session) leaves(err error) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !s.over { // else it was woken because the other one failed
		s.end(err)
	}
	if s.running--; s.running > 0 {
		return false
	}
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	return true
}
