package engine

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of a loop do not block, so the runtime need not be told of them, as package syscall does: it would look after each
// that takes longer than it expects, and wake a thread for that whenever a loop that had nothing to do has something again.

// call makes a call with memory, again where it was interrupted.
func call(number uintptr, fd int, p unsafe.Pointer, a, b uintptr) (int, error) {
	for {
		n, _, failed := syscall.RawSyscall6(number, uintptr(fd), uintptr(p), a, b, 0, 0)
		switch failed {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return -1, failed
		}
	}
}

// Read reads what there is from a descriptor that does not block.
func Read(fd int, p []byte) (int, error) {
	return call(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), 0)
}

// Write writes what there is room for to a descriptor that does not block.
func Write(fd int, p []byte) (int, error) {
	return call(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), 0)
}

// Shut says FIN to the other end of a socket.
func Shut(fd int) error {
	if _, _, failed := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0); failed != 0 {
		return failed
	}
	return nil
}

// closeNow closes a descriptor. Nobody hears of what that could say.
func closeNow(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// rawAddress is the address of a socket of TCP as the system has it: a sockaddr_in, or the larger sockaddr_in6.
type rawAddress struct {
	unix.RawSockaddrInet6
	size uint32
}

// Accept takes a connection that has come to a listening socket of TCP that does not block. The new one does not block either.
func Accept(listening int) (fd int, remote netip.AddrPort, err error) {
	address := rawAddress{size: unix.SizeofSockaddrInet6}
	for {
		n, _, failed := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listening), uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&address.size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch failed {
		case 0:
			return int(n), address.port(), nil
		case unix.EINTR, unix.ECONNABORTED: // that one has left again
		default:
			return -1, netip.AddrPort{}, failed
		}
	}
}

// Local returns this machine's end of a connection of TCP; zero: it cannot be told.
func Local(fd int) netip.AddrPort {
	address := rawAddress{size: unix.SizeofSockaddrInet6}
	_, _, failed := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&address.size)))
	if failed != 0 {
		return netip.AddrPort{}
	}
	return address.port()
}

// Connect begins to connect a socket of TCP that does not block. The error is EALREADY where it must be waited for.
func Connect(fd int, to netip.AddrPort) error {
	address := rawAddress{size: unix.SizeofSockaddrInet4}
	if to.Addr().Is4() {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&address))
		in.Family, in.Addr = unix.AF_INET, to.Addr().As4()
	} else {
		address.size = unix.SizeofSockaddrInet6
		address.Family, address.Addr = unix.AF_INET6, to.Addr().As16()
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&address.Port))[:], to.Port())
	_, err := call(unix.SYS_CONNECT, fd, unsafe.Pointer(&address), uintptr(address.size), 0)
	if errors.Is(err, unix.EINPROGRESS) { // a target on this machine has answered by now: there is nothing to wait for
		_, err = call(unix.SYS_CONNECT, fd, unsafe.Pointer(&address), uintptr(address.size), 0)
	}
	return err
}

// port returns the address, unmapped. A zone has its number.
func (a *rawAddress) port() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.Port))[:])
	switch a.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr), port)
	case unix.AF_INET6:
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if a.Scope_id != 0 {
			ip = ip.WithZone(strconv.Itoa(int(a.Scope_id)))
		}
		return netip.AddrPortFrom(ip, port)
	}
	return netip.AddrPort{}
}

// SetOption sets an option of a socket.
func SetOption(fd, level, name, value int) error {
	v := int32(value)
	_, _, failed := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if failed != 0 {
		return failed
	}
	return nil
}
