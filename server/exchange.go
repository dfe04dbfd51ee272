package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
	"github.com/sallyport/sallyport/socks"
)

// exchange is one client connection and what came of it so far.
type exchange struct {
	server      *Server
	conn        net.Conn       // nil while it is a descriptor on a loop
	remote      netip.AddrPort // its other end
	local       netip.AddrPort // its end on this machine
	listener    *Listener      // as it was when the connection was accepted
	serving     *serving       // where it was accepted; nil in tests of a part
	relayed     *proxyHeader   // who the client is, where a load balancer has said so; nil: the other end
	session     *Session
	certificate Identity // what the client's TLS certificate proves; zero: it has none
	request     *Request
	stream      streamer // in the place of request: what serves the connection
	head        []byte   // what the client sent behind its request: it goes to the target first
	greeted     bool     // the client was silent, and was greeted as one of SSH
	lingers     bool     // the last words were said, and the client may not have read them yet
	accepted    net.Conn // conn, or what is beneath its TLS; nil: somebody else closes it
	release     func()   // of the target that a mapping has chosen; nil: there is none
	route       *route   // of a relay that goes on by itself
	gone        func()   // is called when all is over; nil: by then it was, or there is nothing to call
}

// serveConn takes a connection that was admitted from its first byte to its last,
// and closes it: maybe after it has returned, since a relay can go on by
// itself. The first context ends it while in its handshake, the second later.
func (s *Server) serveConn(handshakes, sessions context.Context, c net.Conn, sv *serving) {
	x := &exchange{
		server: s, conn: c, accepted: c, remote: clientOf(c), local: addrPort(c.LocalAddr()),
		listener: sv.listener.Load(), serving: sv, gone: sv.gone,
	}
	x.begin()
	defer x.contain()
	d := newDriver(x)
	next := d.first()
	if next.over() { // a mapping's, which there is nothing to wait for
		x.serve(handshakes, sessions, x.requested(next, nil))
		return
	}
	ctx, leave := s.state.handshakes.hold(handshakes, x.session.Client.Addr())
	x.serve(handshakes, sessions, x.handshake(ctx, leave, &d, next))
}

// serve takes a connection from the end of its handshake to its own. Reason is why
// the handshake came to nothing.
func (x *exchange) serve(handshakes, sessions context.Context, reason error) {
	if reason == nil && x.stream != nil {
		if reason = x.stream(handshakes, sessions, x); errors.Is(reason, errHandedOn) {
			return
		}
	} else if reason == nil {
		ctx := x.opened(sessions)
		if x.request.Command == socks.Connect {
			x.connectAlone(ctx, sessions, x.approach())
			return
		}
		reason = x.answer(ctx)
	}
	x.end(sessions, reason)
}

// end is the last of a connection that was served.
func (x *exchange) end(sessions context.Context, reason error) {
	x.closed(reason)
	if x.lingers {
		x.linger(sessions)
	}
	x.leave()
}

// leave closes a connection of which nothing is left to be told. Another call
// does nothing.
func (x *exchange) leave() {
	if gone := x.gone; gone != nil {
		x.gone = nil
		x.accepted.Close()
		if x.route != nil {
			x.route.close()
		}
		gone()
	}
}

// contain keeps a fault of the proxy's own code to the session that met it. No
// input should be able to cause one: the log asks for a report.
func (x *exchange) contain() {
	if fault := recover(); fault != nil {
		x.server.report(fault, debug.Stack())
		x.closed(Failed)
		x.leave()
	}
}

func (s *Server) report(fault any, stack []byte) {
	s.logger().Error("a fault of the proxy itself ended a session; please report it",
		"fault", fmt.Sprint(fault), "stack", string(stack))
}

// begin starts a session: the first of the connection, or, where one connection
// carries many, the next.
func (x *exchange) begin() { x.beginIn(&whole{}) }

// beginIn is begin in memory that there is already.
func (x *exchange) beginIn(w *whole) {
	_, secure := x.conn.(*tls.Conn)
	x.request = nil
	w.record = Record{
		ID:       x.server.state.lastID.Add(1),
		Started:  time.Now(),
		Listener: x.listener.Name,
		Client:   x.remote,
		TLS:      secure,
	}
	x.session = newSession(w)
	if x.relayed != nil {
		x.session.Client, x.session.Through = x.relayed.client, x.session.Client
	}
}

// opened makes the session known, now that there is a request. The context is
// that of its life.
func (x *exchange) opened(sessions context.Context) context.Context {
	ctx, end := context.WithCancelCause(sessions)
	x.openedFor(endFunc(end))
	return ctx
}

// openedFor is opened for who goes by no context: end is told when the session is
// to end.
func (x *exchange) openedFor(end ender) {
	x.session.open(x.serving, x.request, end)
	x.server.recorder().Opened(x.session)
}

// closed tells the recorder how the session ended, once.
func (x *exchange) closed(reason error) {
	if session := x.session; session != nil {
		x.session = nil // before: a Recorder that has a fault is not told again
		x.server.over(session, reason)
	}
}

func (s *Server) over(session *Session, reason error) {
	if fault, ok := errors.AsType[*relay.Fault](reason); ok {
		s.report(fault.Value, fault.Stack)
	}
	if why := session.ending(); why != nil && isDeparture(reason) {
		reason = why // the client's connection was taken away for the same reason, and has been the first to be noticed
	}
	defer s.recorder().Closed(session, reason) // whatever becomes of the rest
	session.close()
}

// isDeparture reports whether the client's connection has ended otherwise than well.
func isDeparture(reason error) bool {
	r := ReasonOf(reason)
	return r == ClientReset || r == ClientGone
}

// ask makes r the session's request.
func (x *exchange) ask(r *Request) {
	if x.certificate.Name != "" && r.Identity.Proof != Password && r.Identity.Proof != Key {
		r.Identity = x.certificate
	}
	r.Client, r.Local, r.Listener = x.session.Client, x.local, x.listener.Name
	if x.serving != nil {
		r.Listener = x.serving.listener.Load().Name // which it has not been called from the start, maybe
	}
	if x.relayed != nil {
		r.Local, r.Relayed = x.relayed.local, true
	}
	x.request = r
	x.session.Protocol, x.session.Command = r.Protocol, r.Command
	x.session.Identity, x.session.Target = r.Identity, r.Target
}

// handshake reads the request, or says why there is none. The handshake goes on
// with next, and is over when leave is called. The context ends it.
func (x *exchange) handshake(ctx context.Context, leave func(), d *driver, next step) error {
	defer leave()
	last, rest, err := d.shake(ctx, next)
	if err != nil {
		return err
	}
	err = x.requested(last, rest)
	if err != nil {
		x.say(last.reply)
	}
	return err
}

// requested takes over what a handshake has come to, and what was read behind it.
// It returns why a request was refused.
func (x *exchange) requested(last step, rest []byte) error {
	if last.refusal != nil {
		if last.about != nil {
			x.ask(last.about) // for the record
		}
		return last.refusal
	}
	x.head, x.stream = rest, last.stream
	if last.request != nil {
		x.ask(last.request)
	}
	return nil
}

// answer decides a request that is no CONNECT, and does what was granted.
func (x *exchange) answer(ctx context.Context) error {
	switch x.request.Command {
	case socks.Bind:
		return x.bind(ctx)
	case socks.Associate:
		if x.request.Protocol == SOCKS5 { // the others know no such command
			return x.associate(ctx)
		}
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
	judge := x.server.state.judge.Load()
	grant, err := x.server.decide(ctx, x.request)
	x.hear(&grant, err, judge)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // it came too late, or the client left, or the grant is over already
	}
	return grant, x.enter(grant, err)
}

// hear takes over what the policy has answered, which was asked while before was
// the last judge.
func (x *exchange) hear(grant *Grant, err error, before *Judge) {
	grant.ByName = grant.ByName && grant.Way.upstream() != nil && x.request.Target.Name != ""
	x.session.decided(grant)
	if err == nil {
		x.session.hold(*grant, before)
	}
}

// enter counts the session towards the limits of its grant, unless there is an
// error already: it comes last, so that nobody is counted who is refused.
func (x *exchange) enter(grant Grant, err error) error {
	if err != nil {
		return err
	}
	pace, err := x.session.enter(grant.Budget)
	if pace != nil {
		x.session.pace = pace
	}
	return err
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
func (x *exchange) linger(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { expire(x.conn) })()
	if x.conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, x.conn, lingerBytes) // how it ends does not matter
	}
}

// write sends a reply. A reply is far smaller than any socket buffer: a client
// that does not take it in this time takes nothing.
func (x *exchange) write(reply []byte) error {
	if len(reply) == 0 {
		return nil // a mapping says nothing
	}
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
	client, far := x.sides(target)
	return relay.Run(ctx, client, far, &x.session.meter, x.session.limits(x.server.timeouts()))
}

// sides are those of the session's relay.
func (x *exchange) sides(target net.Conn) (client, far relay.Side) {
	head := x.head
	x.head = nil // not to be held for as long as the session lives
	return relay.Side{Conn: x.conn, Head: head}, relay.Side{Conn: target}
}
