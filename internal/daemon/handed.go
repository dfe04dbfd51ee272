package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/handover"
	"github.com/sallyport/sallyport/server"
)

// own begins the name of a unix socket that is this server's own to remove from the
// file system, and not the service manager's. It is in no name that [handover.Escape]
// makes.
const own = "@"

func isOwn(name string) bool { return strings.HasPrefix(name, own) }

// open opens the socket of a new door, or takes it from those that were handed over
// (nil: none were).
func (d *door) open(ctx context.Context, in *handover.Inherited) (err error) {
	l := d.settings
	taken, err := takeSocket(l, in)
	switch {
	case err != nil:
		return err
	case !taken.IsOpen():
		d.removes = true
		d.socket, err = openSocket(ctx, l.Listen)
		return err
	case taken.Packets != nil:
		d.socket = packets{taken.Packets}
		return nil
	}
	d.removes = isOwn(taken.Name)
	d.socket = server.Aside(taken.Listener)
	return nil
}

// takeSocket returns the socket that has the listener's address, or, where any free
// port will do, its name. A service manager that has opened another address for this
// listener contradicts the settings, and no guess would be right; after an upgrade
// with new settings that is as it should be.
func takeSocket(l config.Listener, in *handover.Inherited) (handover.Socket, error) {
	named := func(s handover.Socket) bool {
		name := strings.TrimPrefix(s.Name, own)
		return name == l.Name || name == handover.Escape(l.Name)
	}
	taken := in.Take(func(s handover.Socket) bool { return fits(s, l.Listen, named(s)) })
	if taken.IsOpen() || in == nil || in.Predecessor != nil {
		return taken, nil
	}
	if other := in.Take(named); other.IsOpen() {
		other.Close()
		return taken, fmt.Errorf("the service manager has opened %s for it, and the settings say %s", other.Addr(), l.Listen)
	}
	return taken, nil
}

// fits reports whether a socket is what a listener asks for; one that asks for any
// free port is content with its own of before.
func fits(s handover.Socket, listen string, named bool) bool {
	if path, isUnix := strings.CutPrefix(listen, "unix:"); isUnix {
		at, ok := s.Addr().(*net.UnixAddr)
		return ok && s.Listener != nil && at.Name == path
	}
	at, udp := strings.CutPrefix(listen, "udp/")
	if udp != (s.Packets != nil) {
		return false
	}
	device := ""
	if host, port, err := net.SplitHostPort(at); err == nil && isInterface(host) {
		at, device = ":"+port, host
	}
	var have netip.AddrPort
	switch a := s.Addr().(type) {
	case *net.TCPAddr:
		have = a.AddrPort()
	case *net.UDPAddr:
		have = a.AddrPort()
	default:
		return false
	}
	return atAddress(have, at, named) && deviceOf(s) == device
}

// atAddress reports whether an address is the one that is written.
func atAddress(have netip.AddrPort, listen string, named bool) bool {
	network := "tcp" + networkOf(listen)
	want, err := net.ResolveTCPAddr(network, listen)
	switch {
	case err != nil:
		return false
	case want.Port == 0 && !named, want.Port != 0 && want.Port != int(have.Port()):
		return false
	case want.IP == nil || want.IP.IsUnspecified():
		return have.Addr().IsUnspecified() && (network == "tcp" || have.Addr().Unmap().Is4())
	}
	is := want.AddrPort().Addr()
	return is.Unmap() == have.Addr().Unmap()
}

// deviceOf returns the interface that a socket is bound to; empty: none.
func deviceOf(s handover.Socket) string {
	var c any = s.Listener
	if s.Packets != nil {
		c = s.Packets
	}
	if raw, ok := c.(syscall.Conn); ok {
		return boundDevice(raw)
	}
	return ""
}

// closeRest closes what was handed over and is not wanted.
func closeRest(in *handover.Inherited, log *slog.Logger) {
	left := in.Close()
	if len(left) > 0 && in.Predecessor == nil {
		log.Warn("the service manager has opened sockets that no listener has: they are closed", "sockets", left)
	}
}

// removePath says whether a unix socket is removed from the file system when it is
// closed: not by a process that has handed it over, nor by one that does not serve
// yet.
func (d *door) removePath(removes bool) {
	if u, ok := d.socket.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(removes)
	}
}

// handed are the sockets of this daemon as they are handed over. Callers hold
// reloading.
func (d *Daemon) handed() []handover.Handed {
	var all []handover.Handed
	for _, one := range d.inForce.doors {
		name := handover.Escape(one.settings.Name)
		if one.removes {
			name = own + name
		}
		var at any = one.socket
		if p, ok := at.(packets); ok {
			at = p.PacketConn
		}
		if s, ok := at.(syscall.Conn); ok {
			all = append(all, handover.Handed{Name: name, Socket: s})
		}
	}
	if d.control != nil {
		all = append(all, handover.Handed{Name: d.control.name, Socket: d.control.UnixListener})
	}
	if d.page != nil {
		if s, ok := d.page.socket.(syscall.Conn); ok {
			all = append(all, handover.Handed{Name: handedPage, Socket: s})
		}
	}
	return all
}
