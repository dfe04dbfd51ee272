//go:build amd64 || arm64

package intercept

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Another process is known by one of its threads, which waits in a call meanwhile. What
// is read of it counts only if it still waits afterwards ([notifier.waits]).

// readMemory reads what there is of a thread's memory, at most as much as p holds.
func readMemory(thread uint32, at uint64, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	return unix.ProcessVMReadv(int(thread), local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(p)}}, 0)
}

// writeMemory writes p to a thread's memory, all of it or with an error.
func writeMemory(thread uint32, at uint64, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	n, err := unix.ProcessVMWritev(int(thread), local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(p)}}, 0)
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	return err
}

// takeDescriptor returns a descriptor here for what one of a thread is.
func takeDescriptor(thread uint32, descriptor int) (int, error) {
	p, err := openThread(thread)
	if err != nil {
		return -1, err
	}
	defer closeDescriptor(p)
	return unix.PidfdGetfd(p, descriptor, 0)
}

// openThread returns a pidfd of a thread, whose descriptors need not be those of the others
// (unshare(2)), and may be there when the first thread, which stands for all, has ended.
// Before Linux 6.9 there is only that one.
func openThread(thread uint32) (int, error) {
	p, err := unix.PidfdOpen(int(thread), unix.PIDFD_THREAD)
	if !errors.Is(err, unix.EINVAL) {
		return p, err
	}
	s, err := statusOf(thread)
	if err != nil {
		return -1, err
	}
	process, err := s.process()
	if err != nil {
		return -1, err
	}
	return unix.PidfdOpen(process, 0)
}

// closeDescriptor closes what no os.File has. Nobody would hear of a fault.
func closeDescriptor(fd int) { _ = unix.Close(fd) }

// namespaces name the network that a thread is in, and the users that there are for it
// (namespaces(7)).
type namespaces struct{ network, users string }

func namespacesOf(thread int) (n namespaces, err error) {
	if n.network, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", thread)); err == nil {
		n.users, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/user", thread))
	}
	return n, err
}

// canLookInside reports whether the system lets one process read and take from another
// at all: containers may not.
func canLookInside() error {
	self, probe := uint32(os.Getpid()), []byte{1}
	var got [1]byte
	if _, err := readMemory(self, addressOf(probe), got[:]); err != nil {
		return fmt.Errorf("process_vm_readv: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	fd, err := takeDescriptor(self, int(null.Fd()))
	if err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	closeDescriptor(fd)
	return yama(yamaScope, os.Geteuid() == 0)
}

// yamaScope is the file that says who may look into whom, if the kernel asks for that
// (Documentation/admin-guide/LSM/Yama.rst).
const yamaScope = "/proc/sys/kernel/yama/ptrace_scope"

// yama reports whether somebody may look into descendants, by that file.
func yama(file string, isRoot bool) error {
	const descendants, root = 1, 2 // and nobody
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // it does not ask
	}
	scope, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || scope <= descendants || scope == root && isRoot {
		return nil
	}
	return fmt.Errorf("kernel.yama.ptrace_scope=%d forbids to look into other programs", scope)
}
