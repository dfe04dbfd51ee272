package proxytest

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Stream is a connection that can half-close and reset: a TCP connection, or
// one in memory.
type Stream interface {
	net.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// Reset closes c with an RST.
func Reset(c Stream) {
	_ = c.SetLinger(0) // of no effect on a connection that is gone already
	c.Close()
}

// Conn is one end of a connection in memory. It half-closes, resets, holds back
// a fast writer and keeps deadlines as TCP does, and blocks only in ways that
// testing/synctest sees, so that it works on a fake clock.
//
// Where systems differ it is as harsh as any of them: a reset throws away what
// the other end has not read yet, it is told of once (by ECONNRESET; then reads
// say EOF and writes EPIPE), and closing over unread bytes is a reset.
//
// All methods are safe for concurrent use.
type Conn struct {
	link          *link
	peer          *Conn
	local, remote netip.AddrPort

	// Guarded by link.mu.
	unread          []byte // what has arrived here
	ended           bool   // the peer said FIN
	finished        bool   // FIN was said here
	closed          bool   // Close was called here
	broken          bool   // the connection was reset
	told            bool   // and this end has been told
	abort           bool   // SetLinger(0) was called: Close resets
	readBy, writeBy time.Time
	taken           int // bytes that Read has returned
}

// link is what both ends share.
type link struct {
	mu      sync.Mutex
	changed sync.Cond
	room    int // bytes that may lie unread at each end
}

// Pipe returns the two ends of a connection between the addresses a and b.
// room is how many bytes may lie unread in each direction; with 1 every Read
// yields one byte.
func Pipe(a, b netip.AddrPort, room int) (atA, atB *Conn) {
	l := &link{room: room}
	l.changed.L = &l.mu
	atA = &Conn{link: l, local: a, remote: b}
	atB = &Conn{link: l, local: b, remote: a, peer: atA}
	atA.peer = atB
	return atA, atB
}

// LocalAddr returns a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr returns a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// Read blocks until there is something to read, the connection ends, or the
// deadline passes.
func (c *Conn) Read(p []byte) (int, error) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case passed(c.readBy):
			return 0, os.ErrDeadlineExceeded
		case c.broken && !c.told:
			c.told = true
			return 0, syscall.ECONNRESET
		case len(p) == 0:
			return 0, nil
		case len(c.unread) > 0:
			n := copy(p, c.unread)
			c.unread = c.unread[n:]
			c.taken += n
			c.link.changed.Broadcast()
			return n, nil
		case c.broken || c.ended:
			return 0, io.EOF
		}
		c.link.changed.Wait()
	}
}

// Write blocks until the other end has room for all of p, the connection ends,
// or the deadline passes. Bytes for an end that was closed are answered by a
// reset, which the next call learns of.
func (c *Conn) Write(p []byte) (written int, err error) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	for {
		if err := c.cannotWrite(); err != nil {
			return written, err
		}
		if len(p) == 0 {
			return written, nil
		}
		if c.peer.closed {
			c.reset()
			return written + len(p), nil
		}
		if n := min(len(p), c.link.room-len(c.peer.unread)); n > 0 {
			c.peer.unread = append(c.peer.unread, p[:n]...)
			p, written = p[n:], written+n
			c.link.changed.Broadcast()
			continue
		}
		c.link.changed.Wait()
	}
}

// cannotWrite is for callers that hold the lock.
func (c *Conn) cannotWrite() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case passed(c.writeBy):
		return os.ErrDeadlineExceeded
	case c.broken && !c.told:
		c.told = true
		return syscall.ECONNRESET
	case c.broken || c.finished:
		return syscall.EPIPE
	}
	return nil
}

// CloseWrite says FIN.
func (c *Conn) CloseWrite() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case c.broken:
		return syscall.ENOTCONN
	}
	c.finish()
	return nil
}

// Close says FIN and ends reading, or resets: after SetLinger(0), and where
// something that has arrived was not read.
func (c *Conn) Close() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if c.abort || len(c.unread) > 0 {
		c.peer.reset()
	}
	c.closed, c.unread = true, nil
	c.finish()
	return nil
}

// finish is for callers that hold the lock.
func (c *Conn) finish() {
	c.finished, c.peer.ended = true, true
	c.link.changed.Broadcast()
}

// reset lets an RST arrive at c. Its callers hold the lock.
func (c *Conn) reset() {
	c.broken, c.unread = true, nil
	c.link.changed.Broadcast()
}

// SetLinger with 0 turns Close into a reset.
func (c *Conn) SetLinger(seconds int) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.abort = seconds == 0
	return nil
}

// Peer returns the other end.
func (c *Conn) Peer() *Conn { return c.peer }

// Closed reports whether this end was closed.
func (c *Conn) Closed() bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.closed
}

// Taken returns how many bytes Read has returned so far.
func (c *Conn) Taken() int {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.taken
}

// Unread returns how many bytes have arrived and wait for a Read.
func (c *Conn) Unread() int {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return len(c.unread)
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readBy, &c.writeBy)
}

// SetReadDeadline bounds Read, also one that waits already.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBy) }

// SetWriteDeadline bounds Write, also one that waits already.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeBy) }

func (c *Conn) setDeadlines(t time.Time, which ...*time.Time) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	for _, deadline := range which {
		*deadline = t
	}
	c.link.changed.Broadcast()
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		time.AfterFunc(wait, func() {
			c.link.mu.Lock()
			defer c.link.mu.Unlock()
			c.link.changed.Broadcast()
		})
	}
	return nil
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }
