package daemon

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenConfig is how listening sockets are opened. That clients are asked whether they
// are still there is set by [server.Aside] on the socket, and not by Go on each connection. Multipath TCP,
// which Go would try, costs every connection something, and the clients of proxies do not speak it.
//
// With a device, the socket takes what comes in by that interface, whatever its
// addresses are and will be.
func listenConfig(device string) net.ListenConfig {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) (err error) {
		control := c.Control(func(fd uintptr) { err = bindTo(int(fd), device) })
		return errors.Join(err, control)
	}}
	lc.SetMultipathTCP(false)
	return lc
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
