package ledger

import (
	"sync"
	"time"
)

// Status is how a ledger fares. The counts are since Open.
type Status struct {
	Place  string    // without a password
	Node   string    // what this node is called
	Lost   bool      // the last write failed
	Since  time.Time // when it was lost, or was back; zero: it never was lost
	Writes int64     // that were well
	Failed int64     // that were not
}

// standing is a Status that is kept.
type standing struct {
	mu sync.Mutex
	Status
}

// Status tells how the ledger fares. It may be called at any time, by any goroutine.
func (l *Ledger) Status() Status {
	l.standing.mu.Lock()
	defer l.standing.mu.Unlock()
	s := l.standing.Status
	s.Place, s.Node = l.place.String(), l.writer.node
	return s
}

// wrote counts a write.
func (s *standing) wrote(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.Writes++
	} else {
		s.Failed++
	}
}

func (s *standing) setLost(lost bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Lost, s.Since = lost, now
}
