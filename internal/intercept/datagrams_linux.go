//go:build amd64 || arm64

package intercept

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

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

// reception is a call of recvfrom: what a program wants to have of a datagram.
type reception struct {
	socket socket
	server netip.AddrPort // who it thinks it has asked
	buffer []byte
	flags  int
}

// receive judges a call of recvfrom (socket, memory, how much, flags, memory for the
// address, its size). An answer of our resolver's has to come from the name server.
func (i *Interceptor) receive(ctx context.Context, call *notification) {
	s, ok := i.socketOf(call)
	if !ok {
		return
	}
	flags := int(int32(call.arguments[3]))
	server, led := i.resolver.server(s.local())
	if !led || s.option(unix.SO_TYPE) != unix.SOCK_DGRAM || flags&unix.MSG_ERRQUEUE != 0 {
		i.pass(call)
		s.close()
		return
	}
	r := reception{socket: s, server: server, buffer: make([]byte, min(call.arguments[2], maxDatagram)), flags: flags}
	if i.tryReceive(call, r) {
		s.close()
		return
	}
	again := *call
	i.work.Go(func() {
		defer s.close()
		i.awaitDatagram(ctx, &again, r)
	})
}

// tryReceive answers the call with a datagram that is there, or with an error. It is
// false where the program waits.
func (i *Interceptor) tryReceive(call *notification, r reception) bool {
	n, from, err := unix.Recvfrom(int(r.socket), r.buffer, r.flags|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) && r.socket.waits() && r.flags&unix.MSG_DONTWAIT == 0 {
		return false
	}
	if err != nil {
		i.answer(call, errnoOf(err))
		return true
	}
	at := addrPortOf(from)
	if i.resolver.at.has(unmapped(at)) {
		at = r.server
	}
	err = writeMemory(call.thread, call.arguments[1], r.buffer[:min(n, len(r.buffer))])
	if err == nil {
		err = writeAddress(call, 4, 5, at)
	}
	if err != nil {
		i.answer(call, errnoOf(err))
		return true
	}
	i.answerCount(call, n)
	return true
}

// awaitDatagram waits for a datagram on behalf of a program, for as long as it would.
func (i *Interceptor) awaitDatagram(ctx context.Context, call *notification, r reception) {
	const look = 100 // ms
	until := time.Now().Add(r.socket.patience())
	for ctx.Err() == nil && i.calls.waits(call) {
		ready := []unix.PollFd{{Fd: int32(r.socket), Events: unix.POLLIN}}
		_, _ = unix.Poll(ready, look) // whatever it says, the socket is looked at
		if i.tryReceive(call, r) {
			return
		}
		if time.Now().After(until) {
			i.answer(call, unix.EAGAIN)
			return
		}
	}
}

// tellPeer judges a call of getpeername (socket, memory for the address, its size): a
// program is told whom it thinks it talks to.
func (i *Interceptor) tellPeer(call *notification) {
	s, ok := i.socketOf(call)
	if !ok {
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
	i.answer(call, errnoOf(writeAddress(call, 1, 2, named)))
}

// writeAddress writes an address to the memory that two arguments of a call name, as much
// as there is room for, and how long it is.
func writeAddress(call *notification, at, length int, a netip.AddrPort) error {
	var size [4]byte
	if n, err := readMemory(call.thread, call.arguments[length], size[:]); err != nil || n < len(size) {
		return unix.EFAULT
	}
	room := int32(binary.NativeEndian.Uint32(size[:]))
	if room < 0 {
		return unix.EINVAL
	}
	b := appendAddress(nil, a)
	if err := writeMemory(call.thread, call.arguments[at], b[:min(int(room), len(b))]); err != nil {
		return err
	}
	return writeMemory(call.thread, call.arguments[length], binary.NativeEndian.AppendUint32(nil, uint32(len(b))))
}
