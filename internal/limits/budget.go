package limits

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/server"
)

// budget is what one request counts towards. It implements [server.Budget].
type budget struct {
	part    *Part
	who     who
	entered bool    // account is in use; the table's mutex guards it
	account account // of the first session, which as a rule is the only one
}

// stay is a session's time within a budget. It implements [server.Stay].
type stay struct {
	*account
	of []*holding
}

// account is what all stays of a session hold together. The table's mutex guards it.
type account struct {
	table *Table
	end   func(reason error)
	since instant    // when the first stay began
	holds []*holding // of different counters; few

	// What most sessions have no more of.
	first stay
	own   [2]holding
	held  [2]*holding
}

// holding returns what is held of the counter of a claim; nil: nothing.
func (a *account) holding(of claim) *holding {
	for _, h := range a.holds {
		if h.counter.of == of {
			return h
		}
	}
	return nil
}

// holding is what a session holds of one counter.
type holding struct {
	*counter
	by    *account
	place link[holding]         // among those of the counter's quota
	ended bool                  // by it
	turns atomic.Pointer[turns] // nil: there was no rate yet
}

// Enter implements [server.Budget].
func (b *budget) Enter(before server.Stay, end func(error)) (server.Stay, error) {
	table := b.part.table
	table.mu.Lock()
	defer table.mu.Unlock()
	var few [4]claim // as a rule they are no more
	now := time.Now()
	s := b.begin(before, end, now)
	held := len(s.holds)
	if err := s.claim(b.part.claims(few[:0], &b.who), now); err != nil {
		s.holds = s.holds[:held]
		return nil, err
	}
	for _, h := range s.holds[held:] {
		h.enter(now, b.who.from)
		if h.tally != nil {
			h.holders.add(&h.place, h)
		}
	}
	return s, nil
}

// begin returns a stay that holds nothing of its own yet.
func (b *budget) begin(before server.Stay, end func(error), now time.Time) *stay {
	if old, ok := before.(*stay); ok && old.table == b.part.table {
		return &stay{account: old.account}
	}
	a := &b.account
	if b.entered {
		a = &account{}
	}
	b.entered = true
	a.table, a.end, a.since = b.part.table, end, instantOf(now)
	a.first.account, a.holds = a, a.held[:0]
	return &a.first
}

// claim has the stay be of the counters of all claims, or says which of them has no room
// for one more session. Those that the session does not hold yet are not entered yet.
func (s *stay) claim(claims []claim, now time.Time) error {
	fresh := s.own[:0]
	if s != &s.first || len(claims) > cap(fresh) {
		fresh = make([]holding, 0, len(claims)) // which has room for all: they do not move
	}
	for _, c := range claims {
		if s.holding(c) != nil {
			continue
		}
		fresh = fresh[:len(fresh)+1]
		h := &fresh[len(fresh)-1]
		h.counter, h.by = c.find(), s.account
		if err := h.admits(now); err != nil {
			return err
		}
		s.holds = append(s.holds, h)
	}
	if s == &s.first {
		s.of = s.holds[:len(s.holds):len(s.holds)]
		return nil
	}
	for _, c := range claims {
		s.of = append(s.of, s.holding(c))
	}
	return nil
}

// admits says why there is no room for one more session.
func (c *counter) admits(now time.Time) error {
	l := c.of.limit
	l.sweep(now)
	if c.tally != nil {
		return c.admitsMore(now)
	}
	switch {
	case l.Sessions > 0 && c.sessions >= l.Sessions:
		return fmt.Errorf("%w: the limit %q lets in %d at once by %s", server.TooMany, l.name, l.Sessions, l.Per)
	case l.New == 0:
		return nil
	}
	// The next one comes in when its part of the time is free again.
	if taken, room := c.full.Sub(now), l.In-l.In/time.Duration(l.New); taken > room {
		err := fmt.Errorf("%w: the limit %q lets in %d in %v by %s", server.TooFast, l.name, l.New, l.In, l.Per)
		return &server.LaterError{Err: err, After: taken - room}
	}
	return nil
}

// Pace implements [server.Stay].
func (s *stay) Pace() (up, down server.Pacer) {
	for _, h := range s.of {
		if h.counter.up != nil { // then the other, too, and whatever has a quota
			return (*upward)(s), (*downward)(s)
		}
	}
	return nil, nil
}

// Leave implements [server.Stay].
func (s *stay) Leave() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	for _, h := range s.holds {
		h.turns.Load().close()
		if h.tally != nil {
			h.holders.remove(&h.place)
		}
		h.leave()
	}
	s.holds = nil
}
