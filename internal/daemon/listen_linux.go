package daemon

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenConfig is how listening sockets are opened. What is set on them here,
// Linux hands down to the connections that they accept, so that none of it has to
// be set on each: that a client is asked, after 15 s of silence, whether it is
// still there. Multipath TCP, which Go would try, costs every connection
// something, and the clients of proxies do not speak it.
//
// With a device, the socket takes what comes in by that interface, whatever its
// addresses are and will be.
func listenConfig(device string) net.ListenConfig {
	lc := net.ListenConfig{KeepAlive: -1, Control: control(func(fd int) error {
		return errors.Join(keepAlive(fd), bindTo(fd, device))
	})}
	lc.SetMultipathTCP(false)
	return lc
}

func control(set func(fd int) error) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		control := c.Control(func(fd uintptr) { err = set(int(fd)) })
		return errors.Join(err, control)
	}
}

func bindTo(fd int, device string) error {
	if device == "" {
		return nil
	}
	if err := unix.BindToDevice(fd, device); err != nil {
		return fmt.Errorf("binding to the interface %s: %w", device, err)
	}
	return nil
}

// keepSocketAlive sets on a socket that was opened elsewhere what listenConfig sets.
func keepSocketAlive(l net.Listener) error {
	c, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return control(keepAlive)("", "", raw)
}

// boundDevice returns the interface that a socket is bound to; empty: none.
func boundDevice(c syscall.Conn) (device string) {
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	_ = raw.Control(func(fd uintptr) { // where it fails, it is as good as bound to none
		device, _ = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	})
	return device
}

// keepAlive sets what Go sets on its connections by default.
func keepAlive(fd int) error {
	for _, option := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},  // seconds
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15}, // seconds
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, option.value); err != nil {
			return err
		}
	}
	return nil
}
