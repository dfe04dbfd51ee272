package client

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// Listen asks the proxy to wait for one connection from the application server
// at address ("host:port", those of the primary connection: pass its
// RemoteAddr), and returns when the proxy does. network and host are as for
// DialContext. ctx bounds only Listen itself.
//
// The listener's Addr is what to tell the application server: where the proxy
// waits. If the proxy left out its IP address, it is the one by which the proxy
// was reached (the proxy's host name, if that is all that is known).
//
// Accept blocks until the proxy says that the connection stands, and returns it;
// the proxy usually gives up after two minutes. It accepts exactly once: later
// calls, and calls after Close, return an error that matches net.ErrClosed. A
// peer that the proxy turned away is a *ReplyError whose Op is "accept"; that
// ends the BIND too. Close ends the BIND, and with it a waiting Accept; after
// Accept it leaves the accepted connection alone.
//
// The listener also has a method SetDeadline(time.Time) error, as
// *net.TCPListener does: it bounds Accept, which may be called again after the
// timeout. All methods are safe for concurrent use.
func (d *Dialer) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	g, err := d.open(ctx, socks.Bind, network, address)
	if err != nil {
		return nil, err
	}
	return &listener{
		proxy:  d.proxy,
		target: g.target.String(),
		addr:   g.reply.bound("tcp", g.conn.RemoteAddr(), d.proxy.host),
		second: d.proxy.second(),
		conn:   g.conn,
	}, nil
}

// listener is a granted BIND that waits for its second reply.
type listener struct {
	proxy  proxy
	target string
	addr   net.Addr

	accepting sync.Mutex // held by the Accept that reads
	second    *reader[reply]

	mu   sync.Mutex // guards conn; taken after accepting, never while blocked
	conn net.Conn   // nil once it was accepted or closed
}

// Addr returns where the proxy waits.
func (l *listener) Addr() net.Addr { return l.addr }

// Accept waits for the second reply.
func (l *listener) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	conn := l.pending()
	if conn == nil {
		return nil, l.fail(net.ErrClosed)
	}
	reply, err := l.second.read(conn)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, l.fail(err) // the BIND goes on
	case err != nil:
		err = l.fail(err)
	case !reply.granted:
		err = refused(l.proxy, "accept", l.target, reply)
	}
	if l.release() == nil {
		return nil, l.fail(net.ErrClosed)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Time{}) // fails only where there are none to clear
	return newConn(conn, reply.addr("tcp")), nil
}

// Close ends the BIND, unless its connection has been accepted.
func (l *listener) Close() error {
	if conn := l.release(); conn != nil {
		return conn.Close()
	}
	return nil
}

// SetDeadline bounds Accept, the one that waits and those to come. A zero time
// lifts the bound.
func (l *listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return l.fail(net.ErrClosed)
	}
	return l.conn.SetReadDeadline(t)
}

// pending returns the connection that waits for its second reply, or nil.
func (l *listener) pending() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// release makes the caller the owner of the waiting connection, on which
// SetDeadline sets nothing from here on. It returns nil if there is none left.
func (l *listener) release() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn := l.conn
	l.conn = nil
	return conn
}

func (l *listener) fail(err error) error {
	return &opError{l.proxy.String(), "accept", l.target, err}
}
