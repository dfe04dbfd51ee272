//go:build darwin || freebsd

package admin

import (
	"net"

	"golang.org/x/sys/unix"
)

// peer returns the user at the other end of a unix socket. Where the system
// cannot tell, it is nobody's.
func peer(c net.Conn) (uid int, known bool) {
	uid = -1
	control(c, func(fd int) {
		if who, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED); err == nil {
			uid = int(who.Uid)
		}
	})
	return uid, true
}
