package server

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
)

// Held is what an open session lives on: a request and what was granted to it.
// Of an association there is one for each destination that it may send to, and,
// while there is none, one without a grant: its Request is that of the client,
// its Address zero. Of a client of SSH there is one more, whose Request has no
// command: it stands for what the client has signed in with, and goes by that
// alone.
type Held struct {
	Request Request        // its Listener is called as it is now
	Grant   Grant          // what the policy said
	Address netip.AddrPort // what was reached; zero: nothing yet, any of Grant.Addrs may be
}

// Judge says whether what was granted once would be granted still: it returns
// when the grant now ends (zero: not by itself), or an error that wraps a
// [Reason] to end it with. It must neither block nor call the server.
type Judge func(Held) (until time.Time, err error)

// Review puts what every open session holds to judge, and ends what it refuses:
// a session, or a destination of an association, and the association with the
// last of them. Whoever changes what the Policy answers calls it afterwards.
// Requests that were decided on before the change, and come to their answer only
// after it, are put to judge then: no right outlives the change. Calls of Review
// must not overlap.
func (s *Server) Review(judge Judge) {
	s.state.judge.Store(&judge)
	for _, session := range s.Sessions() {
		session.review(&judge)
	}
	// After their channels: those would else end because their connection did, and not say why.
	s.state.signedIn.review(&judge)
}

// Sessions returns the sessions that are open, in no order: those whose request
// is known, until they are closed.
func (s *Server) Sessions() []*Session { return s.state.sessions.all() }

// sessions are those that are open: a list, since it is only ever gone through from
// one end to the other. The zero value is empty.
type sessions struct {
	mu    sync.Mutex
	first *Session
	open  int
}

// links are a session's neighbours among those that are open.
type links struct{ before, behind *Session }

func (ss *sessions) add(s *Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s.life.links.behind = ss.first; ss.first != nil {
		ss.first.life.links.before = s
	}
	ss.first = s
	ss.open++
}

// remove takes out a session, if it is still there.
func (ss *sessions) remove(s *Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	at := s.life.links
	switch {
	case at.before != nil:
		at.before.life.links.behind = at.behind
	case ss.first == s:
		ss.first = at.behind
	default:
		return
	}
	if at.behind != nil {
		at.behind.life.links.before = at.before
	}
	s.life.links = links{}
	ss.open--
}

func (ss *sessions) all() []*Session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	all := make([]*Session, 0, ss.open)
	for s := ss.first; s != nil; s = s.life.links.behind {
		all = append(all, s)
	}
	return all
}

// life is the part of a session that others than its own goroutine touch.
type life struct {
	serving *serving // where it came from; nil: it is not open yet
	links   links    // is guarded by the server's sessions

	mu      sync.Mutex // guards the session's Record while it is open, too
	end     ender      // is whoever serves the session
	why     error      // the first reason for which it is to end; nil: it need not
	whole   *whole     // what is known of it; nil: it rests
	judge   *Judge     // by whom the grant, with its address, was judged last
	ties    *ties      // nil: none
	granted bool
	ended   bool // nothing is granted any more
}

// ties are what few sessions have.
type ties struct {
	stay    Stay               // what it counts towards, until it ends; nil: nothing
	paces   paces              // the first that the stay has said; they do not change
	alarm   *alarm             // at the grant's end; nil: it has none
	reviews func(judge *Judge) // of an association, whose grants are its own affair
}

// tied returns what there is of them. Callers hold mu.
func (l *life) tied() ties {
	if l.ties == nil {
		return ties{}
	}
	return *l.ties
}

// tie returns them to be changed. Callers hold mu.
func (l *life) tie() *ties {
	if l.ties == nil {
		l.ties = &ties{}
	}
	return l.ties
}

func (l *life) state() *state { return &l.serving.server.state }

// ender is told when a session is to end, or, by nil, that it is over. It does not
// block.
type ender interface{ End(reason error) }

// endFunc is one that is called.
type endFunc func(reason error)

// End implements ender.
func (f endFunc) End(reason error) { f(reason) }

// open makes the session known. end is told when it is to end.
func (s *Session) open(from *serving, r *Request, end ender) {
	s.life.serving, s.life.end = from, end
	s.life.whole.request = r
	s.life.state().sessions.add(s)
}

// pass has another told when the session is to end, at once if it is already.
func (s *Session) pass(end ender) {
	s.life.mu.Lock()
	s.life.end = end
	why := s.life.why
	s.life.mu.Unlock()
	if why != nil {
		end.End(why)
	}
}

// ending returns why the session is to end; nil: it need not.
func (s *Session) ending() error {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	return s.life.why
}

// close is the end of open. It may be called of a session that was not opened.
func (s *Session) close() {
	if s.life.serving == nil {
		return
	}
	s.life.state().sessions.remove(s)
	s.life.mu.Lock()
	s.wake()
	s.life.ended = true
	s.life.tied().alarm.stop()
	s.leave()
	end := s.life.end
	s.life.mu.Unlock()
	end.End(nil)
}

// goToRest makes little of a session whose relay goes on by itself: nothing of the
// Record changes any more before the end.
func (s *Session) goToRest() {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	if !s.life.ended {
		s.rest = s.life.whole.pack()
		s.life.whole, s.Record = nil, nil
	}
}

// wake makes the Record of a session that rests again. Callers hold life.mu.
func (s *Session) wake() *whole {
	if s.life.whole == nil {
		s.life.whole = s.known()
		s.Record, s.rest = &s.life.whole.record, rest{}
	}
	return s.life.whole
}

// known returns what is known of it. Callers hold life.mu, and change nothing.
func (s *Session) known() *whole {
	if s.life.whole != nil {
		return s.life.whole
	}
	w := s.rest.unpack()
	w.record.ID, w.record.Started = s.ID, s.Started
	return w
}

// handOver leaves the end of the session to a relay that goes on by itself. The
// context of its life, ctx, is given up: nobody needs it any more, and it costs
// more than the rest.
func (s *Session) handOver(ctx context.Context, going relay.Relay) {
	s.life.mu.Lock()
	giveUp := s.life.end
	s.life.mu.Unlock()
	s.pass(going)
	if ctx.Err() != nil {
		going.End(context.Cause(ctx)) // that it was cut came meanwhile
	}
	giveUp.End(nil)
}

// cutFrom ends the sessions that came from sv and were handed over to their
// relays, for the reason for which the context of the others has ended.
func (ss *sessions) cutFrom(sv *serving, reason error) {
	for _, s := range ss.all() {
		if s.life.serving == sv {
			s.End(reason)
		}
	}
}

// End ends the session with the reason: what it relays is reset on both sides,
// what waits for its answer is refused, as far as its protocol can say so. It
// does not wait for that. The first reason holds, and of a session that is over
// it has no effect. Reason should be, or wrap, a [Reason]. It is for open
// sessions, as [Server.Sessions] returns them and [Recorder] is told of.
func (s *Session) End(reason error) {
	s.life.mu.Lock()
	if s.life.why == nil {
		s.life.why = reason
	}
	end := s.life.end
	s.life.mu.Unlock()
	end.End(reason)
}

// Now returns what is known of an open session at this moment.
func (s *Session) Now() Record {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	return s.known().record
}

// note changes what is known of an open session that does not rest.
func (s *Session) note(change func(*Record)) {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	change(s.Record)
}

// decided notes what the policy has said.
func (s *Session) decided(g *Grant) {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.Rule, s.Via = g.Rule, g.Way.via()
	if g.Identity != (Identity{}) {
		s.Identity = g.Identity
	}
}

// hold gives the session its grant, which was asked for while before was the
// last judge.
func (s *Session) hold(g Grant, before *Judge) {
	s.life.mu.Lock()
	s.life.whole.grant, s.life.granted, s.life.judge = g, true, before
	s.setAlarm(g.Until)
	s.life.mu.Unlock()
	if !g.Until.IsZero() && isOver(g.Until, time.Now()) {
		s.End(Schedule) // at once, and not when the alarm has rung
	}
	s.catchUp()
}

// grantEnds returns when the grant ends; zero: not by itself.
func (s *Session) grantEnds() time.Time {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	if alarm := s.life.tied().alarm; alarm != nil {
		return alarm.at
	}
	return time.Time{}
}

// leaveReviewsTo has f called in the place of the session's own review.
func (s *Session) leaveReviewsTo(f func(*Judge)) {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.life.tie().reviews = f
}

// reached notes the address that the session leads to.
func (s *Session) reached(at netip.AddrPort) {
	s.life.mu.Lock()
	s.Address = at
	s.life.mu.Unlock()
	s.catchUp()
}

// bound notes the address that its client is told.
func (s *Session) bound(at netip.AddrPort) {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.Bound = at
}

// catchUp puts the session to the last judge, if a review has missed it, or
// could not know its address.
func (s *Session) catchUp() {
	judge := s.life.state().judge.Load()
	s.life.mu.Lock()
	judged := s.life.judge == judge
	s.life.mu.Unlock()
	if !judged {
		s.review(judge)
	}
}

// review puts what the session holds to judge.
func (s *Session) review(judge *Judge) {
	s.life.mu.Lock()
	reviews, granted, ended := s.life.tied().reviews, s.life.granted, s.life.ended
	w := s.known()
	held := s.life.held(w.request, w.grant, w.record.Address)
	s.life.mu.Unlock()
	switch {
	case ended:
		return
	case reviews != nil:
		reviews(judge)
		return
	case !granted:
		return // it is being decided on, and will catch up
	}
	until, err := (*judge)(held)
	if err != nil {
		s.End(err)
		return
	}
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	if held.Address.IsValid() {
		s.life.judge = judge
	}
	s.setAlarm(until)
}

// held puts together what is judged. Callers hold mu.
func (l *life) held(r *Request, g Grant, at netip.AddrPort) Held {
	h := Held{Grant: g, Address: at}
	if r != nil {
		h.Request = *r
	}
	h.Request.Listener = l.serving.listener.Load().Name
	return h
}

// setAlarm ends the session when its grant ends. Callers hold mu.
func (s *Session) setAlarm(until time.Time) {
	if before := s.life.tied().alarm; before != nil {
		before.stop()
		s.life.ties.alarm = nil
	}
	if !until.IsZero() && !s.life.ended {
		s.life.tie().alarm = newAlarm(until, func() { s.End(Schedule) })
	}
}
