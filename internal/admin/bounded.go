package admin

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// mostConns bounds the connections to the dashboard that are open at once: whoever
	// reaches its address can make some, and the process has its descriptors for the
	// clients of the proxy. The pages that are kept up to date (mostWatching) are among them.
	mostConns = 128
	// mostOfOne bounds those of one address (of IPv6 a /64) by which nobody has shown who he is.
	mostOfOne = mostConns / 2
	// writeAtOnce is how many bytes a client has to take within requestTime.
	writeAtOnce = 16 << 10
)

// bounded is a socket for strangers. One too many ends the oldest stranger, be it that he is
// silent or that he asks for things: whoever can sign in takes a moment for it, and is none
// from then on. Where there is no stranger, those who come wait.
type bounded struct {
	net.Listener
	left   chan struct{} // has something when there may be room
	closed chan struct{}
	close  func() error // of the socket, once

	mu        sync.Mutex
	open      int
	strangers []*guest // the oldest first
}

// guest is a connection to it, which ends if its client does not read what it has asked for.
type guest struct {
	net.Conn
	of     *bounded
	source netip.Prefix
	in     bool // the mutex of bounded guards it
}

// Bounded returns the socket for strangers: it has no more than some connections open at
// once, and ends one whose client does not read what it has asked for. Where there is TLS,
// it is above.
func Bounded(socket net.Listener) net.Listener {
	b := &bounded{Listener: socket, left: make(chan struct{}, 1), closed: make(chan struct{})}
	b.close = sync.OnceValue(func() error {
		close(b.closed)
		return socket.Close()
	})
	return b
}

// Close closes the socket.
func (b *bounded) Close() error { return b.close() }

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: c, of: b, source: sourceOf(c.RemoteAddr())}
	for {
		in, leaves := b.admit(g)
		if leaves != nil {
			_ = leaves.Conn.Close() // whoever serves it notices
		}
		if in {
			return g, nil
		}
		select {
		case <-b.left:
		case <-b.closed:
			_ = c.Close() // nobody has heard of it
			return nil, net.ErrClosed
		}
	}
}

// sourceOf is whose a connection is: all addresses of an IPv6 /64 are one's.
func sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	at := tcp.AddrPort().Addr().Unmap()
	return netip.PrefixFrom(at, min(64, at.BitLen())).Masked()
}

// admit lets a stranger in, if there is room for him, or makes room: then another is to leave.
func (b *bounded) admit(g *guest) (in bool, leaves *guest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sameSource := func(other *guest) bool { return other.source == g.source }
	first, ofOne := slices.IndexFunc(b.strangers, sameSource), 0
	for _, other := range b.strangers {
		if sameSource(other) {
			ofOne++
		}
	}
	switch {
	case ofOne >= mostOfOne:
		leaves = b.strangers[first]
	case b.open < mostConns:
	case len(b.strangers) == 0:
		return false, nil
	default:
		leaves = b.strangers[0]
	}
	if leaves != nil {
		b.remove(leaves)
	}
	b.open++
	g.in = true
	b.strangers = append(b.strangers, g)
	return true, leaves
}

// remove takes one out, if he is still there. Callers hold mu.
func (b *bounded) remove(g *guest) {
	if !g.in {
		return
	}
	g.in = false
	b.open--
	b.isNoStranger(g)
}

// isNoStranger notes that one has shown who he is, or is gone. Callers hold mu.
func (b *bounded) isNoStranger(g *guest) {
	b.strangers = slices.DeleteFunc(b.strangers, func(other *guest) bool { return other == g })
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.of.mu.Lock()
	g.of.remove(g)
	g.of.mu.Unlock()
	select {
	case g.of.left <- struct{}{}:
	default: // it has been said
	}
	return g.Conn.Close()
}

// guestKey is the key of the guest in the context of a request.
type guestKey struct{}

// withGuest is the ConnContext of an [http.Server].
func withGuest(ctx context.Context, c net.Conn) context.Context {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	if g, ok := c.(*guest); ok {
		return context.WithValue(ctx, guestKey{}, g)
	}
	return ctx
}

// isKnown notes that whoever asks has shown who he is: his connection makes room for nobody.
func isKnown(ctx context.Context) {
	g, ok := ctx.Value(guestKey{}).(*guest)
	if !ok {
		return
	}
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	g.of.isNoStranger(g)
}

// Write implements [net.Conn]. It waits for the client to read, and not for ever.
func (g *guest) Write(b []byte) (n int, err error) {
	for first := true; first || n < len(b); first = false {
		if err := g.SetWriteDeadline(time.Now().Add(requestTime)); err != nil {
			return n, err
		}
		wrote, err := g.Conn.Write(b[n:min(len(b), n+writeAtOnce)])
		n += wrote
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
