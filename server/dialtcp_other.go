//go:build !linux

package server

import (
	"context"
	"net"
)

// dialTCP connects to an IP address.
func dialTCP(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	return d.DialContext(ctx, network, address)
}
