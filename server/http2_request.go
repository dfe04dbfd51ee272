package server

import (
	"context"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// open begins a stream, and serves it in a goroutine of its own. Callers hold
// mu.
func (c *http2Conn) open(id uint32, section []hpack.HeaderField, size int, ends bool) error {
	if c.refusing {
		return c.waste() // the client learns from GOAWAY that it was not served
	}
	c.last = id
	c.leaveQueue()
	c.expect(0, nil)
	s := &http2Stream{conn: c, id: id, window: http2StreamWindow, room: c.initial, inEnded: ends}
	s.changed.L = &c.mu
	s.read(section, size)
	x := c.streamExchange(s)
	if len(c.streams) >= http2Streams || !c.enterGate() {
		_ = c.frames.WriteRSTStream(id, http2.ErrCodeRefusedStream) // into memory: it cannot fail
		c.pending.Signal()
		x.closed(fmt.Errorf("%w: too many requests on one connection, or connections", Busy))
		c.idle()
		return c.waste()
	}
	c.streams[id] = s
	c.served.Go(func() {
		defer c.server.state.gate.leave()
		defer c.remove(s)
		defer func() { _ = s.Close() }() // it is open
		defer x.contain()
		c.serve(x)
	})
	if s.refusal != nil {
		return c.waste()
	}
	return nil
}

// read makes the head ready to be read, or what is wrong with it.
func (s *http2Stream) read(section []hpack.HeaderField, size int) {
	head, err := parseHTTP2Head(section, s.inEnded)
	if err == nil && (size > maxHead || len(section) > maxFields+4) {
		err = errHeadSize
	}
	s.head, s.ready = head, head.text
	if err != nil {
		s.ready, s.refusal = nil, fmt.Errorf("%w: %w", BadRequest, err)
	}
}

// streamExchange returns the exchange of a stream. The first one takes over the
// session that began with the connection.
func (c *http2Conn) streamExchange(s *http2Stream) *exchange {
	x := &exchange{
		server: c.server, conn: s, remote: c.remote, local: c.local, listener: c.listener, serving: c.serving,
		relayed: c.relayed, certificate: c.certificate, session: c.session,
	}
	c.session = nil
	if x.session == nil {
		x.begin()
	}
	x.session.TLS, x.session.HTTP2 = true, true
	return x
}

// enterGate takes a place among the connections, if there is one.
func (c *http2Conn) enterGate() bool {
	free, news := c.server.state.gate.try()
	if news != nil {
		c.server.sayPaused(*news, c.server.state.gate.limit)
	}
	return free == nil
}

// serveStream answers the stream's request.
func (c *http2Conn) serveStream(handshakes, sessions context.Context, x *exchange) {
	h := &httpConn{exchange: x, in: inflow{conn: x.conn}, kept: c.takeKept()}
	defer func() { h.kept.close() }() // of a fault
	_, reason := h.serve(handshakes, sessions)
	if !h.session.grantEnds().IsZero() { // and with it what was reached by it
		h.kept.close()
		h.kept = nil
	}
	c.keep(h.kept)
	h.kept = nil
	if h.served || h.session.Address.IsValid() {
		c.wasGranted()
	}
	h.closed(reason)
}

// wasGranted notes that a request of this client was granted.
func (c *http2Conn) wasGranted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted = true
}

// takeKept returns the connection that an earlier request left.
func (c *http2Conn) takeKept() *origin {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.kept
	c.kept = nil
	return kept
}

// keep holds a connection for a later request.
func (c *http2Conn) keep(o *origin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o == nil {
		return
	}
	c.kept.close()
	c.kept = o
}

// remove takes out a stream that is served no more.
func (c *http2Conn) remove(s *http2Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s.id)
	c.idle()
}
