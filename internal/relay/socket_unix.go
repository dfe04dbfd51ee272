//go:build unix

package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is the port for TCP and Unix sockets. It waits in the runtime's poller without a buffer, and counts what a slow
// reader has taken of a write that still goes on. The Conn's deadlines hold for it.
type socket struct {
	raw syscall.RawConn

	// The callbacks of raw, and what they work on. They are made once, as else each chunk would leave two closures to the
	// garbage collector. Those for reading are touched by the goroutine that reads only, likewise for writing.
	tryRead, tryWrite func(fd uintptr) bool

	in      *buffer
	n       int
	readErr error

	out      []byte // what is still to be written
	mover    *direction
	writeErr error
}

// newSocket returns nil when conn is no socket.
func newSocket(conn net.Conn) port {
	raw := rawSocket(conn)
	if raw == nil {
		return nil
	}
	s := &socket{raw: raw}
	s.tryRead, s.tryWrite = s.readNow, s.writeNow
	return s
}

// rawSocket returns nil when conn is no socket. It goes by the type and not by SyscallConn, because a wrapper that
// embeds a TCPConn has that method too, and reading beneath it would pass by what it wraps for.
func rawSocket(conn net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}

func (s *socket) read(b *buffer) (int, error) {
	s.in = b
	if err := s.raw.Read(s.tryRead); err != nil {
		return 0, err
	}
	return s.n, s.readErr
}

// readNow reads what is there, or returns false to be called again when there is something.
func (s *socket) readNow(fd uintptr) bool {
	for {
		n, err := unix.Read(int(fd), s.in.take())
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			s.in.giveBack()
			return false
		case err != nil:
			s.n, s.readErr = 0, os.NewSyscallError("read", err)
		case n == 0:
			s.n, s.readErr = 0, io.EOF
		default:
			s.n, s.readErr = n, nil
		}
		return true
	}
}

func (s *socket) write(p []byte, d *direction) error {
	s.out, s.mover, s.writeErr = p, d, nil
	err := s.raw.Write(s.tryWrite)
	s.out = nil // even an empty slice would keep a whole buffer alive
	if err != nil {
		return err
	}
	return s.writeErr
}

// writeNow writes what there is room for, and returns false to be called again while something is left.
func (s *socket) writeNow(fd uintptr) bool {
	for len(s.out) > 0 {
		n, err := unix.Write(int(fd), s.out)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			s.writeErr = os.NewSyscallError("write", err)
			return true
		}
		s.out = s.out[n:]
		s.mover.moved(n)
	}
	return true
}

// pendingError returns the error that the next read of conn would meet behind what is still unread, if it has come. It
// neither waits nor reads. Whatever else it cannot tell is nil.
func pendingError(conn net.Conn) error {
	c, ok := layer[syscall.Conn](conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var pending int
	_ = raw.Control(func(fd uintptr) {
		// Asking SO_ERROR alone would also bring up errors that TCP means to survive (an ICMP message, on Linux); and a
		// hang-up alone can be two FINs. SO_ERROR takes the error away from who asks next, but the relay ends by it.
		poll := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := unix.Poll(poll, 0); err != nil || n == 0 {
			return
		}
		pending, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	})
	if pending == 0 {
		return nil
	}
	return syscall.Errno(pending)
}
