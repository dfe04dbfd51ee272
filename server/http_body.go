package server

import (
	"errors"
	"io"
)

// body finds the end of a message's body in the bytes that arrive. It does no
// I/O and copies nothing.
type body interface {
	// next is given what has arrived and was not taken. It answers which part
	// of it is content, and how many bytes it took in all; it takes some unless
	// it needs more to arrive, or the body is over.
	next(arrived []byte) (content []byte, took int, err error)
	// over reports whether the body has ended.
	over() bool
	// end is told that the connection has ended, and says what that means: nil
	// where it is how the body ends.
	end() error
}

// sizedBody is a body whose length was told before.
type sizedBody struct{ left int64 }

func (s *sizedBody) next(arrived []byte) ([]byte, int, error) {
	n := int(min(int64(len(arrived)), s.left))
	s.left -= int64(n)
	return arrived[:n], n, nil
}

func (s *sizedBody) over() bool { return s.left == 0 }
func (s *sizedBody) end() error { return io.ErrUnexpectedEOF }

// openBody is one that lasts until the connection ends.
type openBody struct{ ended bool }

func (o *openBody) next(arrived []byte) ([]byte, int, error) { return arrived, len(arrived), nil }
func (o *openBody) over() bool                               { return o.ended }

func (o *openBody) end() error {
	o.ended = true
	return nil
}

// Bounds of the line before each chunk.
const (
	maxChunkLine   = 1 << 10 // bytes, with what is behind the size
	maxChunkDigits = 15      // which an int64 holds
)

// chunkedBody reads the chunked coding (RFC 9112, section 7.1) and nothing that
// is merely like it: lines end with CR LF, sizes have digits only, extensions
// are skipped within a bound.
type chunkedBody struct {
	state   chunkState
	left    int64  // of the chunk's size, or what of the chunk is still to come
	line    int    // bytes of the size line so far
	trailer []byte // what has come of the trailer section
	fields  fields // the trailers, once it is over
}

type chunkState int

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkOver
)

var errChunk = errors.New("a body whose chunks are not framed as they must be")

func (c *chunkedBody) over() bool { return c.state == chunkOver }
func (c *chunkedBody) end() error { return io.ErrUnexpectedEOF }

func (c *chunkedBody) next(arrived []byte) (content []byte, took int, err error) {
	for took < len(arrived) && c.state != chunkOver {
		if c.state == chunkData {
			n := int(min(int64(len(arrived)-took), c.left))
			if c.left -= int64(n); c.left == 0 {
				c.state = chunkDataCR
			}
			return arrived[took : took+n], took + n, nil
		}
		if err := c.step(arrived[took]); err != nil {
			return nil, took, err
		}
		took++
	}
	return nil, took, nil
}

// step takes a byte of the framing.
func (c *chunkedBody) step(b byte) error {
	switch c.state {
	case chunkSize, chunkExtension:
		return c.stepLine(b)
	case chunkSizeLF:
		c.state = chunkData
		if c.left == 0 {
			c.state = chunkTrailer
		}
		return only(b, '\n')
	case chunkDataCR:
		c.state = chunkDataLF
		return only(b, '\r')
	case chunkDataLF:
		c.state, c.line = chunkSize, 0
		return only(b, '\n')
	}
	return c.stepTrailer(b)
}

func only(got, want byte) error {
	if got != want {
		return errChunk
	}
	return nil
}

// stepLine takes a byte of the line with the size.
func (c *chunkedBody) stepLine(b byte) error {
	c.line++
	digit, isDigit := hexDigit(b)
	switch {
	case c.line > maxChunkLine:
	case b == '\r' && c.line > 1:
		c.state = chunkSizeLF
		return nil
	case c.state == chunkExtension && (b == '\t' || !isControl(b)):
		return nil
	case c.state == chunkSize && isDigit && c.line <= maxChunkDigits:
		c.left = c.left<<4 | digit
		return nil
	case c.state == chunkSize && b == ';' && c.line > 1:
		c.state = chunkExtension
		return nil
	}
	return errChunk
}

func hexDigit(b byte) (int64, bool) {
	switch {
	case b-'0' < 10:
		return int64(b - '0'), true
	case b|0x20-'a' < 6:
		return int64(b|0x20-'a') + 10, true
	}
	return 0, false
}

func (c *chunkedBody) stepTrailer(b byte) (err error) {
	c.trailer = append(c.trailer, b)
	n := len(c.trailer)
	switch {
	case n > maxTrailer:
		return errHeadSize
	case b == '\n' && (n < 2 || c.trailer[n-2] != '\r'):
		return errChunk
	case b != '\n' || n != 2 && (n < 4 || c.trailer[n-3] != '\n'):
		return nil
	}
	c.fields, err = parseFields(string(c.trailer))
	c.state, c.trailer = chunkOver, nil
	return err
}
