package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	request *Request // the handshake is over: this awaits its answer
	refusal error    // the handshake is over: send reply, then close
	reply   []byte
}

func (s step) over() bool { return s.request != nil || s.refusal != nil }

// handshakeBuffer holds the longest request whole: head, userid, 4a host.
const handshakeBuffer = 8 + socks.MaxUserID + 1 + socks.MaxHost + 1

// detect chooses the handshake by the first byte. What is of no protocol served
// here gets no answer: nothing is said to a scanner.
func detect(first byte, l *Listener) (handshake, error) {
	if first == socks.Version4 && (l.speaks(SOCKS4) || l.speaks(SOCKS4a)) {
		return &socks4{listener: l}, nil
	}
	return nil, fmt.Errorf("%w: first byte 0x%02x", Garbage, first)
}

// shake drives a handshake over a blocking connection, within one time limit
// for the whole of it. It returns the step that ended it, and the bytes behind
// the request.
func (s *Server) shake(ctx context.Context, c net.Conn, l *Listener) (step, []byte, error) {
	if err := c.SetDeadline(time.Now().Add(s.Timeouts.withDefaults().Handshake)); err != nil {
		return step{}, nil, err
	}
	stop := context.AfterFunc(ctx, func() { expire(c) })
	next, rest, err := drive(c, l)
	if !stop() {
		return step{}, nil, context.Cause(ctx)
	}
	if err != nil {
		return step{}, nil, handshakeEnd(err)
	}
	return next, slices.Clone(rest), c.SetDeadline(time.Time{}) // the clone lets go of the buffer
}

// drive reads and feeds until the handshake is over.
func drive(c net.Conn, l *Listener) (step, []byte, error) {
	var h handshake
	buf := make([]byte, 0, handshakeBuffer)
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if h == nil && len(buf) > 0 {
			var garbage error
			if h, garbage = detect(buf[0], l); garbage != nil {
				return step{}, nil, garbage
			}
		}
		if n > 0 {
			took, next := h.feed(buf)
			if next.over() {
				return next, buf[took:], nil
			}
			buf = buf[:copy(buf, buf[took:])]
		}
		if err != nil {
			return step{}, nil, err
		}
	}
}

// handshakeEnd names what ended a handshake that did not come to a request.
func handshakeEnd(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return HandshakeSlow
	case errors.Is(err, io.EOF):
		return ClientGone
	case ReasonOf(err) == Refused: // ECONNRESET, of a client
		return ClientReset
	}
	return err
}

// expire wakes whoever waits on c.
func expire(c net.Conn) { _ = c.SetDeadline(time.Unix(1, 0)) }
