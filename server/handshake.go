package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// handshake is the server's side of a protocol's opening, as a state machine
// without I/O: whoever drives it (a blocking reader here; an event loop, a
// fuzzer, a test) feeds it what has arrived and does what the step says.
type handshake interface {
	// feed is given every byte that has arrived and was not taken yet. It
	// answers how many of them it took and what is wanted next. What it does
	// not take of a finished handshake belongs to the target.
	feed(arrived []byte) (took int, next step)
}

// step is what a handshake wants. The zero value: more bytes.
type step struct {
	request     *Request     // the handshake is over: this awaits its answer
	refusal     error        // the handshake is over: send reply, then close
	about       *Request     // what was refused, as far as it was understood; nil: nothing
	reply       []byte       // send this
	credentials *Credentials // check these, and go on with what then says
	then        func(Identity, error) step
	secure      bool     // answer the TLS that the client begins with, and go on beneath it
	stream      streamer // the handshake is over: no request but many may follow, for this to serve
}

// streamer serves a protocol whose connection can carry one request after the
// other. It is given the exchange with what was read ahead in its head, records
// a session for each request, and returns when the connection has nothing more
// to give. The first context ends it while it waits for a request, the second
// later. It does not close the connection. The error is why the session ended that
// was the last, if it was not recorded yet, or errHandedOn.
type streamer func(handshakes, sessions context.Context, x *exchange) error

// errHandedOn says that somebody else sees to the end of the connection, who may have
// done so already.
var errHandedOn = errors.New("the connection was handed on")

func (s step) over() bool { return s.request != nil || s.refusal != nil || s.stream != nil }

// handshakeBuffer holds the longest request whole: head, userid, 4a host.
const handshakeBuffer = 8 + socks.MaxUserID + 1 + socks.MaxHost + 1

// detect chooses the handshake by the first byte. What is of no protocol served
// here gets no answer: nothing is said to a scanner.
func (x *exchange) detect(first byte) (handshake, error) {
	l := x.listener
	switch {
	case l.TLSOnly && !x.session.TLS:
		return nil, fmt.Errorf("%w: this listener takes TLS only", Garbage)
	case first == sshGreeting[0] && l.speaks(SSH):
		return sshOpening{exchange: x}, nil
	case x.greeted:
		return nil, fmt.Errorf("%w: first byte 0x%02x, of a client that was greeted as one of SSH", Garbage, first)
	case first == socks.Version4 && (l.speaks(SOCKS4) || l.speaks(SOCKS4a)):
		x.session.Protocol = SOCKS4
		return &socks4{listener: l}, nil
	case first == socks.Version5 && l.speaks(SOCKS5):
		x.session.Protocol = SOCKS5
		return &socks5{login: x.login(SOCKS5)}, nil
	case beginsMethod(first) && l.speaks(HTTP):
		return httpOpening{secure: x.session.TLS}, nil
	case first == recordHandshake && l.TLS == nil:
		return nil, fmt.Errorf("%w: the client speaks TLS, and this listener has none", Garbage)
	}
	return nil, fmt.Errorf("%w: first byte 0x%02x", Garbage, first)
}

// shake drives a handshake over a blocking connection, within one time limit
// for the whole of it, beginning with next. It returns the step that ended it, and
// the bytes behind the request.
func (d *driver) shake(ctx context.Context, next step) (step, []byte, error) {
	until := d.session.Started.Add(d.server.timeouts().Handshake)
	ctx, cancel := context.WithDeadlineCause(ctx, until, HandshakeSlow)
	defer cancel()
	plain := d.conn // d.conn may become a secure one meanwhile
	stop := context.AfterFunc(ctx, func() { expire(plain) })
	last, err := d.drive(ctx, next)
	if !stop() {
		return step{}, nil, context.Cause(ctx)
	}
	if err != nil {
		return step{}, nil, handshakeEnd(err)
	}
	return last, slices.Clone(d.buf), nil // the clone lets go of the buffer
}

// driver does what a handshake wants. What needs no waiting is apart from the
// rest (advance), for who cannot wait.
type driver struct {
	*exchange
	handshake handshake
	headed    bool   // the PROXY header has come, or none is wanted
	buf       []byte // what has arrived and was not taken
}

func newDriver(x *exchange) driver {
	// A mapping's client may wait for the target to speak: it is not waited for here.
	headed := len(x.listener.ProxyFrom) == 0 || x.listener.Mapping != nil && !x.listener.takesHeader(x.session.Client.Addr())
	return driver{exchange: x, headed: headed}
}

// first is what is to be done before anything has arrived.
func (d *driver) first() step {
	if d.listener.Mapping != nil {
		return d.mapped()
	}
	return step{}
}

// drive does what the handshake wants, and returns the step that ended it.
func (d *driver) drive(ctx context.Context, next step) (step, error) {
	for !next.over() {
		var err error
		if next, err = d.do(ctx, next); err == nil && !next.over() {
			next, err = d.advance()
		}
		if err != nil {
			return step{}, err
		}
	}
	return next, nil
}

// do does what a step wants, and waits for it. Where that ends the handshake, it
// returns how.
func (d *driver) do(ctx context.Context, next step) (step, error) {
	switch {
	case next.secure:
		return step{}, d.startTLS(ctx)
	case next.credentials != nil:
		if next = next.then(d.authenticate(ctx, *next.credentials)); next.over() {
			return next, nil
		}
		fallthrough
	case len(next.reply) > 0:
		_, err := d.conn.Write(next.reply)
		return step{}, err
	}
	return step{}, d.read(ctx)
}

// read waits for more bytes.
func (d *driver) read(ctx context.Context) error {
	if cap(d.buf) < handshakeBuffer {
		d.buf = append(make([]byte, 0, handshakeBuffer), d.buf...)
	}
	if d.mayGreet() {
		return d.greetSilent(ctx)
	}
	n, err := d.conn.Read(d.buf[len(d.buf):cap(d.buf)])
	d.buf = d.buf[:len(d.buf)+n]
	if n > 0 {
		return nil // an error comes again, behind what these lead to
	}
	return err
}

// advance takes what has arrived, up to the next thing that is to be done. It
// neither waits nor acts.
func (d *driver) advance() (step, error) {
	if !d.headed && len(d.buf) > 0 {
		var err error
		if d.headed, err = d.header(); !d.headed {
			return step{}, err
		}
	}
	if d.listener.Mapping != nil {
		return d.mapped(), nil
	}
	if len(d.buf) == 0 {
		return step{}, nil
	}
	if d.handshake == nil {
		if d.wantsTLS() {
			return step{secure: true}, nil
		}
		var err error
		if d.handshake, err = d.detect(d.buf[0]); err != nil {
			return step{}, err
		}
	}
	took, next := d.handshake.feed(d.buf)
	d.buf = d.buf[:copy(d.buf, d.buf[took:])]
	return next, nil
}

func (d *driver) authenticate(ctx context.Context, c Credentials) (Identity, error) {
	c.Protocol, c.Listener, c.Client = SOCKS5, d.listener.Name, d.session.Client
	id, err := d.server.Authenticator.Authenticate(ctx, c)
	if ctx.Err() != nil { // it may have been late all the same: nobody is told of a login any more
		return Identity{}, context.Cause(ctx)
	}
	return id, err
}

// handshakeEnd names what ended a handshake that did not come to a request.
func handshakeEnd(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return ClientGone
	case ReasonOf(err) == Refused: // ECONNRESET, of a client
		return ClientReset
	}
	return err
}

// expire wakes whoever waits on c.
func expire(c net.Conn) { _ = c.SetDeadline(time.Unix(1, 0)) }
