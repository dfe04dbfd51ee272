//go:build !linux && !darwin && !freebsd

package admin

import (
	"errors"
	"net"
	"syscall"
)

// peer knows nobody: here the socket's folder alone says who may.
func peer(net.Conn) (uid int, known bool) { return 0, false }

// wsaRefused is WSAECONNREFUSED.
const wsaRefused = syscall.Errno(10061)

func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, wsaRefused)
}
