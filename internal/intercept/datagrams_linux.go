//go:build amd64 || arm64

package intercept

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// maxDatagram is how large one can be.
const maxDatagram = 1 << 16

// send judges a call of sendto (socket, bytes, how many, flags, address, its length).
func (i *Interceptor) send(call *notification) {
	a, ok := i.destination(call, 4, 5)
	if !ok {
		return
	}
	if a.family == unix.AF_UNIX {
		i.pass(call)
		return
	}
	s, ok := i.socketOf(call)
	if !ok {
		return
	}
	defer s.close()
	switch {
	case !s.isNetwork(), s.isStream(): // a stream does not look at the address
		i.pass(call)
	case a.family != unix.AF_INET && a.family != unix.AF_INET6: // no address means IPv4 to some sockets
		i.answer(call, unix.EAFNOSUPPORT)
	case a.to.Port() == dnsPort && s.option(unix.SO_TYPE) == unix.SOCK_DGRAM:
		i.sendQuestion(call, s, a.to)
	case isHere(a.to.Addr()):
		i.pass(call)
	default:
		i.answer(call, unix.ENETUNREACH)
	}
}

// sendQuestion sends a datagram that is for a name server to our resolver.
func (i *Interceptor) sendQuestion(call *notification, s socket, to netip.AddrPort) {
	b := make([]byte, min(call.arguments[2], maxDatagram))
	n, err := readMemory(call.thread, call.arguments[1], b)
	if err == nil && n < len(b) {
		err = unix.EFAULT
	}
	service := s.destination(to.Addr(), i.resolver.at)
	if err == nil && s.source(service).Port() == 0 {
		// It gets its own end now, so that it is known before the question arrives.
		err = unix.Bind(int(s), s.anyPort())
	}
	if err != nil {
		i.answer(call, errnoOf(err))
		return
	}
	i.resolver.lead(s.source(service), to)
	if err := unix.Sendto(int(s), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sockaddr(service)); err != nil {
		i.answer(call, errnoOf(err))
		return
	}
	i.answerCount(call, len(b))
}

// tellPeer judges a call of getpeername (socket, memory for the address, its size): a
// program is told whom it thinks it talks to.
func (i *Interceptor) tellPeer(call *notification) {
	s, err := i.takeSocket(call)
	if err != nil {
		i.pass(call) // the kernel tells it, if only whom it does talk to
		return
	}
	defer s.close()
	named, led := netip.AddrPort{}, false
	switch peer := s.peer(); {
	case i.door.at.has(peer):
		named, led = i.passages.of(s.local())
	case i.resolver.at.has(peer):
		named, led = i.resolver.server(s.local())
	}
	if !led {
		i.pass(call)
		return
	}
	i.answer(call, errnoOf(writeAddress(call.thread, call.arguments[1], call.arguments[2], named)))
}

// writeAddress writes an address to a thread's memory, as much as there is room for, and
// how long it is to where it says how much that is.
func writeAddress(thread uint32, at, length uint64, a netip.AddrPort) error {
	var size [4]byte
	if n, err := readMemory(thread, length, size[:]); err != nil || n < len(size) {
		return unix.EFAULT
	}
	room := int32(binary.NativeEndian.Uint32(size[:]))
	if room < 0 {
		return unix.EINVAL
	}
	b := appendAddress(nil, a)
	if err := writeMemory(thread, at, b[:min(int(room), len(b))]); err != nil {
		return err
	}
	return writeMemory(thread, length, binary.NativeEndian.AppendUint32(nil, uint32(len(b))))
}
