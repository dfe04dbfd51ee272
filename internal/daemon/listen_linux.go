package daemon

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenConfig is how listening sockets are opened. What is set on them here,
// Linux hands down to the connections that they accept, so that none of it has to
// be set on each: that a client is asked, after 15 s of silence, whether it is
// still there. Multipath TCP, which Go would try, costs every connection
// something, and the clients of proxies do not speak it.
func listenConfig() net.ListenConfig {
	lc := net.ListenConfig{
		KeepAlive: -1,
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			control := c.Control(func(fd uintptr) { err = keepAlive(int(fd)) })
			if err == nil {
				err = control
			}
			return err
		},
	}
	lc.SetMultipathTCP(false)
	return lc
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
