package admin

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	requestTime = 10 * time.Second // for a request to arrive
	endTime     = 2 * time.Second  // for answers under way when the server stops
)

// Serve answers on socket by h until ctx ends. Who has come by then is answered: another
// process may have the socket, too, and nobody is to notice that it has taken over. Serve
// closes the socket, and returns when everything that it started has ended, or after
// the time that answers get.
func Serve(ctx context.Context, socket net.Listener, h http.Handler, log *slog.Logger) {
	requests, cut := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), leavingKey{}, ctx.Done()))
	defer cut()
	open := newOpenConns()
	s := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       withGuest,
		ConnState:         open.follow,
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       requestTime,
		IdleTimeout:       requestTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(socket); ctx.Err() == nil {
			log.Error("the admin socket failed: administrators and commands that use it cannot reach the server any more", "address", socket.Addr().String(), "error", err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-served:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	// Not Shutdown, which drops what was asked just now.
	_ = socket.Close() // nobody else comes; it may have failed before
	<-served
	s.SetKeepAlivesEnabled(false)
	open.wait(end)
	cut()
	_ = s.Close() // nothing is left to be said
}

// leavingKey is the key of a channel in a request's context, which is closed when the
// server stops.
type leavingKey struct{}

// leaving returns that, for answers that would not end by themselves.
func leaving(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(leavingKey{}).(<-chan struct{})
	return c
}

// openConns counts the connections of a server.
type openConns struct {
	n    atomic.Int64
	gone chan struct{} // has something when there may be none
}

func newOpenConns() *openConns { return &openConns{gone: make(chan struct{}, 1)} }

// follow is the ConnState of an [http.Server].
func (o *openConns) follow(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		o.n.Add(1)
	case http.StateClosed, http.StateHijacked:
		o.n.Add(-1)
		select {
		case o.gone <- struct{}{}:
		default: // it has been said
		}
	}
}

// wait returns when there are none, or ctx ends.
func (o *openConns) wait(ctx context.Context) {
	for o.n.Load() > 0 {
		select {
		case <-o.gone:
		case <-ctx.Done():
			return
		}
	}
}
