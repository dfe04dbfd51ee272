//go:build !unix

package relay

import "net"

// newSocket returns nil: there are streams only.
func newSocket(net.Conn) port { return nil }

// pendingError returns nil: it cannot be told. A reset is noticed by the next read or write.
func pendingError(net.Conn) error { return nil }
