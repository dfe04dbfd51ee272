package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// dialTCP is d.DialContext for an IP address, without the wait where there is
// nothing to wait for.
func dialTCP(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	if d.LocalAddr == nil && d.Control == nil { // the address would be bound only after Control
		d.ControlContext = connectAtOnce
	}
	return d.DialContext(ctx, network, address)
}

// connectAtOnce is a [net.Dialer]'s ControlContext: it begins to connect before
// the Dialer does. The Dialer's own connect then finds a target of this machine,
// or one that has answered meanwhile, connected or refused already; otherwise it
// finds the attempt under way, and waits for it as for its own. What is saved is
// that wait: two timers, a goroutine parked and woken, and two questions to the
// system.
func connectAtOnce(ctx context.Context, _, address string, c syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || to.Addr().Zone() != "" || ctx.Err() != nil {
		return nil // the Dialer knows what to do or to say
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = unix.Connect(int(fd), sockaddr(to)) })
	if err != nil {
		return err
	}
	switch {
	case failed == nil, errors.Is(failed, unix.EINPROGRESS), errors.Is(failed, unix.EINTR):
		return nil
	}
	return os.NewSyscallError("connect", failed)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
