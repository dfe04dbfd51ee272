package proxytest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP2 is CONNECT of HTTP/2. Its streams must be of [OverHTTP2].
func HTTP2() Protocol {
	return Protocol{
		Name: "h2",
		Opening: func(target netip.AddrPort) []byte {
			return OpenHTTP2(1, false, ":method", "CONNECT", ":authority", target.String())
		},
		Answer: answerHTTP,
	}
}

// OpenHTTP2 is all that a client of HTTP/2 sends up to its first request, whose
// fields are name, value, name, value and so on.
func OpenHTTP2(id uint32, ends bool, fields ...string) []byte {
	b := bytes.NewBufferString(http2.ClientPreface)
	framer := http2.NewFramer(b, nil)
	_ = framer.WriteSettings() // into memory: it cannot fail
	_ = framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: Section(fields...), EndStream: ends, EndHeaders: true,
	})
	return b.Bytes()
}

// Section encodes fields, given as name, value, name, value and so on, without
// using the table that both ends keep.
func Section(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSizeLimit(0)
	b.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return b.Bytes()
}

// OverHTTP2 is a client's stream of HTTP/2 over a connection, for a client that
// knows nothing of frames. What is written goes out as it is up to the end of
// the first HEADERS frame, and from there on as DATA. What is read is the answer
// in the form of HTTP/1.1, then its content.
func OverHTTP2(c Stream) Stream {
	s := &http2Client{Stream: c, room: 1<<16 - 1, connRoom: 1<<16 - 1}
	s.changed.L = &s.mu
	s.framer = http2.NewFramer(c, c)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return s
}

type http2Client struct {
	Stream
	writing sync.Mutex // one frame at a time
	framer  *http2.Framer

	mu             sync.Mutex
	changed        sync.Cond
	opening        []byte // what has gone out so far; nil once the request has
	id             uint32 // of the request; 0: it has not gone out yet
	room, connRoom int64  // what the proxy lets us send
	over           error  // the reading has ended
	ended          bool   // END_STREAM was said
	abort, closed  bool

	in []byte // was received and not read; of the goroutine that reads
}

// Read yields the answer.
func (s *http2Client) Read(p []byte) (int, error) {
	for len(s.in) == 0 {
		if err := s.isOver(); err != nil {
			return 0, err
		}
		if err := s.receive(); err != nil {
			s.end(err)
		}
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *http2Client) isOver() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *http2Client) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over = err; errors.Is(err, errStreamEnd) {
		s.over = io.EOF
	}
	s.changed.Broadcast()
}

// receive takes the next frame.
func (s *http2Client) receive() error {
	f, err := s.framer.ReadFrame()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF // a preface that was no good is answered in HTTP/1.1, which makes half a frame
	}
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		s.in = fmt.Appendf(s.in, "HTTP/1.1 %s \r\n", f.PseudoValue("status"))
		for _, field := range f.RegularFields() {
			if field.Name == "content-length" {
				s.in = fmt.Appendf(s.in, "Content-Length: %s\r\n", field.Value)
			}
		}
		s.in = append(s.in, "\r\n"...)
		if f.StreamEnded() {
			return errStreamEnd
		}
	case *http2.DataFrame:
		s.in = append(s.in, f.Data()...)
		if f.StreamEnded() {
			return errStreamEnd
		}
		return s.credit(f.StreamID, f.Length)
	case *http2.RSTStreamFrame:
		return StreamReset(f.ErrCode)
	case *http2.WindowUpdateFrame:
		s.grant(f)
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			s.mu.Lock()
			s.room += int64(v) - (1<<16 - 1)
			s.changed.Broadcast()
			s.mu.Unlock()
		}
	case *http2.PingFrame:
		return errPinged
	}
	return nil
}

// What the frames of a proxy can say.
var (
	errStreamEnd = errors.New("proxytest: END_STREAM")
	errPinged    = errors.New("proxytest: a PING has come back") // it has taken all that was sent before
)

// StreamReset is how a stream ends that the proxy resets. It wraps ECONNRESET.
type StreamReset http2.ErrCode

func (r StreamReset) Error() string { return "the stream was reset: " + http2.ErrCode(r).String() }

// Unwrap returns what a reset of TCP is.
func (r StreamReset) Unwrap() error { return syscall.ECONNRESET }

func (s *http2Client) grant(f *http2.WindowUpdateFrame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.StreamID == 0 {
		s.connRoom += int64(f.Increment)
	} else {
		s.room += int64(f.Increment)
	}
	s.changed.Broadcast()
}

func (s *http2Client) credit(id, size uint32) error {
	if size == 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return errors.Join(s.framer.WriteWindowUpdate(0, size), s.framer.WriteWindowUpdate(id, size))
}

// Write sends the opening, and then content.
func (s *http2Client) Write(p []byte) (int, error) {
	written := 0
	if s.stream() == 0 {
		n, err := s.open(p)
		if err != nil {
			return n, err
		}
		p, written = p[n:], n
	}
	for len(p) > 0 {
		n, err := s.await(len(p))
		if err != nil {
			return written, err
		}
		if err := s.data(p[:n], false); err != nil {
			return written, err
		}
		p, written = p[n:], written+n
	}
	return written, nil
}

func (s *http2Client) stream() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// open sends what of p belongs to the opening.
func (s *http2Client) open(p []byte) (int, error) {
	s.mu.Lock()
	before := len(s.opening)
	s.opening = append(s.opening, p...)
	id, size := opened(s.opening)
	n := len(p)
	if id != 0 {
		n = size - before
		s.opening = nil
	}
	s.mu.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	n, err := s.Stream.Write(p[:n])
	s.mu.Lock()
	s.id = id
	s.mu.Unlock()
	return n, err
}

// opened finds the end of the first whole HEADERS frame.
func opened(b []byte) (id uint32, size int) {
	at := len(http2.ClientPreface)
	for at+9 <= len(b) {
		length := int(b[at])<<16 | int(b[at+1])<<8 | int(b[at+2])
		kind, flags := http2.FrameType(b[at+3]), http2.Flags(b[at+4])
		id := binary.BigEndian.Uint32(b[at+5:]) & (1<<31 - 1)
		if at += 9 + length; at > len(b) {
			break
		}
		if kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndHeaders) && id != 0 {
			return id, at
		}
	}
	return 0, 0
}

// await waits until some of n bytes may be sent, and takes them from the window.
func (s *http2Client) await(n int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.closed || min(s.room, s.connRoom) <= 0 {
		if s.closed {
			return 0, net.ErrClosed
		}
		if s.over == nil {
			s.changed.Wait()
			continue
		}
		if !errors.Is(s.over, io.EOF) {
			return 0, s.over
		}
		if err := s.receiveUnlocked(); err != nil { // behind END_STREAM nobody reads any more
			return 0, err
		}
	}
	n = int(min(int64(n), s.room, s.connRoom, 16<<10))
	s.room -= int64(n)
	s.connRoom -= int64(n)
	return n, nil
}

func (s *http2Client) receiveUnlocked() error {
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.receive()
}

func (s *http2Client) data(p []byte, ends bool) error {
	id := s.stream()
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.framer.WriteData(id, ends, p)
}

// CloseWrite says END_STREAM; before the request it ends the connection.
func (s *http2Client) CloseWrite() error {
	if s.stream() == 0 {
		return s.Stream.CloseWrite()
	}
	s.mu.Lock()
	ended := s.ended
	s.ended = true
	s.mu.Unlock()
	if ended {
		return nil
	}
	return s.data(nil, true)
}

// SetLinger with 0 turns Close into a reset.
func (s *http2Client) SetLinger(seconds int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort = seconds == 0
	return s.Stream.SetLinger(seconds)
}

// Close ends the stream, waits until the proxy knows of it, and closes the
// connection: closing it over unread bytes could lose what was sent.
func (s *http2Client) Close() error {
	s.mu.Lock()
	id, abort, done := s.id, s.abort, s.closed
	s.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	if id != 0 && !done {
		if abort {
			s.writing.Lock()
			_ = s.framer.WriteRSTStream(id, http2.ErrCodeCancel) // where it fails, nothing is to be said
			s.writing.Unlock()
		} else {
			_ = s.CloseWrite()
		}
		s.flush()
	}
	return s.Stream.Close()
}

// flush waits until the proxy has taken what was sent.
func (s *http2Client) flush() {
	s.writing.Lock()
	err := s.framer.WritePing(false, [8]byte{})
	s.writing.Unlock()
	for err == nil || errors.Is(err, errStreamEnd) || errors.As(err, new(StreamReset)) {
		err = s.receive()
	}
}
