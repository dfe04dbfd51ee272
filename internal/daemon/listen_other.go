//go:build !linux

package daemon

import (
	"fmt"
	"net"
	"runtime"
	"syscall"
)

// listenConfig is how listening sockets are opened. Only Linux can bind them to an
// interface.
func listenConfig(device string) net.ListenConfig {
	if device == "" {
		return net.ListenConfig{}
	}
	return net.ListenConfig{Control: func(string, string, syscall.RawConn) error {
		return fmt.Errorf("%s cannot listen on the interface %s: write its address", runtime.GOOS, device)
	}}
}

// boundDevice: only Linux can bind sockets to an interface.
func boundDevice(syscall.Conn) string { return "" }
