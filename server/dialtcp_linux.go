package server

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// dialTCP is d.DialContext for an IP address, without the goroutine that a
// net.Dialer starts to watch a context that can end: where that happens, the
// socket is told to stop connecting.
func dialTCP(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var socket atomic.Pointer[syscall.RawConn]
	d.Control = func(_, _ string, c syscall.RawConn) error {
		socket.Store(&c)
		return context.Cause(ctx) // it may have ended before there was something to stop
	}
	stop := context.AfterFunc(ctx, func() {
		if c := socket.Load(); c != nil {
			stopConnecting(*c)
		}
	})
	c, err := d.DialContext(context.WithoutCancel(ctx), network, address)
	if !stop() { // and be it that the connection stands: it may be stopped at any moment
		if c != nil {
			c.Close()
		}
		return nil, context.Cause(ctx)
	}
	return c, err
}

// stopConnecting makes a connect that waits fail at once. A socket that has
// connected meanwhile is shut down, and one that is closed is left alone.
func stopConnecting(c syscall.RawConn) {
	_ = c.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}
