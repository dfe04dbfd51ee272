package server

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// origin is a connection to a target that speaks HTTP/1.1.
type origin struct {
	conn   net.Conn
	in     inflow
	at     netip.AddrPort
	user   Identity // whose requests it has carried
	way    *Way
	name   string // of the target, where its address is not known here
	proxy  string // by which proxy of the way
	reused bool   // it has answered a request before
}

func (h *httpConn) newOrigin(c net.Conn, to passage) *origin {
	return &origin{conn: c, in: inflow{conn: c}, at: addrPort(c.RemoteAddr()), way: to.way, name: to.name, proxy: h.session.Proxy}
}

// keep holds the connection ready for another request of a user.
func (o *origin) keep(user Identity) {
	o.in.letGo()
	_ = o.conn.SetDeadline(time.Time{}) // the sending may have been ended in the moment in which it was done
	o.user, o.reused = user, true
}

// takes reports whether a connection that was kept can take a user's request that
// goes there: it leads there by the same way, and has neither ended nor said
// anything unasked. Another user's is no use, as some targets bind a login to the
// connection.
func (o *origin) takes(user Identity, to passage) bool {
	return o != nil && o.user == user && o.way == to.way && o.name == to.name &&
		(to.name != "" || slices.Contains(to.addrs, o.at)) && isQuiet(o.conn)
}

// close closes the connection; that o is nil is allowed.
func (o *origin) close() {
	if o != nil {
		o.conn.Close()
	}
}

// abort closes the connection in a way that its other end does not take for a
// proper end.
func (o *origin) abort() {
	resetOnClose(o.conn)
	o.conn.Close()
}

// resetOnClose makes the Close of c, which is its owner's, send a reset.
func resetOnClose(c net.Conn) {
	for {
		if l, ok := c.(interface{ SetLinger(seconds int) error }); ok {
			_ = l.SetLinger(0) // where it fails, the connection is gone
			return
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = outer.NetConn()
	}
}
