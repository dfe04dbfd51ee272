//go:build linux || darwin || freebsd

package admin

import (
	"errors"
	"net"
	"syscall"
)

func control(c net.Conn, do func(fd int)) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return
	}
	if raw, err := u.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) }) // where it fails, nobody is known
	}
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
