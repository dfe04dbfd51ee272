package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/socks"
)

const (
	maxDatagram = 1<<16 - 1
	maxHeader5  = 262 // bytes in front of the payload of a datagram to or from the proxy
)

// ListenPacket asks a socks5 or socks5h proxy for a UDP association and returns
// when it stands. ctx bounds only ListenPacket itself. network is udp, udp4 or
// udp6, and address the one here that the datagrams to the proxy leave from:
// empty or ":0" for that of the connection to the proxy and any port.
//
// WriteTo sends to a *net.UDPAddr, or to any net.Addr whose String is "host:port".
// With socks5h that may be an Addr, whose name the proxy looks up; with socks5
// it must be an IP address. ReadFrom returns the sender as the proxy reports it.
// What does not come from the proxy's relay is dropped, and so are fragments
// (RFC 1928, section 7, lets them be). A payload may have 65,507 bytes less the
// header, which is 10 bytes long for IPv4, 22 for IPv6.
//
// The association lives until Close, which the caller must call, or until the
// proxy ends it: then reads and writes fail with an error that says so. LocalAddr
// is the address here; the one that the targets see is known only to the proxy.
// All methods are safe for concurrent use.
//
// In a chain all proxies must be for SOCKS 5: the datagrams take the same way as
// the connection. Where that cannot be had, the error matches errors.ErrUnsupported.
func (d *Dialer) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	listener, err := d.packetListener(ctx, network)
	if err != nil {
		return nil, d.fail(socks.Associate, "listen", err)
	}
	ctx, cancel := d.bound(ctx)
	defer cancel()
	// All zeros: behind a NAT, where the datagrams will come from is not known here.
	g, err := d.try(ctx, socks.Associate, socks.Addr{IP: netip.IPv4Unspecified()}, 1)
	if err != nil {
		return nil, err
	}
	c, err := d.associate(ctx, g, listener, network, address)
	if err != nil {
		g.conn.Close()
		return nil, d.fail(socks.Associate, "listen", err)
	}
	c.watcher.Go(c.watch)
	return c, nil
}

// associate opens the end here of an association that the proxy has granted.
func (d *Dialer) associate(ctx context.Context, g granted, l packetListener, network, address string) (*packetConn, error) {
	relay, ok := g.reply.bound("udp", g.conn.RemoteAddr(), d.proxy.host).(*net.UDPAddr)
	if !ok {
		return nil, errors.New("the proxy does not say at which address its UDP relay is")
	}
	local, err := localAddress(address, g.conn.LocalAddr(), relay.AddrPort().Addr())
	if err != nil {
		return nil, err
	}
	relayed, err := l.ListenPacket(ctx, network, local)
	if err != nil {
		return nil, because(ctx, err)
	}
	return &packetConn{proxy: d.proxy, control: g.conn, relayed: relayed, relay: relay}, nil
}

// packetListener opens the local ends of associations. *net.ListenConfig is one,
// and so is *Dialer.
type packetListener interface {
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// packetListener returns what sends datagrams the way that forward takes.
func (d *Dialer) packetListener(ctx context.Context, network string) (packetListener, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if err := d.proxy.carries(socks.Associate); err != nil {
		return nil, err
	}
	switch f := d.forward.(type) {
	case *Dialer: // the proxies before this one
		_, err := f.packetListener(ctx, network)
		return f, err
	case packetListener:
		return f, nil
	case *net.Dialer:
		config := &net.ListenConfig{Control: f.Control}
		if f.ControlContext != nil {
			config.Control = func(network, address string, c syscall.RawConn) error {
				return f.ControlContext(ctx, network, address, c)
			}
		}
		return config, nil
	}
	return nil, fmt.Errorf("the forward dialer has no ListenPacket: %w", errors.ErrUnsupported)
}

// localAddress returns where to send from: address, or without a host in it the
// IP address of the connection to the proxy, which is the one that proxies take
// datagrams from.
func localAddress(address string, control net.Addr, relay netip.Addr) (string, error) {
	if address == "" {
		address = ":0"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return address, nil
	}
	a, err := netip.ParseAddrPort(control.String())
	if err != nil || a.Addr().Unmap().Is4() != relay.Is4() {
		return address, nil
	}
	return net.JoinHostPort(a.Addr().Unmap().String(), port), nil
}

// packetConn is a UDP association.
type packetConn struct {
	proxy   proxy
	control net.Conn       // the association lives as long as it
	relayed net.PacketConn // to and from the relay, and whoever else sends
	relay   *net.UDPAddr
	watcher sync.WaitGroup

	reading sync.Mutex // guards in
	in      []byte
	writing sync.Mutex // guards out
	out     []byte

	mu     sync.Mutex // guards what follows; taken last, never while blocked
	closed bool       // by Close
	ended  error      // why the association has ended without Close
}

// watch returns when the association has ended.
func (c *packetConn) watch() {
	_, err := io.Copy(io.Discard, c.control)
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	c.mu.Lock()
	if !c.closed {
		c.ended = fmt.Errorf("the proxy has ended the association: %w", err)
	}
	c.mu.Unlock()
	_ = c.relayed.Close() // wakes those who wait
}

// Close ends the association.
func (c *packetConn) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	var err error
	if first {
		err = c.control.Close()
	}
	c.watcher.Wait()
	return err
}

// ReadFrom returns the payload of the next datagram and who sent it. What does
// not fit into b is lost, as with UDP itself.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if want := min(len(b)+maxHeader5, maxDatagram); len(c.in) < want {
		c.in = make([]byte, want)
	}
	for {
		n, from, err := c.relayed.ReadFrom(c.in)
		if err != nil {
			return 0, nil, c.fail("receiving", err)
		}
		if !c.isRelay(from) {
			continue
		}
		d, header, err := socks.ParseDatagram5(c.in[:n])
		if err != nil || d.Fragment != 0 {
			continue
		}
		return copy(b, c.in[header:n]), reply{host: d.Host}.addr("udp"), nil
	}
}

// isRelay reports whether a datagram from there comes from the proxy.
func (c *packetConn) isRelay(from net.Addr) bool {
	udp, ok := from.(*net.UDPAddr)
	return ok && udp.Port == c.relay.Port && udp.IP.Equal(c.relay.IP)
}

// WriteTo sends one datagram to a target.
func (c *packetConn) WriteTo(b []byte, target net.Addr) (int, error) {
	host, err := c.host(target)
	if err != nil {
		return 0, c.fail("sending", err)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out = append(socks.Datagram5{Host: host}.Append(c.out[:0]), b...)
	if _, err := c.relayed.WriteTo(c.out, c.relay); err != nil {
		return 0, c.fail("sending", err)
	}
	return len(b), nil
}

// host writes a target as the header of a datagram carries it.
func (c *packetConn) host(target net.Addr) (socks.Host5, error) {
	if target == nil {
		return socks.Host5{}, errors.New("no address to send to")
	}
	a, err := socks.ParseAddr(target.String())
	if err == nil && !a.IP.IsValid() && !c.proxy.names() {
		err = fmt.Errorf("%s is not an IP address, and only a socks5h:// proxy is sent names", a.Name)
	}
	return socks.Host5(a), err
}

func (c *packetConn) LocalAddr() net.Addr                { return c.relayed.LocalAddr() }
func (c *packetConn) SetDeadline(t time.Time) error      { return c.relayed.SetDeadline(t) }
func (c *packetConn) SetReadDeadline(t time.Time) error  { return c.relayed.SetReadDeadline(t) }
func (c *packetConn) SetWriteDeadline(t time.Time) error { return c.relayed.SetWriteDeadline(t) }

// fail says what failed, and why if that is the end of the association.
func (c *packetConn) fail(step string, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, net.ErrClosed) && c.ended != nil && !c.closed {
		err = c.ended
	}
	return &opError{c.proxy.String(), socks.Associate.String(), step, err}
}
