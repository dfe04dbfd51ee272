package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// connect serves a CONNECT request (the paper, section 1): the reply is sent
// when the connection to the target stands, never before.
func (x *exchange) connect(ctx context.Context) error {
	target, err := x.reach(ctx)
	if err != nil {
		return x.deny(err, netip.AddrPort{})
	}
	defer target.Close()
	x.session.reached(addrPort(target.RemoteAddr()))
	if ctx.Err() != nil {
		return x.deny(context.Cause(ctx), netip.AddrPort{})
	}
	key := primary{x.session.Client.Addr(), x.request.Identity.Name, x.session.Address.Addr()}
	x.server.state.primaries.add(key)
	defer x.server.state.primaries.remove(key)

	bound := addrPort(target.LocalAddr())
	if x.listener.HideAddress {
		bound = netip.AddrPort{}
	}
	x.session.note(func(r *Record) { r.Bound = bound })
	if err := x.grant(bound); err != nil {
		return err
	}
	return x.relay(ctx, target)
}

// reach decides and dials within the connect limit. A client that resets its
// connection meanwhile ends it.
func (x *exchange) reach(ctx context.Context) (net.Conn, error) {
	ctx, end := x.await(ctx, x.server.timeouts().Connect, false)
	defer end()
	addrs, err := x.judge(ctx)
	if err != nil {
		return nil, err
	}
	return x.dial(ctx, addrs)
}

// judge decides, and returns the addresses that may be dialled.
func (x *exchange) judge(ctx context.Context) ([]netip.AddrPort, error) {
	if x.request.Target.Port == 0 {
		return nil, fmt.Errorf("%w: port 0", BadRequest)
	}
	grant, err := x.decide(ctx)
	if err != nil {
		return nil, err
	}
	return x.server.targets(grant.Addrs, x.request.Target.Port)
}

// dial connects to the first of the addresses that answers. The caller closes
// the connection.
func (x *exchange) dial(ctx context.Context, addrs []netip.AddrPort) (net.Conn, error) {
	target, err := dialFirst(ctx, x.server.outbound(), addrs)
	if ctx.Err() != nil { // and be it that the target answered in the same moment
		return nil, errors.Join(context.Cause(ctx), closeIf(target))
	}
	return target, err
}
