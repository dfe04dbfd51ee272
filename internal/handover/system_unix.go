//go:build linux || darwin || freebsd

package handover

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollable returns f with reads and writes that do not hold a thread, and that end
// when it is closed; f itself where that cannot be had.
func pollable(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return f
	}
	defer f.Close()
	if f.Name() != logName { // which others write to as well
		_ = unix.SetNonblock(fd, true) // where it fails, it is what it was
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// duplicate returns a file of the same socket. The socket's own File would not do:
// what starts processes makes that block, and the socket with it, as both are one.
func duplicate(socket syscall.Conn, name string) (*os.File, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = raw.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 3) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
