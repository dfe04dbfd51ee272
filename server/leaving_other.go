//go:build !linux

package server

import (
	"fmt"
	"runtime"
	"syscall"
)

// set says that it cannot be done, if anything is to be set.
func (l Leaving) set(syscall.RawConn) error {
	if l.Device == "" && l.Mark == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s has neither SO_BINDTODEVICE nor SO_MARK", Unreachable, runtime.GOOS)
}

// portByTarget does nothing: a port is chosen when the socket is bound.
func portByTarget(syscall.RawConn) error { return nil }
