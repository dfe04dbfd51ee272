package proxytest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// Network is a network in memory. It has the methods of the standard library's
// Dialer and ListenConfig, so that a server can be given it as its way out, and
// works on a fake clock. An address where nobody listens refuses.
//
// All methods are safe for concurrent use.
type Network struct {
	own  netip.Addr
	room int

	mu        sync.Mutex
	listeners map[netip.AddrPort]*Listener
	silent    map[netip.Addr]bool
	lastPort  uint16
	dialled   []netip.AddrPort
	given     []*Conn
}

// NewNetwork returns an empty network. DialContext calls from the address own,
// and of each connection room bytes may lie unread in each direction.
func NewNetwork(own netip.Addr, room int) *Network {
	return &Network{
		own:       own,
		room:      room,
		listeners: make(map[netip.AddrPort]*Listener),
		silent:    make(map[netip.Addr]bool),
		lastPort:  49151,
	}
}

// Silence makes a host swallow what is sent to it (connecting hangs), or ends that.
func (n *Network) Silence(host netip.Addr, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent[host] = silent
}

// Listen opens a listening socket. Port 0 is a free one, and an unspecified
// address takes what is for any host.
func (n *Network) Listen(_ context.Context, network, address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, opError("listen", network, at, err)
	}
	ln, err := n.open(at)
	if err != nil {
		return nil, opError("listen", network, at, err)
	}
	ln.gives = true
	return ln, nil
}

// MustListen is Listen for a test, at an address that is free.
func (n *Network) MustListen(address string) *Listener {
	ln, err := n.open(netip.MustParseAddrPort(address))
	if err != nil {
		panic(err)
	}
	return ln
}

func (n *Network) open(at netip.AddrPort) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.nextPort())
	}
	if n.listeners[at] != nil {
		return nil, syscall.EADDRINUSE
	}
	ln := newListener(n, at)
	n.listeners[at] = ln
	return ln, nil
}

// nextPort is for callers that hold the lock.
func (n *Network) nextPort() uint16 {
	n.lastPort++
	return n.lastPort
}

// DialContext connects to a listener of this network. A silent host hangs until
// ctx ends.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, opError("dial", network, to, err)
	}
	n.mu.Lock()
	n.dialled = append(n.dialled, to)
	silent := n.silent[to.Addr()]
	from := netip.AddrPortFrom(n.own, n.nextPort())
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, opError("dial", network, to, ctx.Err())
	}
	c, err := n.DialFrom(from, to)
	if err != nil {
		return nil, err
	}
	n.give(c)
	return c, nil
}

// give remembers a connection that was given to who uses the standard
// library's methods: the server under test.
func (n *Network) give(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.given = append(n.given, c)
}

// Given returns the connections that DialContext, and Accept of what Listen
// opened, have returned: it is for their receiver to close them.
func (n *Network) Given() []*Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Conn(nil), n.given...)
}

// DialFrom connects from one address of this network to another.
func (n *Network) DialFrom(from, to netip.AddrPort) (*Conn, error) {
	n.mu.Lock()
	ln := n.listeners[to]
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if ln == nil {
			ln = n.listeners[netip.AddrPortFrom(all, to.Port())]
		}
	}
	n.mu.Unlock()
	near, far := Pipe(from, to, n.room)
	if ln == nil || !ln.enqueue(arrival{conn: far}) {
		return nil, opError("dial", "tcp", to, syscall.ECONNREFUSED)
	}
	return near, nil
}

// Dialled returns where DialContext was asked to connect to so far.
func (n *Network) Dialled() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]netip.AddrPort(nil), n.dialled...)
}

// Listening returns the addresses with a listening socket other than except.
func (n *Network) Listening(except ...netip.AddrPort) []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	var open []netip.AddrPort
	for at := range n.listeners {
		open = append(open, at)
		for _, e := range except {
			if e == at {
				open = open[:len(open)-1]
			}
		}
	}
	return open
}

func opError(op, network string, at netip.AddrPort, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: net.TCPAddrFromAddrPort(at), Err: err}
}

// Listener is a listening socket of a [Network].
type Listener struct {
	network *Network
	at      netip.AddrPort

	mu      sync.Mutex
	changed sync.Cond
	queue   []arrival
	closed  bool
	gives   bool // was opened by Listen, not by a test
}

// arrival is what an Accept returns.
type arrival struct {
	conn *Conn
	err  error
}

func newListener(n *Network, at netip.AddrPort) *Listener {
	l := &Listener{network: n, at: at}
	l.changed.L = &l.mu
	return l
}

// Addr returns a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// AddrPort is Addr for tests.
func (l *Listener) AddrPort() netip.AddrPort { return l.at }

// Accept blocks until somebody connects or Close is called.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Next()
	if err != nil {
		return nil, err
	}
	if l.gives {
		l.network.give(c)
	}
	return c, nil
}

// Next is Accept with the type that it returns.
func (l *Listener) Next() (*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.changed.Wait()
	}
	if l.closed {
		return nil, opError("accept", "tcp", l.at, net.ErrClosed)
	}
	first := l.queue[0]
	l.queue = l.queue[1:]
	return first.conn, first.err
}

// Fail makes an Accept return err, behind what waits already.
func (l *Listener) Fail(err error) { l.enqueue(arrival{err: err}) }

// Waiting returns how many connections nobody has accepted yet.
func (l *Listener) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Dial connects to l from an address.
func (l *Listener) Dial(from netip.AddrPort) (*Conn, error) { return l.network.DialFrom(from, l.at) }

func (l *Listener) enqueue(a arrival) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.queue = append(l.queue, a)
	l.changed.Broadcast()
	return true
}

// Close frees the address and resets the connections that nobody has accepted.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	l.changed.Broadcast()
	for _, a := range l.queue {
		if a.conn != nil {
			Reset(a.conn)
		}
	}
	l.queue = nil
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	delete(l.network.listeners, l.at)
	return nil
}
