package server

import (
	"context"
	"sync/atomic"
	"time"
)

// silence ends a request in which no byte moves for too long, as the limits of
// a relay do.
type silence struct {
	limits Timeouts
	timer  *time.Timer
	halved atomic.Bool // the client has said FIN
}

func newSilence(limits Timeouts, cancel context.CancelCauseFunc) *silence {
	s := &silence{limits: limits}
	s.timer = time.AfterFunc(limits.Idle, func() {
		if s.halved.Load() {
			cancel(HalfClosed)
			return
		}
		cancel(Idle)
	})
	return s
}

// broken notes that a byte moved.
func (s *silence) broken() {
	limit := s.limits.Idle
	if s.halved.Load() {
		limit = min(limit, s.limits.HalfClosed)
	}
	s.timer.Reset(limit)
}

// half notes that the client has said FIN: from now on the patience is shorter.
func (s *silence) half() {
	s.halved.Store(true)
	s.broken()
}

func (s *silence) end() { s.timer.Stop() }
