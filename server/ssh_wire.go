package server

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync/atomic"
)

// sshWire is what x/crypto/ssh reads and writes: the client's connection, with
// what was read ahead. It is not closed through it: that is for its owner.
type sshWire struct {
	rewound
	read     *bufio.Reader // what has arrived: x/crypto/ssh asks for a packet in small pieces
	greeting string        // of the client, as far as it was read ahead
	skip     int           // bytes of the greeting that the client has had already
	moved    atomic.Int64  // bytes, both ways
}

// sshWireBuffer is what is read at once: several packets of a client that sends much.
const sshWireBuffer = 64 << 10

func newSSHWire(x *exchange) *sshWire {
	w := &sshWire{rewound: rewound{Conn: x.conn, head: x.head}, greeting: string(x.head)}
	w.read = bufio.NewReaderSize(&w.rewound, sshWireBuffer)
	if x.greeted {
		w.skip = len(sshVersion) + len("\r\n")
	}
	x.head = nil
	return w
}

// Read yields what the client has sent.
func (w *sshWire) Read(b []byte) (int, error) {
	n, err := w.read.Read(b)
	w.moved.Add(int64(n))
	return n, err
}

// Write leaves out what was said before. Only the first call, which greets, is
// made while skip is over 0.
func (w *sshWire) Write(b []byte) (int, error) {
	n := min(w.skip, len(b))
	w.skip -= n
	if n == len(b) {
		return n, nil
	}
	sent, err := w.Conn.Write(b[n:])
	w.moved.Add(int64(sent))
	return n + sent, err
}

// cut ends all that reads and writes.
func (w *sshWire) cut() {
	expire(w.Conn)
}

// Close is what x/crypto/ssh does when it has no use for the connection any more.
func (w *sshWire) Close() error {
	w.cut()
	return nil
}

// secure reports whether the connection is over TLS.
func (c *sshConn) secure() bool {
	_, secure := c.conn.(*tls.Conn)
	return secure
}

var _ net.Conn = (*sshWire)(nil)
