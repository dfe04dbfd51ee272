package engine

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop waits in the system, on a thread of its own as long as it does. In the runtime's poller, which watches for all
// goroutines, what comes would wake that first, and then the loop on another thread, and each time the loop had nothing to do the
// runtime would look for other work and its monitor wake with it. What the runtime asks for in return is a processor to spare
// (mostLoops): it takes none away from who waits, as long as another one is idle.

// pollNow takes the events that have come for a descriptor of epoll, and returns how many they are.
func pollNow(fd int, events []unix.EpollEvent) int {
	n, _ := call(unix.SYS_EPOLL_PWAIT, fd, unsafe.Pointer(unsafe.SliceData(events)), uintptr(len(events)), 0)
	return max(0, n)
}

// coarse is set where the system does not know how to wait to the nanosecond (before Linux 5.11, or where it is not allowed to).
var coarse atomic.Bool

// poll is pollNow, but that it waits until something has come, or a time of the loops' clock has. It may return early.
func poll(fd int, events []unix.EpollEvent, until time.Duration) int {
	for !coarse.Load() {
		n, err := pollUntil(fd, events, until)
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return max(0, n)
		}
		coarse.Store(true)
	}
	milliseconds := -1
	if until < never {
		left := max(0, until-time.Since(epoch))
		milliseconds = int(min(left, time.Hour)/time.Millisecond) + 1
	}
	n, err := unix.EpollWait(fd, events, milliseconds)
	if err != nil {
		return 0
	}
	return n
}

// span is a time as epoll_pwait2 takes it on every machine. That of package unix is shorter where a word has 32 bits.
type span struct{ seconds, nanoseconds int64 }

// pollUntil is poll by epoll_pwait2.
func pollUntil(fd int, events []unix.EpollEvent, until time.Duration) (int, error) {
	var wait *span
	if until < never {
		left := max(0, until-time.Since(epoch))
		wait = &span{int64(left / time.Second), int64(left % time.Second)}
	}
	n, _, failed := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)),
		uintptr(unsafe.Pointer(wait)), 0, 0)
	if failed != 0 {
		return 0, failed
	}
	return int(n), nil
}

// bell wakes a loop. It is a descriptor of eventfd's: whenever something is written to it epoll tells, once, so nobody reads it.
type bell struct{ fd int }

// newBell returns a bell for who waits by a descriptor of epoll.
func newBell(epoll int) (bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return bell{}, os.NewSyscallError("eventfd2", err)
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil { // of no handle
		closeNow(fd)
		return bell{}, os.NewSyscallError("epoll_ctl", err)
	}
	return bell{fd}, nil
}

// ring wakes the loop. It counts to 2^64, which takes longer than any process lasts.
func (b bell) ring() {
	_, _ = Write(b.fd, binary.NativeEndian.AppendUint64(nil, 1))
}

func (b bell) close() { closeNow(b.fd) }
