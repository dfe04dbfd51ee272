package datagram

import (
	"bufio"
	"errors"
	"io"
)

// Reader reads frames from a stream. One goroutine may use it.
type Reader struct {
	stream *bufio.Reader
	last   int // bytes of the frame before, which its user has had
}

// NewReader returns a Reader, which holds 64 KiB.
func NewReader(r io.Reader) *Reader {
	return &Reader{stream: bufio.NewReaderSize(r, header+MaxPayload)}
}

// Next returns the next frame. Its payload is good until the next call. It blocks as
// the stream does. io.EOF is an end between two frames.
func (r *Reader) Next() (Frame, error) {
	if _, err := r.stream.Discard(r.last); err != nil {
		return Frame{}, err
	}
	r.last = 0
	for want := header; ; {
		b, err := r.stream.Peek(want)
		f, n, bad := Parse(b)
		switch {
		case bad != nil:
			return Frame{}, bad
		case n <= len(b):
			r.last = n
			return f, nil
		case errors.Is(err, io.EOF) && len(b) > 0:
			return Frame{}, io.ErrUnexpectedEOF
		case err != nil:
			return Frame{}, err
		}
		want = n
	}
}
