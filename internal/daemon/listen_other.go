//go:build !linux

package daemon

import "net"

// listenConfig is how listening sockets are opened.
func listenConfig() net.ListenConfig { return net.ListenConfig{} }
