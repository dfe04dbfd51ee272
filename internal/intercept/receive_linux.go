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

// An answer of our resolver's has to come from the name server that was asked: most
// programs look. So they are handed the answers that come to sockets which were led there.

// reception is a call that receives a datagram.
type reception struct {
	call   notification
	socket socket
	server netip.AddrPort // whom the program thinks it has asked
	flags  int
	parts  []unix.RemoteIovec // the memory that the datagram goes to
	tell   func(from netip.AddrPort, flags int) error
}

// receive judges a call of recvfrom (socket, memory, how much, flags, memory for the
// address, its size).
func (i *Interceptor) receive(ctx context.Context, call *notification) {
	r, ok := i.receiverOf(call, call.arguments[3])
	if !ok {
		return
	}
	r.parts = []unix.RemoteIovec{{Base: uintptr(call.arguments[1]), Len: int(min(call.arguments[2], maxDatagram))}}
	r.tell = func(from netip.AddrPort, _ int) error {
		return writeAddress(r.call.thread, r.call.arguments[4], r.call.arguments[5], from)
	}
	i.receiveFor(ctx, r)
}

// receiveMessage judges a call of recvmsg (socket, what goes where, flags).
func (i *Interceptor) receiveMessage(ctx context.Context, call *notification) {
	r, ok := i.receiverOf(call, call.arguments[2])
	if !ok {
		return
	}
	head, err := readMessageHead(call.thread, call.arguments[1])
	if err == nil {
		r.parts, err = head.parts(call.thread)
	}
	if err != nil {
		r.socket.close()
		i.pass(call) // the kernel says what is wrong with it
		return
	}
	r.tell = func(from netip.AddrPort, flags int) error {
		return head.tell(r.call.thread, r.call.arguments[1], from, flags)
	}
	i.receiveFor(ctx, r)
}

// receiverOf takes the socket of a call if it was led to our resolver. Of all others the
// call has been answered, by the kernel.
func (i *Interceptor) receiverOf(call *notification, flags uint64) (*reception, bool) {
	if i.resolver.isIdle() || flags&unix.MSG_ERRQUEUE != 0 {
		i.pass(call)
		return nil, false
	}
	s, err := i.takeSocket(call)
	if err != nil {
		i.pass(call) // if only because nobody may look into the program
		return nil, false
	}
	server, led := i.resolver.server(s.local())
	if !led || s.option(unix.SO_TYPE) != unix.SOCK_DGRAM {
		s.close()
		i.pass(call)
		return nil, false
	}
	return &reception{call: *call, socket: s, server: server, flags: int(int32(flags))}, true
}

// receiveFor receives, now or as soon as something comes. It closes the socket.
func (i *Interceptor) receiveFor(ctx context.Context, r *reception) {
	if i.tryReceive(r) {
		r.socket.close()
		return
	}
	i.work.Go(func() {
		defer r.socket.close()
		i.awaitDatagram(ctx, r)
	})
}

// tryReceive answers the call with a datagram that is there, or with an error. It is
// false where the program waits.
func (i *Interceptor) tryReceive(r *reception) bool {
	b := make([]byte, r.size())
	n, from, err := unix.Recvfrom(int(r.socket), b, r.flags|unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	if errors.Is(err, unix.EAGAIN) && r.socket.waits() && r.flags&unix.MSG_DONTWAIT == 0 {
		return false
	}
	if err == nil {
		n, err = i.deliver(r, b, n, from)
	}
	if err != nil {
		i.answer(&r.call, errnoOf(err))
		return true
	}
	i.answerCount(&r.call, n)
	return true
}

// deliver writes a datagram of n bytes, of which b has the first, to the program's memory.
// It returns what the call is to.
func (i *Interceptor) deliver(r *reception, b []byte, n int, sender unix.Sockaddr) (int, error) {
	from, told, flags := addrPortOf(sender), n, 0
	if i.resolver.at.has(unmapped(from)) {
		from = r.server
	}
	if n > len(b) {
		flags = unix.MSG_TRUNC
		if r.flags&unix.MSG_TRUNC == 0 {
			told = len(b)
		}
	}
	for rest, n := b[:min(n, len(b))], 0; len(rest) > 0; n++ {
		part := rest[:min(len(rest), r.parts[n].Len)]
		if err := writeMemory(r.call.thread, uint64(r.parts[n].Base), part); err != nil {
			return 0, err
		}
		rest = rest[len(part):]
	}
	return told, r.tell(from, flags)
}

// size is how much there is room for.
func (r *reception) size() (bytes int) {
	for _, part := range r.parts {
		bytes += part.Len
	}
	return min(bytes, maxDatagram)
}

// awaitDatagram waits for a datagram on behalf of a program, for as long as it would.
func (i *Interceptor) awaitDatagram(ctx context.Context, r *reception) {
	const look = 100 // ms
	until := time.Now().Add(r.socket.patience(unix.SO_RCVTIMEO))
	for ctx.Err() == nil && i.calls.waits(&r.call) {
		ready := []unix.PollFd{{Fd: int32(r.socket), Events: unix.POLLIN}}
		_, _ = unix.Poll(ready, look) // whatever it says, the socket is looked at
		if i.tryReceive(r) {
			return
		}
		switch {
		case time.Now().After(until):
			i.answer(&r.call, unix.EAGAIN)
			return
		case isInterrupted(r.call.thread):
			i.answer(&r.call, restart)
			return
		}
	}
}

// messageHead is a struct msghdr, as bytes: pointers and sizes are of eight, and others,
// which fill up to as many, of four.
type messageHead [56]byte

// Where things are in it.
const (
	messageName       = 0
	messageNameSize   = 8
	messageParts      = 16
	messagePartsCount = 24
	messageControl    = 40 // its size
	messageFlags      = 48
)

func readMessageHead(thread uint32, at uint64) (head messageHead, err error) {
	n, err := readMemory(thread, at, head[:])
	if err == nil && n < len(head) {
		err = unix.EFAULT
	}
	return head, err
}

// parts reads where the message goes to (struct iovec), of which there are few.
func (m *messageHead) parts(thread uint32) ([]unix.RemoteIovec, error) {
	const most, size = 64, 16 // parts, bytes
	count := binary.NativeEndian.Uint64(m[messagePartsCount:])
	if count > most {
		return nil, unix.EMSGSIZE
	}
	b := make([]byte, count*size)
	if n, err := readMemory(thread, binary.NativeEndian.Uint64(m[messageParts:]), b); err != nil || n < len(b) {
		return nil, unix.EFAULT
	}
	var parts []unix.RemoteIovec
	for ; len(b) > 0; b = b[size:] {
		length := min(binary.NativeEndian.Uint64(b[8:]), maxDatagram)
		parts = append(parts, unix.RemoteIovec{Base: uintptr(binary.NativeEndian.Uint64(b)), Len: int(length)})
	}
	return parts, nil
}

// tell writes what a program learns of a datagram: who has sent it, and whether it is cut.
func (m *messageHead) tell(thread uint32, at uint64, from netip.AddrPort, flags int) error {
	if name := binary.NativeEndian.Uint64(m[messageName:]); name != 0 {
		if err := writeAddress(thread, name, at+messageNameSize, from); err != nil {
			return err
		}
	}
	if err := writeMemory(thread, at+messageControl, make([]byte, 8)); err != nil { // there is nothing beside it
		return err
	}
	return writeMemory(thread, at+messageFlags, binary.NativeEndian.AppendUint32(nil, uint32(flags)))
}
