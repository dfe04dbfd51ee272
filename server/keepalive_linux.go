package server

import (
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

// keepAlive has the other end of a connection asked whether it is still there, as Go
// does for those that it accepts and dials.
func keepAlive(fd int) {
	for _, o := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},  // seconds
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15}, // seconds
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		_ = engine.SetOption(fd, o.level, o.name, o.value) // it goes without, too
	}
}

// handDown sets on a listening socket what Linux hands down to the connections that it
// accepts, and Go would set on each.
func handDown(fd int) {
	_ = engine.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err == nil && on == 0 {
		keepAlive(fd) // else its owner has said how
	}
}
