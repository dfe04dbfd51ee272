//go:build unix

package server

import (
	"net"
	"syscall"
)

// noBroadcast takes back what the standard library allows every UDP socket: to
// send to a network's broadcast address. Which addresses are such only the
// system knows. It refuses them from now on.
func noBroadcast(c net.PacketConn) error {
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return nil
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 0)
	})
	if err != nil {
		return err
	}
	return set
}
