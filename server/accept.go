package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// acceptAll accepts until the socket fails for good and runs serve for each
// connection in its own goroutine. A fault that may pass (descriptors used up,
// a connection that ended in the queue) is waited out with a growing pause, as
// net/http does; the log says so once and once more when it is over.
func (s *Server) acceptAll(ctx context.Context, sv *serving, serve func(c net.Conn)) error {
	var pause backoff
	for {
		if !s.state.gate.enter(ctx, s.sayPaused) {
			return context.Cause(ctx)
		}
		c, err := sv.socket.Accept()
		if err != nil {
			s.state.gate.leave()
			if !isTemporary(err) || !pause.wait(ctx) {
				return err
			}
			if pause.first() {
				sv.sayFailing(err)
			}
			continue
		}
		if pause.over() {
			sv.sayAccepting()
		}
		if !sv.admit() {
			c.Close()
			continue
		}
		go serve(c)
	}
}

func (sv *serving) sayFailing(err error) {
	sv.server.logger().Warn("cannot accept connections for now; open sessions go on", "listener", sv.address.String(), "error", err)
}

func (sv *serving) sayAccepting() {
	sv.server.logger().Info("accepting connections again", "listener", sv.address.String())
}

func (s *Server) sayPaused(paused bool, limit int) {
	if paused {
		s.logger().Warn("accepting pauses: as many connections are open as the descriptor limit allows; open sessions go on", "connections", limit)
		return
	}
	s.logger().Info("accepting connections again")
}

// isTemporary reports whether a later Accept may succeed: unless the socket
// itself is no longer one. Linux passes on what befell a connection that was
// still in the queue, and lack of memory passes.
func isTemporary(err error) bool {
	for _, final := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK} {
		if errors.Is(err, final) {
			return false
		}
	}
	_, ofTheSystem := errors.AsType[syscall.Errno](err)
	return ofTheSystem
}

// backoff is the pause between failing accepts: 5 ms, doubled up to a second.
type backoff struct {
	delay time.Duration
	said  bool
}

// wait reports false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	b.delay = min(max(2*b.delay, 5*time.Millisecond), time.Second)
	timer := time.NewTimer(b.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// first reports true once an episode, when it has lasted long enough not to
// have been a connection that merely ended in the queue.
func (b *backoff) first() bool {
	if b.said || b.delay < 20*time.Millisecond {
		return false
	}
	b.said = true
	return true
}

// over ends the episode and reports whether it had been spoken of.
func (b *backoff) over() bool {
	said := b.said
	*b = backoff{}
	return said
}

// gate holds back accepting while as many connections are open as the process
// has descriptors for, so that a session that was let in can also be served.
type gate struct {
	mu     sync.Mutex
	limit  int
	open   int
	paused bool          // from reaching limit until a tenth of it is free again
	free   chan struct{} // closed when the pause is over
	said   bool          // the log has the pause, and not yet its end: half of limit free again
}

// setLimit is called before anybody enters. It may be looked at before.
func (g *gate) setLimit(limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = limit
}

// enter waits for a place and takes it, or reports false when ctx ends first.
// Connections that come and go at the brim are one shortage: say is told of its
// beginning, and of its end once half of the places are free.
func (g *gate) enter(ctx context.Context, say func(paused bool, limit int)) bool {
	for {
		free, news := g.try()
		if news != nil {
			say(*news, g.limit)
		}
		if free == nil {
			return true
		}
		select {
		case <-free:
		case <-ctx.Done():
			return false
		}
	}
}

// try takes a place. Where there is none it returns what to wait for. News is
// that a shortage began (true) or ended.
func (g *gate) try() (free chan struct{}, news *bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused && g.open >= g.limit {
		g.paused, g.free = true, make(chan struct{})
	}
	if g.paused != g.said && (g.paused || g.open <= g.limit/2) {
		g.said = g.paused
		news = new(g.paused)
	}
	if g.paused {
		return g.free, news
	}
	g.open++
	return nil, news
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.paused && g.open <= g.limit-max(1, g.limit/10) {
		g.paused = false
		close(g.free)
	}
}
