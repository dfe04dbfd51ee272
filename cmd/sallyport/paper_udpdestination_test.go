//go:build linux

package main_test

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// paperAskDestination makes a socket tell of each datagram which address it was
// sent to.
func paperAskDestination(pc *net.UDPConn, network string) error {
	if network == "udp4" {
		return ipv4.NewPacketConn(pc).SetControlMessage(ipv4.FlagDst, true)
	}
	return ipv6.NewPacketConn(pc).SetControlMessage(ipv6.FlagDst, true)
}

// paperDestination reads what the socket tells.
func paperDestination(oob []byte) string {
	var four ipv4.ControlMessage
	if four.Parse(oob) == nil && four.Dst != nil {
		return four.Dst.String()
	}
	var six ipv6.ControlMessage
	if six.Parse(oob) == nil && six.Dst != nil {
		return six.Dst.String()
	}
	return "an unknown address"
}
