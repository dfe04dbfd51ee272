//go:build !unix

package server

import "net"

// newPacketSocket returns the best packetSocket for c.
func newPacketSocket(c net.PacketConn) packetSocket { return plainSocket{c} }
