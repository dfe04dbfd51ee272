package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// bind serves a BIND request (the paper, section 2): it listens, tells the
// client where, waits for the application server, tells the client who came,
// and relays.
func (x *exchange) bind(ctx context.Context) error {
	binds, source := &x.server.state.binds, x.session.Client.Addr()
	if !binds.add(source) {
		return x.deny(fmt.Errorf("%w: too many BINDs wait, in sum or from this source", Busy), netip.AddrPort{})
	}
	peer, err := func() (net.Conn, error) {
		defer binds.remove(source)
		return x.awaitPeer(ctx)
	}()
	if err != nil {
		return x.deny(err, x.session.Address)
	}
	defer peer.Close()
	if err := x.grant(x.session.Address); err != nil {
		return err
	}
	return x.relay(ctx, peer)
}

// awaitPeer returns the application server's connection. A client that leaves
// meanwhile ends it.
func (x *exchange) awaitPeer(ctx context.Context) (net.Conn, error) {
	t := x.server.timeouts()
	ctx, end := x.await(ctx, t.Connect+t.Bind, true)
	defer end()
	ln, grant, err := x.openBind(ctx, t.Connect)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	if err := x.grant(x.session.Bound); err != nil {
		return nil, err
	}
	return x.accept(ctx, ln, grant, t.Bind)
}

// openBind decides, and opens what the application server is to connect to.
func (x *exchange) openBind(ctx context.Context, limit time.Duration) (net.Listener, Grant, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, TimedOut)
	defer cancel()
	grant, err := x.mayBind(ctx)
	if err != nil {
		return nil, grant, err
	}
	if grant.Way.upstream() != nil {
		ln, err := x.bindBy(ctx, grant)
		return ln, grant, err
	}
	ln, err := x.listen(ctx, grant)
	if err == nil {
		bound := x.advertised(ln)
		x.session.note(func(r *Record) { r.Bound = bound })
	}
	return ln, grant, err
}

// bindBy has an upstream wait for the application server: where it waits is what
// the client is told.
func (x *exchange) bindBy(ctx context.Context, g Grant) (net.Listener, error) {
	p := passage{proxy: x.session.Proxy}
	for _, a := range g.Addrs {
		if isHost(a) || x.anyPeer() {
			p.addrs = append(p.addrs, netip.AddrPortFrom(a, x.request.Target.Port))
		}
	}
	ln, proxy, err := g.Way.Upstream.Bind(ctx, departure(x.request, p))
	x.session.note(func(r *Record) { r.Proxy = proxy })
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), closeListener(ln))
	}
	if err != nil {
		return nil, err
	}
	bound := addrPort(ln.Addr())
	if !bound.IsValid() {
		return nil, errors.Join(fmt.Errorf("%w: %s does not say at which address it waits", UpstreamFailed, proxy), ln.Close())
	}
	x.session.note(func(r *Record) { r.Bound = bound })
	return ln, nil
}

func closeListener(ln net.Listener) error {
	if ln == nil {
		return nil
	}
	return ln.Close()
}

// mayBind decides, and checks what a rule demands of a BIND beyond that.
func (x *exchange) mayBind(ctx context.Context) (Grant, error) {
	grant, err := x.decide(ctx)
	if err != nil {
		return grant, err
	}
	if err := Foresee(x.request, grant); err != nil {
		return grant, err
	}
	name := ""
	if grant.ByName {
		name = x.request.Target.Name
	}
	proxy, held := x.server.state.primaries.has(x.session.Client.Addr(), x.request.Identity.Name, grant.Addrs, name)
	if grant.Way.upstream() != nil {
		x.session.note(func(r *Record) { r.Proxy = proxy }) // it is the one to ask: it knows the client's connection
	}
	switch {
	case grant.Bind.PrimaryOptional || x.anyPeer():
		x.leansOn("optional")
	case held:
		x.leansOn("held")
	default:
		x.leansOn("missing")
		return grant, NoPrimary
	}
	return grant, nil
}

// leansOn notes what there is of the primary connection.
func (x *exchange) leansOn(primary string) {
	x.session.note(func(r *Record) { r.Primary = primary })
}

// anyPeer reports whether the client leaves open who is to connect (DSTIP 0.0.0.0).
func (x *exchange) anyPeer() bool { return x.request.Target.IP.IsUnspecified() }

// listen opens the socket that the application server is to connect to: on the
// address of ours that routes to it, or on all where it is not known.
func (x *exchange) listen(ctx context.Context, g Grant) (net.Listener, error) {
	local := netip.IPv4Unspecified()
	if !x.anyPeer() {
		var err error
		if local, err = localFor(ctx, g.Addrs); err != nil {
			return nil, err
		}
	}
	return x.listenIn(ctx, x.server.outboundOf(g.Way), local, x.listener.BindPorts)
}

// listenIn opens a socket on an address with one of these ports.
func (x *exchange) listenIn(ctx context.Context, out Outbound, local netip.Addr, ports PortRange) (net.Listener, error) {
	for port := range ports.inAnyOrder() {
		ln, err := x.listenOn(ctx, out, local, port)
		switch {
		case err == nil:
			return ln, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, err // no other port would change it
		}
	}
	return nil, fmt.Errorf("%w: every port from %d to %d is taken", NoPort, ports.First, ports.Last)
}

func (x *exchange) listenOn(ctx context.Context, out Outbound, local netip.Addr, port uint16) (net.Listener, error) {
	network := "tcp4"
	if local.Is6() {
		network = "tcp6"
	}
	ln, err := out.Listen(ctx, network, netip.AddrPortFrom(local, port).String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", NoPort, err)
	}
	return ln, nil
}

// localFor returns the address of ours that routes to the peer. IPv4 comes
// first: a SOCKS 4 reply can carry no other.
func localFor(ctx context.Context, peers []netip.Addr) (netip.Addr, error) {
	peer := peers[max(0, slices.IndexFunc(peers, netip.Addr.Is4))]
	// Connecting a UDP socket sends nothing: it only asks for the route.
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(peer, 9).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	udp, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, fmt.Errorf("%w: no local address for %s", Failed, peer)
	}
	return udp.AddrPort().Addr().Unmap(), nil
}

// advertised is what the first reply says.
func (x *exchange) advertised(ln net.Listener) netip.AddrPort {
	at := addrPort(ln.Addr())
	if x.listener.Advertise.IsValid() {
		return netip.AddrPortFrom(x.listener.Advertise, at.Port())
	}
	return at
}

// accept waits for the peer. The socket closes as soon as one has come, so
// that a second is refused; a stranger ends the BIND, or, where the rule says
// so, only itself.
func (x *exchange) accept(ctx context.Context, ln net.Listener, grant Grant, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, TimedOut)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var pause backoff
	for {
		c, err := ln.Accept()
		if err != nil && isTemporary(err) && pause.wait(ctx) {
			continue // no descriptor is free for now: the peer waits in the socket's queue
		}
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), closeIf(c))
		}
		if err != nil {
			return nil, err
		}
		from := addrPort(c.RemoteAddr())
		right := x.anyPeer() || grant.ByName || slices.Contains(grant.Addrs, from.Addr())
		waits := grant.Bind.WaitForRightPeer && grant.Way.upstream() == nil // which brings one peer and no other
		if right || !waits {
			ln.Close()
			x.session.note(func(r *Record) { r.Address = from })
		}
		if right {
			return x.stillWanted(ctx, c)
		}
		c.Close()
		if !waits {
			return nil, fmt.Errorf("%w: %s", WrongPeer, from)
		}
	}
}

// stillWanted returns the peer, unless a review has just taken away its right.
func (x *exchange) stillWanted(ctx context.Context, peer net.Conn) (net.Conn, error) {
	x.session.catchUp()
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), peer.Close())
	}
	return peer, nil
}

func closeIf(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}
