package server

import "context"

// leaving is how a server that takes no new clients says so to those it has. It is
// made for the first Serve.
type leaving struct {
	begun <-chan struct{} // closed when Drain is called
	after func(f func()) (stop func() bool)
	begin context.CancelFunc
	over  chan struct{} // closed when nobody is left; nil until somebody waits for it
}

func newLeaving(ctx context.Context) leaving {
	ctx, begin := context.WithCancel(context.WithoutCancel(ctx))
	return leaving{begun: ctx.Done(), after: func(f func()) func() bool { return context.AfterFunc(ctx, f) }, begin: begin}
}

// Drain closes every listening socket and waits for the sessions to end by
// themselves, as [Server.Shutdown] does, but nobody who has come is sent away: who
// is in the handshake ends it and is served, and so is who comes with another
// request on an open HTTP connection, which is then told to close. It is for a
// server whose sockets another process listens on as well; so SSH connections that
// offer ports are cut, for their clients to offer them there, where visitors come
// now. When ctx ends first it returns ctx's error and has cut nothing else; Shutdown
// can follow. No Serve can.
func (s *Server) Drain(ctx context.Context) error {
	select {
	case <-s.retire():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retire closes the sockets. The channel is closed when nobody is left.
func (s *Server) retire() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	if s.state.leaving.over == nil {
		s.state.leaving.over = make(chan struct{})
		s.sayEmpty()
	}
	if s.state.leaving.begin != nil {
		s.state.leaving.begin()
	}
	for sv := range s.serving {
		sv.close()
	}
	return s.state.leaving.over
}

// sayEmpty tells who waits in Drain that nobody is left, where that is so. Callers
// hold mu; what is in serving takes no place in it again.
func (s *Server) sayEmpty() {
	if s.state.leaving.over != nil && len(s.serving) == 0 {
		close(s.state.leaving.over)
	}
}
