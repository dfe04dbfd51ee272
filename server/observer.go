package server

// Observer is a running server as whoever watches it sees it: numbers of this moment
// (Gauges) and the open sessions, each with its own counters. What happens over time,
// a [Recorder] is told. A [Server] is an Observer; who shows one (as metrics, on a page)
// takes it by this interface, and nothing of what shows it comes into this package.
//
// The methods may be called at any time, by any goroutine. They do not wait for the
// network, and hold up no session.
type Observer interface {
	// Gauges returns how many there are of what is bounded.
	Gauges() Gauges
	// Sessions returns the sessions that are open, in no order. It costs a pointer each.
	Sessions() []*Session
}

// Gauges are numbers of one moment. They are read one after the other: a connection
// that moves on meanwhile may be in two of them, or in none.
type Gauges struct {
	Accepting      bool // new clients are served: Serve was called, and neither Shutdown nor Close nor Drain
	Paused         bool // no client is accepted for now: Connections has reached its limit
	Connections    int  // places that are taken: connections, streams of HTTP/2, channels of SSH, and by each listener one for its next client
	MaxConnections int  // of them, how many there may be; 0: nothing was served yet
	Handshakes     int  // connections without a whole request yet
	MaxHandshakes  int  // of them, how many there may be; 0: nothing was served yet
	Sessions       int  // that are open: their request is known
}

// Gauges implements [Observer].
func (s *Server) Gauges() Gauges {
	s.mu.Lock()
	g := Gauges{Accepting: len(s.serving) > 0 && !s.closed && !s.retired}
	s.mu.Unlock()
	s.state.gate.gauge(&g)
	s.state.handshakes.gauge(&g)
	g.Sessions = s.state.sessions.count()
	return g
}

func (g *gate) gauge(into *Gauges) {
	g.mu.Lock()
	defer g.mu.Unlock()
	into.Paused, into.Connections, into.MaxConnections = g.paused, g.open, g.limit
}

func (q *queue) gauge(into *Gauges) {
	q.mu.Lock()
	defer q.mu.Unlock()
	into.Handshakes, into.MaxHandshakes = q.all.count, q.most
}

func (ss *sessions) count() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.open
}
