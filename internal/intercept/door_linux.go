//go:build amd64 || arm64

package intercept

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// unclaimed bounds the connections that nobody has asked for yet, and strangerPatience
// how long each waits for that. Those of programs are asked for at once.
const (
	unclaimed        = 256
	strangerPatience = 5 * time.Second
	acceptPause      = 10 * time.Millisecond
)

// door is where the sockets of programs are connected to: listening sockets of this
// machine, by whose other ends the supervisor relays. Who comes is known by its own end,
// so that nobody else of the machine gets in.
type door struct {
	at        loopbacks
	listeners []net.Listener
	gone      chan struct{} // closed with it

	mu      sync.Mutex
	come    map[netip.AddrPort]net.Conn        // nobody has asked for them yet
	awaited map[netip.AddrPort]chan<- net.Conn // somebody waits for them
}

// openDoor opens it. Whoever does that calls serve, and then close.
func openDoor(ctx context.Context) (*door, error) {
	d := &door{gone: make(chan struct{}), come: map[netip.AddrPort]net.Conn{}, awaited: map[netip.AddrPort]chan<- net.Conn{}}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.listeners = append(d.listeners, l)
	d.at.v4 = l.Addr().(*net.TCPAddr).AddrPort()
	if l, err := config.Listen(ctx, "tcp6", "[::1]:0"); err == nil { // there may be no IPv6
		d.listeners = append(d.listeners, l)
		d.at.v6 = l.Addr().(*net.TCPAddr).AddrPort()
	}
	return d, nil
}

// serve accepts until close.
func (d *door) serve() {
	var accepting sync.WaitGroup
	for _, l := range d.listeners {
		accepting.Go(func() { d.accept(l) })
	}
	accepting.Wait()
}

func (d *door) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // it passes, such as that there are no descriptors
			select {
			case <-d.gone:
			case <-time.After(acceptPause):
			}
		default:
			d.enter(c)
		}
	}
}

// close closes it, and the connections that nobody has asked for. It is called once.
func (d *door) close() {
	close(d.gone)
	for _, l := range d.listeners {
		l.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for from, c := range d.come {
		delete(d.come, from)
		c.Close()
	}
}

// enter hands a connection that has come to whoever waits for it, or keeps it a while.
func (d *door) enter(c net.Conn) {
	from := unmapped(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	d.mu.Lock()
	defer d.mu.Unlock()
	if waiter, ok := d.awaited[from]; ok {
		delete(d.awaited, from)
		waiter <- c
		return
	}
	if before, ok := d.come[from]; ok { // it has left, as its address is used again
		before.Close()
	} else if d.isGone() || len(d.come) >= unclaimed {
		c.Close()
		return
	}
	d.come[from] = c
	time.AfterFunc(strangerPatience, func() { d.forget(from, c) })
}

func (d *door) isGone() bool {
	select {
	case <-d.gone:
		return true
	default:
		return false
	}
}

// forget closes a connection that nobody has asked for.
func (d *door) forget(from netip.AddrPort, c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.come[from] == c {
		delete(d.come, from)
		c.Close()
	}
}

// take returns the connection that has come from an address, or is about to. The caller
// closes it.
func (d *door) take(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
	d.mu.Lock()
	if c, ok := d.come[from]; ok {
		delete(d.come, from)
		d.mu.Unlock()
		return c, nil
	}
	waiter := make(chan net.Conn, 1)
	d.awaited[from] = waiter
	d.mu.Unlock()
	select {
	case c := <-waiter:
		return c, nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.awaited[from] == waiter {
		delete(d.awaited, from)
	}
	select {
	case c := <-waiter: // in the very moment
		c.Close()
	default:
	}
	return nil, context.Cause(ctx)
}
