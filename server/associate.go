package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// AssociatePolicy is a [Policy] that can say of a client, before it has named a
// destination, that none could be granted to it. A Policy that is not one is
// asked for each destination only: every client gets its association then.
type AssociatePolicy interface {
	Policy
	// MayAssociate returns nil, or an error that wraps a [Reason]. The request's
	// Target is where the client says it will send from, and no destination. An
	// association without a granted destination is ended at until, with the reason
	// [Schedule]; zero: it is not. It may block, must honour ctx, and is called from
	// many goroutines at once.
	MayAssociate(ctx context.Context, r *Request) (until time.Time, err error)
}

// PacketOutbound is an [Outbound] that can send datagrams. Through one that is
// not, no association is granted.
type PacketOutbound interface {
	Outbound
	// ListenPacket opens a socket that is not connected. The network is udp4 or
	// udp6. The caller closes it.
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// associate serves a UDP ASSOCIATE request (RFC 1928, sections 4, 6 and 7). Every
// new destination is decided on by itself, when the first datagram for it comes.
func (x *exchange) associate(ctx context.Context) error {
	associations, source := &x.server.state.associations, x.session.Client.Addr()
	if !associations.add(source) {
		return x.deny(fmt.Errorf("%w: too many associations, in sum or from this source", Busy), netip.AddrPort{})
	}
	defer associations.remove(source)
	a := &association{server: x.server, session: x.session, request: *x.request}
	defer a.close()
	x.session.leaveReviewsTo(a.review)
	at, err := x.prepare(ctx, a)
	if err != nil {
		return x.deny(err, netip.AddrPort{})
	}
	x.server.state.associated.add(at)
	defer x.server.state.associated.remove(at)
	x.head = nil // whatever it says, it is no datagram
	bound := at
	if x.listener.Advertise.IsValid() {
		bound = netip.AddrPortFrom(x.listener.Advertise, at.Port())
	}
	x.session.note(func(r *Record) { r.Bound = bound })
	if err := x.grant(bound); err != nil {
		return err
	}
	return a.run(ctx, x.conn)
}

// prepare asks what can be asked before a destination is known, and opens all
// sockets of a, so that nothing is granted that cannot be kept. It returns where
// the client is to send to.
func (x *exchange) prepare(ctx context.Context, a *association) (netip.AddrPort, error) {
	t := x.server.timeouts()
	ctx, end := x.await(ctx, t.Connect, true)
	defer end()
	until, err := x.mayAssociate(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a.endsAt(until)
	a.idle = t.Association
	if home := x.clientPort(); home.IsValid() {
		a.home.Store(net.UDPAddrFromAddrPort(home))
	}
	client, err := x.listenClient(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a.client = newPacketSocket(client)
	sockets, err := listenTargets(ctx, x.server.outbound(), [families]bool{true, true})
	if err != nil {
		return netip.AddrPort{}, err
	}
	a.direct = &exit{sockets: sockets, usual: true}
	if ctx.Err() != nil {
		return netip.AddrPort{}, context.Cause(ctx)
	}
	return udpAddrPort(client.LocalAddr()), nil
}

func (x *exchange) mayAssociate(ctx context.Context) (until time.Time, err error) {
	if x.server.Policy == nil {
		return time.Time{}, fmt.Errorf("%w: the server has no policy", Denied)
	}
	p, ok := x.server.Policy.(AssociatePolicy)
	if !ok {
		return time.Time{}, nil
	}
	until, err = p.MayAssociate(ctx, x.request)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return until, err
}

// clientPort returns where the client says it will send from. It is invalid
// where the client leaves that open, or names an address that it does not come
// from: behind NAT its port is another one too.
func (x *exchange) clientPort() netip.AddrPort {
	client, says := x.session.Client.Addr(), x.request.Target
	same := says.IP.IsValid() && (says.IP.IsUnspecified() || says.IP == client.WithZone(""))
	if !same || says.Port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(client, says.Port)
}

// listenClient opens the socket that the client is to send to: on the address
// of ours that it has come to.
func (x *exchange) listenClient(ctx context.Context) (net.PacketConn, error) {
	local := addrPort(x.conn.LocalAddr()).Addr()
	network := "udp4"
	if local.Is6() {
		network = "udp6"
	}
	ports := x.listener.BindPorts
	for port := range ports.inAnyOrder() {
		// Not by the Outbound: this is towards the client.
		c, err := (&net.ListenConfig{}).ListenPacket(ctx, network, netip.AddrPortFrom(local, port).String())
		if !errors.Is(err, syscall.EADDRINUSE) {
			return c, err
		}
	}
	return nil, fmt.Errorf("%w: every port from %d to %d is taken", NoPort, ports.First, ports.Last)
}

// listenTargets opens a socket for each family that is wanted and this machine has.
func listenTargets(ctx context.Context, o Outbound, wanted [families]bool) (sockets [families]packetSocket, err error) {
	out, ok := o.(PacketOutbound)
	if !ok {
		return sockets, fmt.Errorf("%w: no datagrams by this way out", Unsupported)
	}
	var errs [families]error
	for f, network := range [families]string{v4: "udp4", v6: "udp6"} {
		if !wanted[f] {
			continue
		}
		c, err := out.ListenPacket(ctx, network, ":0")
		if err == nil {
			sockets[f], err = newPacketSocket(c), noBroadcast(c)
		}
		errs[f] = err
		if sockets[f] != nil && err != nil || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return sockets, errs[f]
		}
	}
	if sockets[v4] == nil && sockets[v6] == nil {
		return sockets, errors.Join(errs[:]...)
	}
	return sockets, nil
}

// endpoints are the addresses of ours that clients of associations send to. They
// are no targets. The zero value is empty.
type endpoints struct {
	mu  sync.Mutex
	set map[netip.AddrPort]struct{}
}

func (e *endpoints) add(a netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		e.set = make(map[netip.AddrPort]struct{})
	}
	e.set[a] = struct{}{}
}

func (e *endpoints) remove(a netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.set, a)
}

func (e *endpoints) has(a netip.AddrPort) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, found := e.set[a]
	return found
}
