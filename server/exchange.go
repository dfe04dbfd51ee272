package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
	"github.com/sallyport/sallyport/socks"
)

// exchange is one client connection and what came of it so far.
type exchange struct {
	server   *Server
	conn     net.Conn
	listener *Listener
	session  *Session
	request  *Request
	head     []byte // what the client sent behind its request: it goes to the target first
	lingers  bool   // the last words were said, and the client may not have read them yet
}

// serveConn takes a connection from its first byte to its last. The caller
// closes c. The first context ends it while in its handshake, the second later.
func (s *Server) serveConn(handshakes, sessions context.Context, c net.Conn, l *Listener) {
	x := &exchange{server: s, conn: c, listener: l, session: &Session{
		ID:       s.state.lastID.Add(1),
		Started:  time.Now(),
		Listener: l.Name,
		Client:   addrPort(c.RemoteAddr()),
	}}
	reason := x.handshake(handshakes)
	if reason == nil {
		s.recorder().Opened(x.session)
		reason = x.answer(sessions)
	}
	s.recorder().Closed(x.session, reason)
	if x.lingers {
		x.linger()
	}
}

// handshake reads the request, or says why there is none.
func (x *exchange) handshake(ctx context.Context) error {
	waiting := &x.server.state.handshakes
	source := x.session.Client.Addr()
	if !waiting.add(source) {
		return fmt.Errorf("%w: too many handshakes wait, in sum or from this source", Busy)
	}
	defer waiting.remove(source)
	last, rest, err := x.server.shake(ctx, x.conn, x.listener)
	if err != nil {
		return err
	}
	if last.refusal != nil {
		x.say(last.reply)
		return last.refusal
	}
	x.head, x.request = rest, last.request
	x.request.Client, x.request.Local = x.session.Client, addrPort(x.conn.LocalAddr())
	x.request.Listener = x.listener.Name
	x.session.Protocol, x.session.Command = x.request.Protocol, x.request.Command
	x.session.Identity, x.session.Target = x.request.Identity, x.request.Target
	return nil
}

// answer decides the request and does what was granted.
func (x *exchange) answer(ctx context.Context) error {
	switch x.request.Command {
	case socks.Connect:
		return x.connect(ctx)
	case socks.Bind:
		return x.bind(ctx)
	}
	return x.deny(fmt.Errorf("%w: command %d", Unsupported, x.request.Command), netip.AddrPort{})
}

// await bounds the time in which the client waits for its answer, and reads
// ahead what it sends meanwhile. The context ends when the client leaves; where
// endIsGone, its FIN counts as leaving. end stops both: x.head then holds all
// that the client has sent.
func (x *exchange) await(ctx context.Context, limit time.Duration, endIsGone bool) (waiting context.Context, end func()) {
	ctx, gone := context.WithCancelCause(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, TimedOut)
	reading := readAhead(x.conn, x.head, endIsGone, gone)
	return ctx, func() {
		x.head = reading.stop()
		cancel()
		gone(nil)
	}
}

// decide asks the policy.
func (x *exchange) decide(ctx context.Context) (Grant, error) {
	if x.server.Policy == nil {
		return Grant{}, fmt.Errorf("%w: the server has no policy", Denied)
	}
	grant, err := x.server.Policy.Decide(ctx, x.request)
	x.session.Rule = grant.Rule
	if grant.Identity != (Identity{}) {
		x.session.Identity = grant.Identity
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // ran out of time, or the client left, in the middle of it
	}
	return grant, err
}

// grant tells the client that its request succeeded.
func (x *exchange) grant(bound netip.AddrPort) error {
	if err := x.write(x.request.Replier.AppendGrant(nil, bound)); err != nil {
		return fmt.Errorf("%w: %w", ClientGone, err)
	}
	return nil
}

// deny tells the client that its request failed, and returns why. A client
// that is gone is told nothing.
func (x *exchange) deny(reason error, about netip.AddrPort) error {
	switch ReasonOf(reason) {
	case ClientGone, ClientReset:
	default:
		x.say(x.request.Replier.AppendDeny(nil, reason, about))
	}
	return reason
}

// Bounds of the end of a refused connection.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
)

// say sends the last words and then FIN.
func (x *exchange) say(words []byte) {
	if x.write(words) != nil {
		return
	}
	if half, ok := x.conn.(interface{ CloseWrite() error }); ok {
		x.lingers = half.CloseWrite() == nil
	}
}

// linger reads for a short while what the client still sends: closing over
// unread bytes would send RST, which can overtake the last words and lose them.
func (x *exchange) linger() {
	if x.conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, x.conn, lingerBytes) // how it ends does not matter
	}
}

// write sends a reply. A reply is far smaller than any socket buffer: a client
// that does not take it in this time takes nothing.
func (x *exchange) write(reply []byte) error {
	if err := x.conn.SetWriteDeadline(time.Now().Add(lingerTime)); err != nil {
		return err
	}
	if _, err := x.conn.Write(reply); err != nil {
		return err
	}
	return x.conn.SetWriteDeadline(time.Time{})
}

// relay moves the session's bytes until both sides are done.
func (x *exchange) relay(ctx context.Context, target net.Conn) error {
	t := x.server.Timeouts.withDefaults()
	head := x.head
	x.head = nil // not to be held for as long as the session lives
	return relay.Run(ctx,
		relay.Side{Conn: x.conn, Head: head},
		relay.Side{Conn: target},
		&x.session.meter,
		relay.Limits{Idle: t.Idle, HalfClosed: t.HalfClosed})
}
