package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
)

// endpoint is one side as both directions see it: up reads the client's and writes the target's.
type endpoint struct {
	conn  net.Conn
	port  port
	reset error // what it is called when this side fails
}

// fault names err, which reading or writing e yielded, as e's.
func (e *endpoint) fault(err error) error { return faultOf(e.reset, err) }

// faultOf names err as that of the side whose reset this is.
func faultOf(reset, err error) error { return fmt.Errorf("%w: %w", reset, err) }

// pendingError returns the error that the next read of e would meet behind what is still unread, as far as it can be told.
func (e *endpoint) pendingError() error {
	if c, ok := e.conn.(interface{ PendingError() error }); ok {
		return c.PendingError()
	}
	return pendingError(e.conn)
}

// direction moves bytes one way. It has at most one buffer, and writes all of it before it reads again: that is the
// whole of back-pressure.
type direction struct {
	session  *session
	from, to *endpoint
	head     []byte
	meter    *atomic.Int64
	buf      buffer
	pacer    Pacer // nil: as fast as it goes

	// paused is set while d waits because of its pacer: that is no silence.
	paused atomic.Bool

	// deaf is set while d does not read: it would not notice a reset by from, so the session looks instead.
	deaf atomic.Bool
}

// run moves bytes until FIN or a fault.
func (d *direction) run() { d.session.leave(d.relay()) }

// relay returns nil after a FIN that was passed on, and after a fault of the program, which it has made the session's end.
func (d *direction) relay() error {
	defer d.session.contain()
	defer d.buf.giveBack()
	if err := d.begin(); err != nil {
		return err
	}
	for {
		d.room()
		n, err := d.from.port.read(&d.buf)
		if n > 0 {
			if err := d.send(d.buf.filled(n)); err != nil {
				return err
			}
		}
		if n > 0 && d.pacer != nil {
			d.pause(n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return d.closeWrite()
		case err != nil:
			return d.from.fault(err)
		}
	}
}

// send writes all of p.
func (d *direction) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	d.session.touch() // what was read counts, too, lest a limit fires between a read and its write
	d.session.watch(d)
	defer d.deaf.Store(false)
	if err := d.to.port.write(p, d); err != nil {
		return d.to.fault(err)
	}
	return nil
}

// moved notes that n more bytes were written.
func (d *direction) moved(n int) {
	d.meter.Add(int64(n))
	d.session.touch()
}

// closeWrite passes on the FIN of from, after its last byte.
func (d *direction) closeWrite() error {
	if !d.session.halfClose(d) {
		return nil
	}
	if c, ok := d.to.conn.(interface{ CloseWrite() error }); ok {
		if err := c.CloseWrite(); err != nil {
			return d.to.fault(err)
		}
	}
	return nil
}
