//go:build unix

package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// isQuiet reports whether nothing has come on c: no byte, no end, no fault. It
// neither waits nor reads. Of what it cannot look at it does not say so.
func isQuiet(c net.Conn) bool {
	socket, ok := c.(syscall.Conn) // the client package's are such, and no TLS is
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		quiet = n == 0 && err == nil
	})
	return quiet && err == nil
}
