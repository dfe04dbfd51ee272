package server

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangUp returns what has come behind the bytes of c that nobody has read yet:
// io.EOF where the other end said FIN, ECONNRESET where it reset, else nil. It
// neither waits nor reads.
func hangUp(c net.Conn) error {
	for {
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = wrapped.NetConn()
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	poll := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err = raw.Control(func(fd uintptr) {
		poll[0].Fd = int32(fd)
		_, _ = unix.Poll(poll, 0) // without an answer there are no events
	})
	switch {
	case err != nil:
		return nil
	case poll[0].Revents&unix.POLLERR != 0:
		return unix.ECONNRESET
	case poll[0].Revents&unix.POLLRDHUP != 0:
		return io.EOF
	}
	return nil
}
