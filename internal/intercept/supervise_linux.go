//go:build amd64 || arm64

package intercept

import (
	"context"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// lookups are services of this machine that look names up for the C library. It asks name
// servers itself where it does not find them.
var lookups = []string{
	"/run/systemd/resolve/io.systemd.Resolve",
	"/run/nscd/socket", "/var/run/nscd/socket",
}

// supervise answers for every call that the filter asks about, until the notifier is
// closed or nobody is left to call. Only what goes through the proxy takes long: that is
// done in goroutines, as is the wait for a datagram. When ctx ends nobody waits any more;
// relays go on until theirs does.
func (i *Interceptor) supervise(ctx, relays context.Context) {
	defer i.calls.close() // nobody waits for who is not there
	for {
		call, err := i.calls.next()
		if err != nil {
			return
		}
		switch call.number {
		case unix.SYS_CONNECT:
			i.connect(ctx, relays, &call)
		case unix.SYS_SENDTO:
			i.send(&call)
		case unix.SYS_RECVFROM:
			i.receive(ctx, &call)
		case unix.SYS_RECVMSG:
			i.receiveMessage(ctx, &call)
		case unix.SYS_GETPEERNAME:
			i.tellPeer(&call)
		case unix.SYS_SOCKET:
			i.makeSocket(&call)
		default:
			i.pass(&call) // the filter asks about no other
		}
	}
}

// pass has the kernel make the call.
func (i *Interceptor) pass(call *notification) {
	_ = i.calls.pass(call) // it fails only where the caller has been killed, or all of this is at its end
}

// answer has the call return 0, or fail.
func (i *Interceptor) answer(call *notification, errno unix.Errno) {
	_ = i.calls.answer(call, 0, errno) // as above
}

// answerCount has the call return a number.
func (i *Interceptor) answerCount(call *notification, n int) {
	_ = i.calls.answer(call, n, 0) // as above
}

// destination reads the address that a call has at two of its arguments. If it is false,
// the call has been answered: nothing is to be done.
func (i *Interceptor) destination(call *notification, at, length int) (address, bool) {
	size := int32(call.arguments[length])
	if size < 0 || size > largestAddress {
		i.pass(call) // the kernel refuses it
		return address{}, false
	}
	b := make([]byte, min(size, maxAddress))
	n, err := readMemory(call.thread, call.arguments[at], b)
	a, ok := parseAddress(b[:n])
	switch {
	case err != nil && !errors.Is(err, unix.EFAULT):
		i.answer(call, untaken(err))
	case err != nil, !ok:
		i.pass(call) // the kernel says what is wrong with it
	default:
		return a, true
	}
	return a, false
}

// socketOf takes the socket that a call has as its first argument. If it is false, the
// call has been answered. The caller closes it.
func (i *Interceptor) socketOf(call *notification) (socket, bool) {
	s, err := i.takeSocket(call)
	if err != nil {
		i.answer(call, untaken(err)) // EBADF as well: on older kernels it is the first thread that has no such descriptor
		return -1, false
	}
	return s, true
}

// takeSocket is socketOf, and answers nothing.
func (i *Interceptor) takeSocket(call *notification) (socket, error) {
	fd, err := takeDescriptor(call.thread, int(int32(call.arguments[0])))
	if err != nil {
		return -1, err
	}
	if !i.calls.waits(call) {
		closeDescriptor(fd) // it may be somebody else's
		return -1, unix.ESRCH
	}
	return socket(fd), nil
}

// connect judges a call of connect (socket, address, its length).
func (i *Interceptor) connect(ctx, relays context.Context, call *notification) {
	a, ok := i.destination(call, 1, 2)
	if !ok {
		return
	}
	switch {
	case a.family == unix.AF_UNIX && slices.Contains(lookups, a.path):
		i.answer(call, unix.ECONNREFUSED)
		return
	case a.family != unix.AF_INET && a.family != unix.AF_INET6:
		i.pass(call)
		return
	}
	s, ok := i.socketOf(call)
	if !ok {
		return
	}
	switch {
	case s.option(unix.SO_DOMAIN) < 0: // no socket
		i.pass(call)
	case !s.isNetwork(): // one that goes there all the same, such as AF_SMC's
		i.answer(call, unix.EAFNOSUPPORT)
	case s.isStream():
		i.connectStream(ctx, relays, call, s, a)
		return
	default:
		i.connectDatagrams(call, s, a)
	}
	s.close()
}

// connectDatagrams judges what a socket for datagrams is to be connected to.
func (i *Interceptor) connectDatagrams(call *notification, s socket, a address) {
	switch {
	case a.to.Port() == dnsPort && s.option(unix.SO_TYPE) == unix.SOCK_DGRAM:
		service := s.destination(a.to.Addr(), i.resolver.at)
		if err := s.connect(service); err != nil {
			i.answer(call, errnoOf(err))
			return
		}
		i.resolver.lead(s.source(service), a.to)
		i.answer(call, 0)
	case isHere(a.to.Addr()):
		i.pass(call)
	default:
		i.answer(call, unix.ENETUNREACH)
	}
}

// makeSocket makes a socket for datagrams (domain, type, protocol), with which nothing can
// leave this machine, unless a program names an interface with each datagram (IP_PKTINFO).
func (i *Interceptor) makeSocket(call *notification) {
	where, err := namespacesOf(int(call.thread))
	switch {
	case err != nil:
		i.answer(call, unix.EACCES) // nobody may look into it
		return
	case where.network != i.home.network:
		i.pass(call) // what loopback is there we are not in
		return
	}
	kind := int(int32(call.arguments[1]))
	fd, err := i.socketFor(call, where, kind)
	if err != nil {
		i.answer(call, errnoOf(err))
		return
	}
	defer closeDescriptor(fd)
	if err := i.calls.give(call, fd, kind&unix.SOCK_CLOEXEC != 0); err != nil {
		i.answer(call, errnoOf(err)) // it has no descriptor left
	}
}

// socketFor makes the socket, as the caller would have it: it belongs to the caller's user,
// and is for what the caller may do, who may have given up what this process may.
func (i *Interceptor) socketFor(call *notification, where namespaces, kind int) (int, error) {
	caller, err := statusOf(call.thread)
	if err != nil {
		return -1, err
	}
	user, err := caller.user()
	if err != nil {
		return -1, err
	}
	if kind&socketKinds == unix.SOCK_RAW && (where.users != i.home.users || !caller.isCapable(unix.CAP_NET_RAW)) {
		return -1, unix.EPERM
	}
	fd, err := unix.Socket(int(int32(call.arguments[0])), kind|unix.SOCK_CLOEXEC, int(int32(call.arguments[2])))
	if err != nil {
		return -1, err
	}
	if err = unix.BindToDevice(fd, loopbackDevice); err == nil && user != os.Geteuid() {
		err = unix.Fchown(fd, user, -1)
	}
	if err != nil {
		closeDescriptor(fd)
		return -1, err
	}
	return fd, nil
}

const (
	dnsPort        = 53
	loopbackDevice = "lo"
)

// untaken is what a program is told where nothing can be taken from it.
func untaken(err error) unix.Errno {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ESRCH) {
		return unix.EACCES // nobody may look into it, or its first thread, by which Linux before 6.9 goes, has ended
	}
	return errnoOf(err)
}

// errnoOf is what the kernel has said.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return unix.EIO
}
