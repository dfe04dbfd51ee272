package limits

import (
	"fmt"
	"time"

	"github.com/sallyport/sallyport/server"
)

// budget is what one request counts towards. It implements [server.Budget].
type budget struct {
	table  *Table
	claims []claim
}

// stay is a session's time within a budget. It implements [server.Stay].
type stay struct {
	*account
	of       []*holding
	up, down pacer
}

// account is what all stays of a session hold together. The table's mutex guards it.
type account struct {
	table *Table
	holds []*holding // of different counters; few
	end   func(reason error)
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
	up, down *lane // nil: that direction is not limited
}

// Enter implements [server.Budget].
func (b *budget) Enter(before server.Stay, end func(error)) (server.Stay, error) {
	b.table.mu.Lock()
	defer b.table.mu.Unlock()
	s := &stay{account: &account{table: b.table, end: end}}
	if old, ok := before.(*stay); ok && old.table == b.table {
		s.account = old.account
	}
	now := time.Now()
	s.of = make([]*holding, 0, len(b.claims))
	held := len(s.holds)
	for _, c := range b.claims {
		h := s.holding(c)
		if h == nil {
			h = &holding{counter: c.find()}
			if err := h.admits(now); err != nil {
				s.holds = s.holds[:held]
				return nil, err
			}
			s.holds = append(s.holds, h)
		}
		s.of = append(s.of, h)
	}
	for _, h := range s.holds[held:] {
		h.enter(now)
		h.open()
		if h.tally != nil {
			h.holders[s.account] = false
		}
	}
	s.up.isUp = true
	for _, h := range s.of {
		s.up.add(h.up, h.counter)
		s.down.add(h.down, h.counter)
	}
	return s, nil
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

// open makes the lanes. Both directions together are one share.
func (h *holding) open() {
	if h.counter.up == nil {
		return
	}
	up := &share{shaper: h.counter.up}
	down := up
	if h.counter.up != h.counter.down {
		down = &share{shaper: h.counter.down}
	}
	h.up, h.down = &lane{share: up}, &lane{share: down}
}

// Pace implements [server.Stay].
func (s *stay) Pace() (up, down server.Pacer) {
	if s.up.paces() {
		up = &s.up
	}
	if s.down.paces() {
		down = &s.down
	}
	return up, down
}

// Leave implements [server.Stay].
func (s *stay) Leave() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	now := time.Now()
	for _, h := range s.holds {
		if h.up != nil {
			h.up.close()
			h.down.close()
		}
		if h.tally != nil {
			delete(h.holders, s.account)
		}
		h.leave(now)
	}
	s.holds = nil
}
