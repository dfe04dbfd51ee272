package admin

import (
	"net"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// mostConns bounds the connections to the dashboard that are open at once: whoever
	// reaches its address can make some, and the process has its descriptors for the
	// clients of the proxy. More wait in the system's queue. The pages that are kept up to
	// date (mostWatching) are among them.
	mostConns = 128
	// writeAtOnce is how many bytes a client has to take within requestTime.
	writeAtOnce = 16 << 10
)

// Bounded returns the socket for strangers: it has no more than some connections open at
// once, and ends one whose client does not read what it has asked for. Where there is TLS,
// it is above.
func Bounded(socket net.Listener) net.Listener {
	return bounded{netutil.LimitListener(socket, mostConns)}
}

type bounded struct{ net.Listener }

func (b bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return impatient{c}, nil
}

// impatient is a connection that waits for its client to read, and not for ever.
type impatient struct{ net.Conn }

func (c impatient) Write(b []byte) (n int, err error) {
	for first := true; first || n < len(b); first = false {
		if err := c.SetWriteDeadline(time.Now().Add(requestTime)); err != nil {
			return n, err
		}
		wrote, err := c.Conn.Write(b[n:min(len(b), n+writeAtOnce)])
		n += wrote
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
