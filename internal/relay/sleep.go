package relay

import (
	"net"
	"time"
)

// sleepAfter is for how long nothing must have moved before a relay lies down: getting up costs as much as some round
// trips. It is a variable so that tests need not wait for it.
var sleepAfter = 100 * time.Millisecond

// rest is the part of a session that knows whether it sleeps. The session's mu guards it.
//
// A relay that was silent gets tired: its reads are ended by their deadline, and so its two goroutines. The last one of
// them puts the two connections where one goroutine watches those of all relays that sleep (lot_linux.go). As soon as
// there is something to read from either, a FIN and a reset among it, the relay wakes: it gets two goroutines again,
// which read as ever. A byte that comes while the relay is only tired rouses it. So everything that is read, written,
// counted and found out is so in one place, whether a relay has slept or not.
type rest struct {
	able    bool          // it can sleep
	tired   bool          // reads are being ended
	running int           // directions that have a goroutine
	since   time.Duration // when it last woke or was roused
	place   uint64        // where it sleeps; 0: it does not
}

// tire ends the reads if the session was silent for long enough, or else returns when to look again. Callers hold mu.
func (s *session) tire(now time.Duration) time.Duration {
	r := &s.rest
	if !r.able || r.tired || r.running < 2 || s.half || s.up.deaf.Load() || s.down.deaf.Load() {
		return never
	}
	if wait := max(time.Duration(s.last.Load()), r.since) + sleepAfter - now; wait > 0 {
		return wait
	}
	r.tired = true
	s.setReadDeadlines(past)
	return never
}

// rouse undoes tire: no direction may be left without a reader while the other one works. Callers hold mu, and know that
// the session is not over.
func (s *session) rouse() {
	if s.rest.tired {
		s.resume()
	}
}

// resume gives every direction a goroutine again that has left its own to sleep. Callers hold mu, and know that the
// session is not over.
func (s *session) resume() {
	s.rest.tired = false
	s.rest.since = s.now()
	s.setReadDeadlines(time.Time{})
	for _, d := range []*direction{s.up, s.down} {
		if d.left && !d.ended {
			d.left = false
			s.rest.running++
			go d.run()
		}
	}
}

// sleep lays the session down, now that no goroutine is left. Where that cannot be, it goes on and does not try again.
// Callers hold mu, and know that the session is not over.
func (s *session) sleep() {
	s.rest.tired = false
	if s.rest.place = lieDown(s); s.rest.place == 0 {
		s.rest.able = false
		s.resume()
	}
}

// wake is called when there may be something to read for the session that sleeps in the place.
func (s *session) wake(place uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest.place == place && s.getUp() {
		s.resume()
		s.lookNow()
	}
}

// getUp takes the session out of its place, and reports whether it slept. Callers hold mu.
func (s *session) getUp() bool {
	place := s.rest.place
	if place == 0 {
		return false
	}
	s.rest.place = 0
	getUp(s, place)
	return true
}

func (s *session) setReadDeadlines(t time.Time) {
	for _, conn := range []net.Conn{s.up.from.conn, s.up.to.conn} {
		_ = conn.SetReadDeadline(t) // fails on a closed connection only, which the next read meets
	}
}
