package server

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// set sets the options of a socket that is not connected yet.
func (l Leaving) set(c syscall.RawConn) error {
	var err error
	control := c.Control(func(fd uintptr) {
		if l.Device != "" {
			err = wrapOption("SO_BINDTODEVICE "+l.Device, unix.BindToDevice(int(fd), l.Device))
		}
		if l.Mark != 0 && err == nil {
			err = wrapOption(fmt.Sprint("SO_MARK ", l.Mark), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(l.Mark)))
		}
	})
	return errors.Join(err, control)
}

// portByTarget has the system choose the port of a socket that is bound to an address alone only when it is connected: the
// same one then serves towards many targets. Chosen at once, as for who wants to listen, each of the address's ports (28,232 by
// default) could be in use once, the minute after its connection's end included.
func portByTarget(c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // a system older than Linux 4.2 does without
	})
}

// wrapOption says what could not be set: the target is out of reach then.
func wrapOption(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", Unreachable, what, err)
}
