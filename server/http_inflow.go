package server

import (
	"bytes"
	"errors"
	"net"
)

// Sizes of the reads, in bytes: while a head is awaited, and while a body moves.
const (
	headRead = 2 << 10
	bodyRead = 32 << 10
)

// inflow is what arrives on a connection and was not taken yet. One goroutine
// at a time may use it.
type inflow struct {
	conn  net.Conn
	buf   []byte // has arrived and was not taken
	store []byte // the memory that buf lies in, from its start
	err   error  // came together with the last bytes
}

// fill waits for more, with room for a read of size bytes.
func (in *inflow) fill(size int) error {
	if in.err != nil {
		return in.err
	}
	in.makeRoom(size)
	n, err := in.conn.Read(in.buf[len(in.buf):cap(in.buf)])
	in.buf = in.buf[:len(in.buf)+n]
	if n > 0 {
		in.err = err
		return nil
	}
	return err
}

func (in *inflow) makeRoom(size int) {
	if len(in.buf) == 0 && cap(in.store) >= size {
		in.buf = in.store[:0]
		return
	}
	if cap(in.buf)-len(in.buf) >= max(1, size/2) {
		return
	}
	in.store = make([]byte, 0, max(size, 2*len(in.buf)))
	in.buf = append(in.store, in.buf...)
}

// take drops the first n bytes.
func (in *inflow) take(n int) { in.buf = in.buf[n:] }

// set makes b what has arrived: somebody else has read meanwhile.
func (in *inflow) set(b []byte) { in.buf, in.store = b, nil }

// letGo gives up memory that holds nothing.
func (in *inflow) letGo() {
	if len(in.buf) == 0 {
		in.set(nil)
	}
}

// begun reports whether a request has begun to arrive. It takes one empty line
// before that, which old clients put behind a body (RFC 9112, section 2.2), and
// notes that in empty.
func (in *inflow) begun(empty *bool) bool {
	if !*empty && bytes.HasPrefix(in.buf, []byte("\r\n")) {
		*empty = true
		in.take(2)
		in.letGo()
	}
	return len(in.buf) > 0 && (*empty || string(in.buf) != "\r")
}

// head waits for a whole head and takes it. It fails as soon as there is a byte
// that no head has, or more than fits.
func (in *inflow) head() ([]byte, error) {
	for seen := 0; ; {
		n, err := wholeHead(in.buf, seen)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			head := in.buf[:n]
			in.take(n)
			return head, nil
		}
		seen = len(in.buf)
		if err := in.fill(headRead); err != nil {
			return nil, err
		}
	}
}

// wholeHead returns how many bytes the head has that b begins with, or 0 while it
// has not come whole. The first seen bytes are known to be of it, and not its end.
func wholeHead(b []byte, seen int) (int, error) {
	n := headEnd(b, seen)
	switch {
	case n > 0:
		return n, nil
	case bytes.ContainsFunc(b[seen:], notOfHead):
		return 0, errHeadBytes
	case len(b) > maxHead:
		return 0, errHeadSize
	}
	return 0, nil
}

var errHeadBytes = errors.New("a head with control characters")

func notOfHead(r rune) bool { return r < ' ' && r != '\r' && r != '\n' && r != '\t' }
