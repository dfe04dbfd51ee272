//go:build unix

package server

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// batchSocket is a UDP socket of the system's own. Linux has recvmmsg and
// sendmmsg for it, and can take a flow as one; elsewhere a batch is one datagram.
type batchSocket struct {
	*net.UDPConn
	raw      syscall.RawConn
	segments segments
	calls    interface {
		ReadBatch(ms []message, flags int) (int, error)
		WriteBatch(ms []message, flags int) (int, error)
	}
}

// newPacketSocket returns the best packetSocket for c.
func newPacketSocket(c net.PacketConn) packetSocket {
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return plainSocket{c}
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return plainSocket{c}
	}
	s := &batchSocket{UDPConn: udp, raw: raw}
	s.segments.ask(raw)
	if udpAddrPort(udp.LocalAddr()).Addr().Is4() {
		s.calls = ipv4.NewPacketConn(udp)
	} else {
		s.calls = ipv6.NewPacketConn(udp)
	}
	return s
}

// wait asks once whether there is something to read, and else is woken.
func (s *batchSocket) wait() error {
	asked := false
	return s.raw.Read(func(fd uintptr) bool {
		if asked {
			return true
		}
		asked = true
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return n > 0 || err != nil
	})
}

func (s *batchSocket) read(ms []message) (int, error) {
	n, err := s.calls.ReadBatch(ms, unix.MSG_DONTWAIT)
	if errors.Is(err, syscall.EAGAIN) {
		return 0, nil
	}
	return max(0, n), err
}

func (s *batchSocket) write(ms []message) (int, error) {
	if joined, ok := s.segments.join(ms); ok {
		_, err := s.calls.WriteBatch([]message{joined}, unix.MSG_DONTWAIT)
		if err == nil {
			return len(ms), nil
		}
		if !s.segments.refused(len(joined.Buffers[0]), err) {
			return 0, err
		}
	}
	n, err := s.calls.WriteBatch(ms, unix.MSG_DONTWAIT)
	return max(0, n), err
}
