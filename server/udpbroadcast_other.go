//go:build !unix

package server

import "net"

// noBroadcast does nothing where the option is spelled otherwise: there only
// 255.255.255.255 is refused.
func noBroadcast(net.PacketConn) error { return nil }
