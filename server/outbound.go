package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/sallyport/sallyport/socks"
)

// Way is how the sessions of a rule leave this machine. A nil *Way is the
// Server's own Outbound. It must not be changed once it is in use.
type Way struct {
	Via      string   // what the record calls it; may be empty
	Upstream Upstream // the proxies in between; nil: Outbound reaches the targets
	Outbound Outbound // without an Upstream; nil: the Server's
}

// Upstream reaches targets through other proxies. Its methods block until a
// proxy has answered, must honour ctx, and are called from many goroutines at
// once. Each also says which proxy it was, in a form that is fit for a log. An
// error wraps a [Reason]. The caller closes what it gets.
type Upstream interface {
	// Connect connects to a target. The connection's RemoteAddr is the target's
	// address as far as that is known here.
	Connect(ctx context.Context, d Departure) (c net.Conn, proxy string, err error)
	// Bind has a proxy wait for one connection of the target. The listener's Addr
	// is where that proxy waits, and Accept returns once; its errors wrap a
	// [Reason] too.
	Bind(ctx context.Context, d Departure) (ln net.Listener, proxy string, err error)
	// Associate opens a way for datagrams to any number of addresses; of d it needs
	// only the client. ReadFrom says who has sent a datagram.
	Associate(ctx context.Context, d Departure) (c net.PacketConn, proxy string, err error)
}

// Departure is what an [Upstream] is asked for.
type Departure struct {
	Client netip.AddrPort   // who asks
	Local  netip.AddrPort   // the address that the client has connected to
	Target socks.Addr       // as the client has named it
	Addrs  []netip.AddrPort // what of it was judged: nothing else may be asked for. Empty: the target's name is to be sent
	Proxy  string           // which proxy carries the client's connection to the same host; empty: none
}

// upstream returns nil where w reaches targets itself.
func (w *Way) upstream() Upstream {
	if w == nil {
		return nil
	}
	return w.Upstream
}

func (w *Way) via() string {
	if w == nil {
		return ""
	}
	return w.Via
}

// outboundOf returns what opens the sockets of a way without an Upstream.
func (s *Server) outboundOf(w *Way) Outbound {
	if w == nil || w.Outbound == nil {
		return s.outbound()
	}
	return w.Outbound
}

// From returns an Outbound whose sockets all have the address ip, which must be
// one of this machine's. Targets of the other family are out of its reach: the
// error says so and wraps [Unreachable].
func From(ip netip.Addr) PacketOutbound { return Leaving{Address: ip.Unmap()} }

// Leaving is an Outbound that says how its sockets leave this machine. Device and
// Mark are for Linux, where they need CAP_NET_RAW and CAP_NET_ADMIN; elsewhere, or
// where they may not be set, no socket can be opened.
type Leaving struct {
	Address netip.Addr // which the sockets have, as with [From]; zero: any
	Device  string     // the interface that they leave by (SO_BINDTODEVICE); empty: any
	Mark    uint32     // of their packets, for routing and firewalls (SO_MARK); 0: none
}

// DialContext implements [Outbound].
func (l Leaving) DialContext(ctx context.Context, network, to string) (net.Conn, error) {
	target, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", Unreachable, err)
	}
	if err := l.reaches(target.Addr().Is4()); err != nil {
		return nil, err
	}
	return dialTCP(ctx, *l.Dialer(), network, to)
}

// Dialer returns a Dialer for TCP that leaves in the same way, and looks names up.
func (l Leaving) Dialer() *net.Dialer {
	d := &net.Dialer{Control: l.control()}
	if l.Address.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.Address, 0))
		d.Control = func(_, _ string, c syscall.RawConn) error { return errors.Join(l.set(c), portByTarget(c)) }
	}
	return d
}

// Listen implements [Outbound].
func (l Leaving) Listen(ctx context.Context, network, to string) (net.Listener, error) {
	at, err := l.local(network == "tcp4", to)
	if err != nil {
		return nil, err
	}
	return (&net.ListenConfig{Control: l.control()}).Listen(ctx, network, at)
}

// ListenPacket implements [PacketOutbound].
func (l Leaving) ListenPacket(ctx context.Context, network, to string) (net.PacketConn, error) {
	at, err := l.local(network == "udp4", to)
	if err != nil {
		return nil, err
	}
	return (&net.ListenConfig{Control: l.control()}).ListenPacket(ctx, network, at)
}

// control sets the options of a socket; nil: there are none.
func (l Leaving) control() func(string, string, syscall.RawConn) error {
	if l.Device == "" && l.Mark == 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error { return l.set(c) }
}

// local puts the address in the place of whatever host was to be listened on.
func (l Leaving) local(is4 bool, listen string) (string, error) {
	_, port, err := net.SplitHostPort(listen)
	switch {
	case err != nil:
		return "", err
	case !l.Address.IsValid():
		return listen, nil
	}
	return net.JoinHostPort(l.Address.String(), port), l.reaches(is4)
}

func (l Leaving) reaches(is4 bool) error {
	if !l.Address.IsValid() || is4 == l.Address.Is4() {
		return nil
	}
	return fmt.Errorf("%w: the rule's outgoing address %s is of the other family", Unreachable, l.Address)
}

// passage is a target that was granted, and the way to it.
type passage struct {
	way   *Way
	addrs []netip.AddrPort // of the target; empty: only its name is known
	name  string           // where addrs is empty
	offer bool             // name is a virtual port
	proxy string           // see Departure
}

// passage puts a grant and the target's port together. The addresses lie in room, if
// there is enough of that.
func (x *exchange) passage(room []netip.AddrPort, g Grant) (passage, error) {
	if g.Virtual {
		return passage{name: x.request.Target.Name, offer: true}, nil
	}
	p := passage{way: g.Way}
	if g.ByName {
		p.name = x.request.Target.String()
		return p, nil
	}
	var err error
	p.addrs, err = x.server.targets(room, g.Addrs, x.request.Target.Port)
	return p, err
}

func departure(r *Request, p passage) Departure {
	return Departure{Client: r.Client, Local: r.Local, Target: r.Target, Addrs: p.addrs, Proxy: p.proxy}
}
