package relay

import "net"

// port is how the relay reads and writes one connection. One goroutine at a time may read, and another one write.
type port interface {
	// read waits for bytes and reads them into what it takes from b. While it waits it holds no memory, if that can be
	// had. Like an io.Reader it may return bytes and an error.
	read(b *buffer) (int, error)

	// write writes all of p, and tells d of each part that was written when it was.
	write(p []byte, d *direction) error
}

// newPort returns the best port for conn, up to a bound.
func newPort(conn net.Conn, best means) port {
	if best >= sockets {
		if s := newSocket(conn); s != nil {
			return s
		}
	}
	return stream{conn}
}

// stream is the port for any net.Conn. It holds a buffer while it waits, since there is no other way to learn whether
// there is something to read.
type stream struct{ conn net.Conn }

// streamPiece is how much a stream writes at once, in bytes. Within a piece no progress can be seen, so a piece must be
// written within the limits of the relay.
const streamPiece = 64 << 10

func (s stream) read(b *buffer) (int, error) { return s.conn.Read(b.take()) }

func (s stream) write(p []byte, d *direction) error {
	for len(p) > 0 {
		n, err := s.conn.Write(p[:min(len(p), streamPiece)])
		d.moved(n)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// layer returns the outermost layer of conn that has the methods of T: conn itself, or what it is wrapped around.
func layer[T any](conn net.Conn) (T, bool) {
	for {
		if t, ok := conn.(T); ok {
			return t, true
		}
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			var none T
			return none, false
		}
		conn = outer.NetConn()
	}
}

// resetOnClose makes the Close of conn, which is its owner's, send a reset and not a FIN. Without SO_LINGER there are no
// resets; and where setting it fails, the connection is gone.
func resetOnClose(conn net.Conn) {
	if c, ok := layer[interface{ SetLinger(seconds int) error }](conn); ok {
		_ = c.SetLinger(0)
	}
}
