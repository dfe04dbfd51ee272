package relay

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memPair returns the two ends of a connection in memory that half-closes, resets and keeps deadlines as TCP does. Up to
// room bytes lie unread in each direction.
func memPair(room int) (a, b *memConn) {
	ab, ba := newMemPipe(room), newMemPipe(room)
	return &memConn{in: ba, out: ab}, &memConn{in: ab, out: ba}
}

// memConn is one end of it.
type memConn struct {
	in, out *memPipe

	mu    sync.Mutex
	abort bool  // Close resets
	sizes []int // of the buffers that were given to Read
}

func (c *memConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.sizes = append(c.sizes, len(p))
	c.mu.Unlock()
	return c.in.read(p)
}

func (c *memConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *memConn) CloseWrite() error {
	c.out.finish()
	return nil
}

// Close says FIN, or resets after SetLinger(0).
func (c *memConn) Close() error {
	c.mu.Lock()
	abort := c.abort
	c.mu.Unlock()
	if abort {
		c.in.breakOff()
		c.out.breakOff()
	}
	c.out.finish()
	return nil
}

func (c *memConn) SetLinger(seconds int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abort = seconds == 0
	return nil
}

func (c *memConn) reset() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (c *memConn) readSizes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.sizes...)
}

func (c *memConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (c *memConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// memPipe is one direction of it.
type memPipe struct {
	mu              sync.Mutex
	changed         sync.Cond
	data            []byte
	room            int
	fin, broken     bool
	readBy, writeBy time.Time
}

func newMemPipe(room int) *memPipe {
	p := &memPipe{room: room}
	p.changed.L = &p.mu
	return p
}

func (p *memPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.broken:
			return 0, syscall.ECONNRESET
		case expired(p.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p.data) > 0:
			n := copy(b, p.data)
			p.data = p.data[n:]
			p.changed.Broadcast()
			return n, nil
		case p.fin:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *memPipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.broken:
			return written, syscall.ECONNRESET
		case p.fin:
			return written, syscall.EPIPE
		case expired(p.writeBy):
			return written, os.ErrDeadlineExceeded
		case len(b) == 0:
			return written, nil
		}
		if n := min(len(b), p.room-len(p.data)); n > 0 {
			p.data = append(p.data, b[:n]...)
			b, written = b[n:], written+n
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

func (p *memPipe) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fin = true
	p.changed.Broadcast()
}

func (p *memPipe) breakOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken, p.data = true, nil
	p.changed.Broadcast()
}

// setDeadline sets *which, a field of p.
func (p *memPipe) setDeadline(which *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*which = t
	p.changed.Broadcast()
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.changed.Broadcast()
		})
	}
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }
