//go:build amd64 || arm64

package intercept

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// notification is a call that waits for an answer (struct seccomp_notif).
type notification struct {
	id        uint64
	thread    uint32 // that made the call
	flags     uint32
	number    int32
	arch      uint32
	pointer   uint64
	arguments [6]uint64
}

// response is the answer (struct seccomp_notif_resp).
type response struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// gift is a descriptor that becomes one of the caller's, and its number what the call
// returns (struct seccomp_notif_addfd).
type gift struct {
	id     uint64
	flags  uint32
	source uint32
	target uint32
	of     uint32 // flags of the new descriptor
}

// notifier is where notifications come from. It is the kernel's: when it is closed, calls
// that wait and all that would be asked about fail with ENOSYS.
type notifier struct {
	file *os.File
	raw  syscall.RawConn
}

// install has the kernel ask about the calls of this thread, and of all that it starts.
// The thread can never get rid of that; whoever calls it has locked it.
func install() (*notifier, error) {
	raw, err := bpf.Assemble(filter())
	if err != nil {
		return nil, err
	}
	program := unix.SockFprog{Len: uint16(len(raw))}
	instructions := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		instructions[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program.Filter = &instructions[0]
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("no_new_privs: %w", err)
	}
	// Once a call has been looked at, signals that do not kill must not interrupt it: Go
	// programs get such all the time, and would connect what is connected.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(instructions)
	switch errno {
	case 0:
	case unix.EINVAL:
		return nil, fmt.Errorf("seccomp: %w (it needs Linux 5.19)", errno)
	case unix.EBUSY:
		return nil, fmt.Errorf("seccomp: %w (another program watches this one, such as another `sallyport run`)", errno)
	default:
		return nil, fmt.Errorf("seccomp: %w", errno)
	}
	return newNotifier(int(fd))
}

func newNotifier(fd int) (*notifier, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // it does not change the calls, but os.File then waits by polling
		closeDescriptor(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "seccomp")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &notifier{file, raw}, nil
}

// close ends next.
func (n *notifier) close() { n.file.Close() }

// next waits for a call. After close its error matches [os.ErrClosed].
func (n *notifier) next() (call notification, err error) {
	for {
		var failed error
		err = n.raw.Read(func(fd uintptr) bool {
			call = notification{}
			ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			switch count, err := unix.Poll(ready, 0); {
			case err != nil:
				failed = err
			case count == 0:
				return false
			case ready[0].Revents&unix.POLLIN == 0:
				failed = os.ErrClosed // nobody is left who could call
			default:
				failed = control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&call))
			}
			return true
		})
		switch {
		case err != nil:
			return call, err
		case errors.Is(failed, unix.ENOENT), errors.Is(failed, unix.EINTR): // the caller has been killed meanwhile
		default:
			return call, failed
		}
	}
}

// isDeserted reports whether nobody is left who could call. It is called before close.
func (n *notifier) isDeserted() bool {
	ready := []unix.PollFd{{Events: unix.POLLIN}}
	closed := n.raw.Control(func(fd uintptr) {
		ready[0].Fd = int32(fd)
		_, _ = unix.Poll(ready, 0) // then it tells of nothing
	})
	return closed != nil || ready[0].Revents&unix.POLLHUP != 0 // who has found nobody has closed it
}

// waits reports whether the caller still does. What was read of it before is not
// somebody else's.
func (n *notifier) waits(call *notification) bool {
	id := call.id
	return n.do(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

// pass has the kernel make the call as if nobody had been asked.
func (n *notifier) pass(call *notification) error {
	r := response{id: call.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	return n.do(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// answer has the call return a value, or fail where errno is not 0.
func (n *notifier) answer(call *notification, value int, errno unix.Errno) error {
	r := response{id: call.id, value: int64(value), errno: -int32(errno)}
	return n.do(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// give has the call return a new descriptor of the caller's for what fd is here.
func (n *notifier) give(call *notification, fd int, closeOnExec bool) error {
	g := gift{id: call.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, source: uint32(fd)}
	if closeOnExec {
		g.of = unix.O_CLOEXEC
	}
	return n.do(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&g))
}

func (n *notifier) do(request uintptr, p unsafe.Pointer) (err error) {
	if closed := n.raw.Control(func(fd uintptr) { err = control(fd, request, p) }); closed != nil {
		return closed
	}
	return err
}

func control(fd, request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}
