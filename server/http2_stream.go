package server

import (
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// http2Stream is one request of an HTTP/2 connection, as a connection of its
// own on which a client speaks HTTP/1.1: what is read is the request in that
// form, and an answer that is written in that form goes out in frames. Behind a
// CONNECT that was granted both directions are the tunnel's bytes.
//
// END_STREAM is FIN and RST_STREAM a reset, both ways. Its fields are guarded by
// the mutex of the connection.
type http2Stream struct {
	conn    *http2Conn
	id      uint32
	changed sync.Cond

	// The request.
	head    http2Head
	refusal error    // what is wrong with the head: reads return it
	ready   []byte   // is in the form of HTTP/1.1, to be read first
	in      []byte   // content that was not read yet
	got     int64    // content that has come
	window  int      // what the client may still send
	owed    int      // was read, and is to be added to window
	trailer fields   // behind the content
	inEnded bool     // the client said END_STREAM
	tail    bool     // the end of the chunks was made ready
	readBy  deadline // guards Read

	// The answer.
	answer   []byte // what was written of its head so far
	body     body   // what follows the head; nil: the head has not come yet
	room     int64  // what the client lets us send; it can be negative
	outEnded bool   // END_STREAM was said
	writeBy  deadline

	fault  error // it was reset, or the connection is gone
	abort  bool  // Close is to be a reset
	closed bool
}

// deadline is one that wakes who waits when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(at time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, wake)
	}
}

// Read yields the request in the form of HTTP/1.1.
func (s *http2Stream) Read(p []byte) (int, error) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case s.fault != nil:
			return 0, s.fault
		case len(s.ready) > 0:
			n := copy(p, s.ready)
			if s.ready = s.ready[n:]; len(s.ready) == 0 {
				s.ready = nil
			}
			return n, nil
		case s.refusal != nil:
			return 0, s.refusal
		case len(s.in) > 0 && s.head.framed:
			s.makeChunk()
			continue
		case len(s.in) > 0:
			n := copy(p, s.in)
			s.consumed(n)
			return n, nil
		case s.inEnded && s.head.framed && !s.tail:
			s.tail = true
			s.ready = append(s.trailer.append([]byte("0\r\n")), "\r\n"...)
			continue
		case s.inEnded:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

// makeChunk makes content ready to be read as a chunk.
func (s *http2Stream) makeChunk() {
	n := min(len(s.in), http2Frame)
	s.ready = strconv.AppendInt(nil, int64(n), 16)
	s.ready = append(append(append(s.ready, "\r\n"...), s.in[:n]...), "\r\n"...)
	s.consumed(n)
}

// consumed drops the first n bytes of content, and lets the client send as many.
func (s *http2Stream) consumed(n int) {
	if s.in = s.in[n:]; len(s.in) == 0 {
		s.in = nil
	}
	s.conn.credit(n)
	if s.owed += n; s.owed < http2StreamWindow/2 || s.inEnded {
		return
	}
	_ = s.conn.frames.WriteWindowUpdate(s.id, uint32(s.owed)) // into memory: it cannot fail
	s.window += s.owed
	s.owed = 0
	s.conn.pending.Signal()
}

// arrived takes content of a DATA frame. It reports false where the client sends
// more than it has said it would.
func (s *http2Stream) arrived(content []byte) bool {
	s.got += int64(len(content))
	if s.head.length >= 0 && s.head.method != connectMethod && s.got > s.head.length {
		return false
	}
	if s.closed || s.refusal != nil {
		s.conn.credit(len(content)) // nobody reads it
		return true
	}
	s.in = append(s.in, content...)
	s.changed.Broadcast()
	return true
}

// end takes END_STREAM. It reports false where content is missing.
func (s *http2Stream) end(trailer fields) bool {
	if s.head.length >= 0 && s.head.method != connectMethod && s.got < s.head.length {
		return false
	}
	s.inEnded, s.trailer = true, trailer
	s.changed.Broadcast()
	return true
}

// fail makes err what both directions meet from now on, and throws away what
// nobody has read, as a reset does.
func (s *http2Stream) fail(err error) {
	if s.fault == nil {
		s.fault = err
	}
	s.conn.credit(len(s.in))
	s.in, s.ready = nil, nil
	s.changed.Broadcast()
}

// reset ends the stream from our side.
func (s *http2Stream) reset(code http2.ErrCode) {
	if s.fault == nil {
		_ = s.conn.frames.WriteRSTStream(s.id, code) // into memory: it cannot fail
		s.conn.pending.Signal()
	}
	s.fail(syscall.ECONNRESET)
}

// PendingError returns the reset that the next call would meet, if one has come.
func (s *http2Stream) PendingError() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.fault
}

// CloseWrite says END_STREAM, where the answer lasts until then.
func (s *http2Stream) CloseWrite() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.fault != nil:
		return s.fault
	case s.outEnded:
		return nil
	}
	if _, open := s.body.(*openBody); !open {
		return syscall.EPIPE // there is more to come: only a reset says that it does not
	}
	_, err := s.send(nil, true)
	return err
}

// SetLinger with 0 turns Close into a reset.
func (s *http2Stream) SetLinger(seconds int) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.abort = seconds == 0
	return nil
}

// Close ends the stream. An answer that has not come to its end becomes a reset.
func (s *http2Stream) Close() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	switch {
	case s.outEnded && !s.inEnded && !s.abort:
		s.reset(http2.ErrCodeNo) // RFC 9113, section 8.1: it need not send the rest
	case s.outEnded && s.inEnded:
	case s.head.method == connectMethod:
		s.reset(http2.ErrCodeConnect) // section 8.5
	default:
		s.reset(http2.ErrCodeInternal)
	}
	s.closed = true
	s.readBy.set(time.Time{}, nil)
	s.writeBy.set(time.Time{}, nil)
	s.fail(net.ErrClosed)
	return nil
}

// LocalAddr is that of the connection.
func (s *http2Stream) LocalAddr() net.Addr { return s.conn.conn.LocalAddr() }

// RemoteAddr is that of the connection.
func (s *http2Stream) RemoteAddr() net.Addr { return s.conn.conn.RemoteAddr() }

// SetDeadline sets both deadlines.
func (s *http2Stream) SetDeadline(t time.Time) error { return s.setDeadlines(t, &s.readBy, &s.writeBy) }

// SetReadDeadline bounds Read, also one that waits already.
func (s *http2Stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, &s.readBy) }

// SetWriteDeadline bounds Write, also one that waits already.
func (s *http2Stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.writeBy) }

func (s *http2Stream) setDeadlines(t time.Time, which ...*deadline) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	for _, d := range which {
		d.set(t, s.wake)
	}
	s.changed.Broadcast()
	return nil
}

// wake lets who waits look again.
func (s *http2Stream) wake() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.changed.Broadcast()
}
