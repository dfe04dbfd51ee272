package client

import (
	"net"

	"github.com/sallyport/sallyport/socks"
)

// tcpConn is a connection through the proxy that keeps all that a *net.TCPConn
// can do, so that half-close works and io.Copy need not pass through user space.
type tcpConn struct {
	*net.TCPConn
	remote net.Addr
}

func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

// plainConn is a connection through a proxy that is not reached over plain TCP.
type plainConn struct {
	net.Conn
	remote net.Addr
}

func (c *plainConn) RemoteAddr() net.Addr { return c.remote }

type writeCloser interface{ CloseWrite() error }

// halfConn is a plainConn that can be closed for writing alone, as TLS can.
type halfConn struct {
	plainConn
	writeCloser
}

// newConn makes a granted connection look like one to remote. The result owns c.
func newConn(c net.Conn, remote net.Addr) net.Conn {
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{c, remote}
	case *tcpConn: // the proxy is itself reached through a proxy
		return &tcpConn{c.TCPConn, remote}
	case interface {
		net.Conn
		writeCloser
	}:
		return &halfConn{plainConn{c, remote}, c}
	}
	return &plainConn{c, remote}
}

// Addr is an address by its name, which only the proxy has looked up.
type Addr struct {
	Transport string // tcp or udp
	HostPort  string // host:port
}

// Network returns tcp or udp.
func (a Addr) Network() string { return a.Transport }

func (a Addr) String() string { return a.HostPort }

func netAddr(a socks.Addr) net.Addr {
	if a.IP.IsValid() {
		return &net.TCPAddr{IP: a.IP.AsSlice(), Port: int(a.Port)}
	}
	return Addr{"tcp", a.String()}
}
