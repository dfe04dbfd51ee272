//go:build !linux

package server

import (
	"fmt"
	"runtime"
	"syscall"
)

// set says that it cannot be done.
func (l Leaving) set(syscall.RawConn) error {
	return fmt.Errorf("%w: %s has neither SO_BINDTODEVICE nor SO_MARK", Unreachable, runtime.GOOS)
}
