package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// connect serves a CONNECT request (the paper, section 1), to the end of its
// relay.
func (x *exchange) connect(ctx context.Context) error {
	r, err := x.open(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	return x.relay(ctx, r.target)
}

// connectAlone is connect for a connection that carries nothing else. The relay
// goes on by itself, so that this goroutine ends when the relay sleeps; whichever
// is the last one then sees to what is left to do.
func (x *exchange) connectAlone(ctx, sessions context.Context) {
	r, err := x.open(ctx)
	if err != nil {
		x.end(sessions, err)
		return
	}
	x.route = r // for leave, lest a fault leaves it open
	x.startRelay(ctx, r.target, func(reason error) {
		defer x.contain()
		x.route = nil
		r.close()
		x.end(sessions, reason)
	})
}

// open answers a CONNECT request: the reply is sent when the connection to the
// target stands, never before. The caller closes what is returned.
func (x *exchange) open(ctx context.Context) (*route, error) {
	target, err := x.reach(ctx)
	if err != nil {
		return nil, x.deny(err, netip.AddrPort{})
	}
	r := &route{target: target}
	granted := false
	defer func() {
		if !granted {
			r.close()
		}
	}()
	x.session.reached(addrPort(target.RemoteAddr()))
	if ctx.Err() != nil {
		return nil, x.deny(context.Cause(ctx), netip.AddrPort{})
	}
	r.key = primary{x.session.Client.Addr(), x.request.Identity.Name, x.session.Address.Addr(), x.unresolved()}
	r.primaries = &x.server.state.primaries
	r.primaries.add(r.key, x.session.Proxy)

	bound := addrPort(target.LocalAddr())
	if x.listener.HideAddress {
		bound = netip.AddrPort{}
	}
	x.session.note(func(r *Record) { r.Bound = bound })
	if err := x.grant(bound); err != nil {
		return nil, err
	}
	granted = true
	return r, nil
}

// route is what stands between a granted CONNECT and its target.
type route struct {
	target    net.Conn
	primaries *primaries // that have key; nil: none do
	key       primary
}

func (r *route) close() {
	if r.primaries != nil {
		r.primaries.remove(r.key)
	}
	r.target.Close()
}

// reach decides and dials within the connect limit. A client that resets its
// connection meanwhile ends it.
func (x *exchange) reach(ctx context.Context) (net.Conn, error) {
	ctx, end := x.await(ctx, x.server.timeouts().Connect, false)
	defer end()
	to, err := x.judge(ctx)
	if err != nil {
		return nil, err
	}
	return x.dial(ctx, to)
}

// unresolved returns the name that the target is known by where it has no
// address here.
func (x *exchange) unresolved() string {
	if x.session.Address.IsValid() {
		return ""
	}
	return x.request.Target.Name
}

// judge decides, and returns where may be dialled.
func (x *exchange) judge(ctx context.Context) (passage, error) {
	if err := aims(x.request); err != nil {
		return passage{}, err
	}
	grant, err := x.decide(ctx)
	if err != nil {
		return passage{}, err
	}
	return x.passage(grant)
}

// dial connects to the first of the addresses that answers, or has an upstream
// do so. The caller closes the connection.
func (x *exchange) dial(ctx context.Context, to passage) (target net.Conn, err error) {
	if up := to.way.upstream(); up != nil {
		var proxy string
		target, proxy, err = up.Connect(ctx, departure(x.request, to))
		x.session.note(func(r *Record) { r.Proxy = proxy })
	} else {
		target, err = dialFirst(ctx, x.server.outboundOf(to.way), to.addrs)
	}
	if ctx.Err() != nil { // and be it that the target answered in the same moment
		return nil, errors.Join(context.Cause(ctx), closeIf(target))
	}
	return target, err
}
