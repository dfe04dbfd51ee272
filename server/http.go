package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/sallyport/sallyport/socks"
)

// httpIdle is how long a connection stays open for another request.
const httpIdle = 2 * time.Minute

// beginsMethod reports whether a byte can begin an HTTP method as they are used:
// a capital. (The grammar has more; nobody else uses it.)
func beginsMethod(b byte) bool { return b-'A' < 26 }

// sshGreeting begins what an SSH client says. It is no method of HTTP.
const sshGreeting = "SSH-"

// httpOpening is the handshake of HTTP/1.1: there is none. It only tells SSH
// apart, to which a page would be noise, and, over TLS, HTTP/2.
type httpOpening struct{ secure bool }

func (o httpOpening) feed(arrived []byte) (int, step) {
	n := min(len(arrived), len(sshGreeting))
	switch {
	case o.secure && strings.HasPrefix(http2.ClientPreface, string(arrived)):
		return 0, step{} // it may become the preface yet
	case o.secure && strings.HasPrefix(string(arrived), http2.ClientPreface):
		return len(http2.ClientPreface), step{stream: serveHTTP2}
	case string(arrived[:n]) != sshGreeting[:n]:
		return 0, step{stream: serveHTTP}
	case n == len(sshGreeting):
		return 0, step{refusal: fmt.Errorf("%w: SSH is not spoken here", Garbage)}
	}
	return 0, step{}
}

// pseudonym is what a server calls itself in Via (RFC 9110, section 7.6.3), so
// that it knows a request that comes back. It is random: two of them in a row
// are no loop.
type pseudonym struct {
	once sync.Once
	name string
}

func (p *pseudonym) String() string {
	p.once.Do(func() { p.name = "sallyport-" + strings.ToLower(rand.Text()[:8]) })
	return p.name
}

// httpConn is a client connection that speaks HTTP/1.1: a request, its answer,
// and so on.
type httpConn struct {
	*exchange
	in      inflow // what the client sends
	replier *replierHTTP
	kept    *origin    // the target of the last request, if it may take another
	until   time.Time  // when the last request's grant ends; zero: not by itself
	source  netip.Addr // of the client
	served  bool       // a request of this client was granted
	alone   bool       // the connection is not one of many within another: a relay may take it over
}

// newHTTPConn goes on with a connection by what was read ahead.
func newHTTPConn(x *exchange) *httpConn {
	h := &httpConn{exchange: x, in: inflow{conn: x.conn, buf: x.head}, source: x.session.Client.Addr(), alone: true}
	x.head = nil
	return h
}

// serveHTTP is the streamer of HTTP/1.1. Each request is a session.
func serveHTTP(handshakes, sessions context.Context, x *exchange) error {
	h := newHTTPConn(x)
	defer func() { h.kept.close() }()
	for more := true; more; {
		var reason error
		more, reason = h.serve(handshakes, sessions)
		if errors.Is(reason, errHandedOn) {
			return reason
		}
		h.until = h.session.grantEnds()
		h.closed(reason)
		more = more && h.nextRequest(handshakes)
	}
	return nil
}

// nextRequest waits for the first byte of another request, and begins its
// session. A client to which nothing was granted so far waits as one whose
// handshake is not over: it could keep others out for as long as it likes else.
func (h *httpConn) nextRequest(handshakes context.Context) bool {
	h.in.letGo()
	if empty := false; !h.in.begun(&empty) {
		ctx := handshakes
		if !h.served {
			var leave func()
			ctx, leave = h.server.state.handshakes.hold(ctx, h.source)
			defer leave()
		}
		ctx, cancel := context.WithTimeout(ctx, min(httpIdle, h.server.timeouts().Idle))
		defer cancel()
		stop := context.AfterFunc(ctx, func() { expire(h.conn) })
		if !h.until.IsZero() {
			defer newAlarm(h.until, cancel).stop()
		}
		var err error
		for err == nil && !h.in.begun(&empty) {
			err = h.in.fill(headRead)
		}
		if !stop() || err != nil {
			return false
		}
	}
	h.begin()
	return true
}

// serve answers one request. more says that another may follow.
func (h *httpConn) serve(handshakes, sessions context.Context) (more bool, reason error) {
	h.session.Protocol = HTTP
	h.replier = &replierHTTP{session: h.session}
	r, head, err := h.readRequest(handshakes)
	if err != nil {
		if asked, page, ok := h.page(head, err); ok {
			return h.showPage(asked, page)
		}
		return h.refuse(err, nil)
	}
	h.replier.bodiless = r.method == "HEAD"
	h.ask(r.asks(h.replier))
	id, login, err := h.identify(handshakes, r)
	if err != nil {
		return h.refuse(err, r)
	}
	if id != (Identity{}) {
		h.request.Identity, h.session.Identity = id, id
	}
	h.replier.login = login != LoginNone && id == Identity{}
	ctx := h.opened(sessions)
	switch {
	case r.passedBy(h.server.state.pseudonym.String()):
		return h.refuse(fmt.Errorf("%w: the request's Via names this proxy", Loop), r)
	case r.method == connectMethod:
		h.kept.close()
		h.kept = nil
		h.head = h.in.buf
		h.in.set(nil)
		if h.alone {
			h.connectAlone(ctx, sessions, h.approach())
			return false, errHandedOn
		}
		return false, h.connect(ctx)
	}
	if r.hops() == 0 {
		return h.answerItself(r)
	}
	return h.forward(handshakes, ctx, r)
}

// asks is the request that a head makes of the server. It holds nothing of the head, which
// may be large.
func (r *httpRequest) asks(replier *replierHTTP) *Request {
	target := r.target
	target.Name = strings.Clone(target.Name)
	return &Request{Protocol: HTTP, Command: socks.Connect, Target: target, Replier: replier}
}

// answerItself answers a request that is to go no further than here.
func (h *httpConn) answerItself(r *httpRequest) (more bool, reason error) {
	if r.method == "TRACE" { // the answer would be the request, with what is secret in it
		return h.refuse(fmt.Errorf("%w: TRACE of the proxy itself", Unsupported), r)
	}
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
	if r.closes() || r.hasBody() {
		h.say([]byte(answer + "Connection: close\r\n\r\n"))
		return false, nil
	}
	return h.write([]byte(answer+"\r\n")) == nil, nil
}

// readRequest reads a head, within the limit that counts from the session's
// start. It counts as a handshake that waits. With the error that the head is no
// request to a proxy it returns the head.
func (h *httpConn) readRequest(handshakes context.Context) (r *httpRequest, head []byte, err error) {
	handshakes, leave := h.server.state.handshakes.hold(handshakes, h.session.Client.Addr())
	defer leave()
	until := h.session.Started.Add(h.server.timeouts().Handshake)
	ctx, cancel := context.WithDeadlineCause(handshakes, until, HandshakeSlow)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { expire(h.conn) })
	raw, err := h.in.head()
	if !stop() {
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, brokenHead(err)
	}
	if r, err = parseRequest(raw); err != nil {
		return nil, raw, fmt.Errorf("%w: %w", BadRequest, err)
	}
	_, r.http2 = h.conn.(*http2Stream)
	return r, nil, nil
}

// brokenHead names what ended the reading of a head.
func brokenHead(err error) error {
	if errors.Is(err, errHeadSize) || errors.Is(err, errHeadBytes) {
		return fmt.Errorf("%w: %w", BadRequest, err)
	}
	return handshakeEnd(err)
}

// refuse answers with a page. The connection stays open where it is known that
// the next request is what comes next; r is nil where there was none to read.
func (h *httpConn) refuse(reason error, r *httpRequest) (more bool, _ error) {
	switch ReasonOf(reason) {
	case ClientGone, ClientReset, Shutdown:
		return false, reason
	}
	// What is behind a CONNECT is not for this proxy to read.
	stays := r != nil && !r.closes() && !r.hasBody() && (r.method != connectMethod || len(h.in.buf) == 0)
	h.replier.stays = stays
	page := h.replier.AppendDeny(nil, reason, netip.AddrPort{})
	if !stays {
		h.say(page)
		return false, reason
	}
	return h.write(page) == nil, reason
}

// awaiting is exchange.await for a connection whose bytes are in h.in.
func (h *httpConn) awaiting(ctx context.Context) (waiting context.Context, end func()) {
	h.head = h.in.buf
	waiting, stop := h.await(ctx, h.server.timeouts().Connect, false)
	return waiting, func() {
		stop()
		h.in.set(h.head)
		h.head = nil
	}
}
