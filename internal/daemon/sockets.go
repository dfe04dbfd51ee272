package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/server"
)

// socket is one that a listener has: for connections, or for datagrams.
type socket interface {
	Addr() net.Addr
	Close() error
}

// packets is a socket for datagrams.
type packets struct{ net.PacketConn }

// Addr returns where it listens.
func (p packets) Addr() net.Addr { return p.LocalAddr() }

// openSocket opens the address of a listener, as the settings write it.
func openSocket(ctx context.Context, listen string) (socket, error) {
	if path, isUnix := strings.CutPrefix(listen, "unix:"); isUnix {
		if err := admin.Vacate(ctx, path); err != nil {
			return nil, err
		}
		return (&net.ListenConfig{}).Listen(ctx, "unix", path)
	}
	at, udp := strings.CutPrefix(listen, "udp/")
	device := ""
	if host, port, err := net.SplitHostPort(at); err == nil && isInterface(host) {
		at, device = ":"+port, host
	}
	if udp && device != "" {
		return nil, fmt.Errorf("UDP cannot be listened for on an interface: write the address of %s that answers are to come from", device)
	}
	if udp {
		c, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp"+networkOf(at), at)
		if err != nil {
			return nil, err
		}
		return packets{c}, nil
	}
	lc := listenConfig(device)
	l, err := lc.Listen(ctx, "tcp"+networkOf(at), at)
	if err != nil {
		return nil, err
	}
	return server.Aside(l), nil
}

// isInterface reports whether an interface of this machine has the name. It is
// asked before it is taken for a host's.
func isInterface(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil || name == "" {
		return false
	}
	_, err := net.InterfaceByName(name)
	return err == nil
}

// indexOf tells the interface that a listener is bound to from another that has
// its name by now; 0: it is bound to none.
func indexOf(listen string) int {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(listen, "udp/"))
	if err != nil || !isInterface(host) {
		return 0
	}
	i, err := net.InterfaceByName(host)
	if err != nil {
		return 0
	}
	return i.Index
}

// serverDoor returns the server's side of a listener.
func serverDoor(s *server.Server, at socket, l server.Listener) (*server.Door, error) {
	switch at := at.(type) {
	case net.Listener:
		return s.Door(at, l), nil
	case packets:
		return s.PacketDoor(at.PacketConn, l), nil
	}
	return nil, fmt.Errorf("a socket of type %T", at)
}

// networkOf keeps a listener that is written as an IPv4 address to IPv4: for
// Go, 0.0.0.0 would mean every IPv6 address too.
func networkOf(listen string) string {
	if at, err := netip.ParseAddrPort(listen); err == nil && at.Addr().Is4() {
		return "4"
	}
	return ""
}
