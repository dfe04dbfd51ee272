package daemon

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/sallyport/sallyport/internal/config"
)

// cannotOpen says that a listener cannot open its address, and what a person can do
// about it. The open doors are those of a server that reads its settings anew.
func cannotOpen(l config.Listener, open []*door, err error) error {
	err = fmt.Errorf("the listener %q cannot open its address: %w", l.Name, err)
	_, port := hostAndPort(l.Listen)
	switch {
	case port == "": // no socket of IP
	case errors.Is(err, syscall.EADDRINUSE):
		if d := onPort(open, port); d != nil {
			return fmt.Errorf("%w; this server itself has %s: what overlaps with that can be opened only by a restart", err, d.socket.Addr())
		}
		return fmt.Errorf("%w; another program listens there: stop that, or write another port", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w; ports below 1024 are for root, and for what `sallyport service install` has installed", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; write an address that this machine has, or none for all that it has (`:%s`)", err, port)
	}
	return err
}

// hostAndPort takes the address of a listener apart; nothing: it is a unix socket.
func hostAndPort(address string) (host, port string) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "udp/"))
	if err != nil || strings.HasPrefix(address, "unix:") {
		return "", ""
	}
	return host, port
}

// onPort returns the first of the doors at that port; nil: none is.
func onPort(doors []*door, port string) *door {
	for _, d := range doors {
		if _, its := hostAndPort(d.socket.Addr().String()); its == port {
			return d
		}
	}
	return nil
}
