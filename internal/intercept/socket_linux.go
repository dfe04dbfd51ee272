//go:build amd64 || arm64

package intercept

import (
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a socket of a program, by a descriptor here. It is the program's own: what is
// done to it the program sees, and its flags must stay as they are.
type socket int

func (s socket) close() { closeDescriptor(int(s)) }

// option is an option of the level SOL_SOCKET; -1: it is no socket.
func (s socket) option(name int) int {
	value, err := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, name)
	if err != nil {
		return -1
	}
	return value
}

// isNetwork reports whether it is one of IPv4 or IPv6.
func (s socket) isNetwork() bool {
	domain := s.option(unix.SO_DOMAIN)
	return domain == unix.AF_INET || domain == unix.AF_INET6
}

func (s socket) isStream() bool { return s.option(unix.SO_TYPE) == unix.SOCK_STREAM }

// waits reports whether calls of the program wait.
func (s socket) waits() bool {
	flags, err := unix.FcntlInt(uintptr(s), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_NONBLOCK == 0
}

// patience is how long a call of the program waits, by an option that says how long to
// receive something (SO_RCVTIMEO), or to send it or connect (SO_SNDTIMEO).
func (s socket) patience(option int) time.Duration {
	const forever = 1 << 62
	limit, err := unix.GetsockoptTimeval(int(s), unix.SOL_SOCKET, option)
	if err != nil || *limit == (unix.Timeval{}) {
		return forever
	}
	return time.Duration(limit.Nano())
}

// anyPort is what to bind it to that it gets an end of its own.
func (s socket) anyPort() unix.Sockaddr {
	if s.option(unix.SO_DOMAIN) == unix.AF_INET {
		return &unix.SockaddrInet4{}
	}
	return &unix.SockaddrInet6{}
}

// local returns its own end, unmapped; zero: it has none.
func (s socket) local() netip.AddrPort {
	a, err := unix.Getsockname(int(s))
	if err != nil {
		return netip.AddrPort{}
	}
	return unmapped(addrPortOf(a))
}

// source is its own end as the service at an address of this machine sees it.
func (s socket) source(service netip.AddrPort) netip.AddrPort {
	at := s.local()
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(service.Addr().Unmap(), at.Port())
	}
	return at
}

// peer returns the other end, unmapped; zero: it is not connected.
func (s socket) peer() netip.AddrPort {
	a, err := unix.Getpeername(int(s))
	if err != nil {
		return netip.AddrPort{}
	}
	return unmapped(addrPortOf(a))
}

// leaveDevice has it use whatever interface there is, in the place of one (SO_BINDTODEVICE)
// by which nobody of this machine can be reached. For that one must be root.
func (s socket) leaveDevice() error {
	const loopback = 1 // of every network
	if at := s.option(unix.SO_BINDTOIFINDEX); at <= 0 || at == loopback {
		return nil
	}
	return unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 0)
}

// connect connects it to an address of this machine, which answers at once.
func (s socket) connect(to netip.AddrPort) error {
	a := sockaddr(to)
	// With this option it would not say a word before the program writes something.
	_ = unix.SetsockoptInt(int(s), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 0) // of datagrams and older kernels there is none
	err := unix.Connect(int(s), a)
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EINPROGRESS) {
		const patience = 5000 // ms
		ready := []unix.PollFd{{Fd: int32(s), Events: unix.POLLOUT}}
		for _, err = unix.Poll(ready, patience); errors.Is(err, unix.EINTR); {
			_, err = unix.Poll(ready, patience)
		}
		err = unix.Connect(int(s), a) // how it went
	}
	return err
}

// destination returns how a socket of its family calls an address of this machine. Where
// there is a choice, the program's own decides: an IPv4 one in the guise of IPv6 (mapped).
func (s socket) destination(asked netip.Addr, at loopbacks) netip.AddrPort {
	switch {
	case s.option(unix.SO_DOMAIN) == unix.AF_INET:
		return at.v4
	case asked.Is4() || asked.Is4In6() || !at.v6.IsValid():
		return netip.AddrPortFrom(netip.AddrFrom16(at.v4.Addr().As16()), at.v4.Port())
	}
	return at.v6
}

// loopbacks is one service at its two addresses of this machine.
type loopbacks struct {
	v4, v6 netip.AddrPort // v6: zero where there is no IPv6
}

func (l loopbacks) has(a netip.AddrPort) bool { return a.IsValid() && (a == l.v4 || a == l.v6) }

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPortOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func addressOf(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&p[0]))) }
