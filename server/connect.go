package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"

	"github.com/sallyport/sallyport/internal/relay"
)

// connect serves a CONNECT request (the paper, section 1), to the end of its
// relay.
func (x *exchange) connect(ctx context.Context) error {
	r, err := x.open(ctx, x.approach())
	if err != nil {
		return err
	}
	defer r.close()
	return x.relay(ctx, r.target)
}

// connectAlone is connect for a connection that carries nothing else. The relay
// goes on by itself, so that this goroutine ends; whoever is called at the relay's
// end sees to what is left to do.
func (x *exchange) connectAlone(ctx, sessions context.Context, how approach) {
	r, err := x.open(ctx, how)
	if err != nil {
		x.end(sessions, err)
		return
	}
	x.route = r // for leave, lest a fault leaves it open
	client, far := x.sides(r.target)
	session := x.session
	going := relay.New(client, far, &session.meter, session.limits(x.server.timeouts()))
	if going.OwnsSockets() {
		rest := x.part(r)
		session.goToRest()
		going.Start(rest.end)
	} else {
		going.Start(func(reason error) { // from here on x is its
			defer x.contain()
			x.route = nil
			r.close()
			x.end(sessions, reason)
		})
	}
	session.handOver(ctx, going)
}

// parted is what is to be done at the end of a relay that owns its sockets. Of the
// exchange, and what it holds, that needs so little that nothing of it is kept
// meanwhile.
type parted struct {
	session *Session // its serving has the rest
	release func()   // of the route
}

// part takes what is left to do off x: what is done about that from here on has no
// effect.
func (x *exchange) part(r *route) parted {
	p := parted{x.session, r.release}
	x.session, x.gone, x.route = nil, nil, nil
	return p
}

// end is the last of the session.
func (p *parted) end(reason error) {
	from := p.session.life.serving
	s := from.server
	defer from.gone()
	defer func() {
		if fault := recover(); fault != nil { // of a Recorder
			s.report(fault, debug.Stack())
		}
	}()
	defer s.over(p.session, reason) // whatever becomes of the rest
	s.state.primaries.remove(p.session.primary())
	if p.release != nil {
		p.release()
	}
}

// verdict says where a session may go, or why it may not. It may take its time
// about it: exchange.judge does.
type verdict func(context.Context) (passage, error)

// approach reaches the target of a session, or says why that cannot be. The caller closes
// the connection.
type approach func(context.Context) (net.Conn, error)

// approach is that of what the client has asked for, of which nothing is known yet.
func (x *exchange) approach() approach {
	if m := x.listener.Mapping; m != nil && !m.isPlain() {
		return func(ctx context.Context) (net.Conn, error) { return x.reachMapped(ctx, x.newRound(m), nil) }
	}
	return x.by(x.judge)
}

// by is the approach of a verdict.
func (x *exchange) by(judge verdict) approach {
	return func(ctx context.Context) (net.Conn, error) {
		to, err := judge(ctx)
		if err != nil {
			return nil, err
		}
		return x.dial(ctx, to)
	}
}

// open answers a CONNECT request: the reply is sent when the connection to the
// target stands, never before. The caller closes what is returned.
func (x *exchange) open(ctx context.Context, how approach) (*route, error) {
	target, err := x.reach(ctx, how)
	if err != nil {
		return nil, x.deny(err, netip.AddrPort{})
	}
	r := &route{target: target, release: x.release}
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
	if err := x.write(x.arrive(nil, r, addrPort(target.LocalAddr()))); err != nil {
		return nil, fmt.Errorf("%w: %w", ClientGone, err)
	}
	granted = true
	return r, nil
}

// arrive makes the route known, whose end on this machine is local, and appends
// what the client is told.
func (x *exchange) arrive(b []byte, r *route, local netip.AddrPort) []byte {
	r.key = x.session.primary()
	r.primaries = &x.server.state.primaries
	r.primaries.add(r.key, x.session.Proxy)
	if x.listener.HideAddress {
		local = netip.AddrPort{}
	}
	x.session.bound(local)
	return x.request.Replier.AppendGrant(b, local)
}

// route is what stands between a granted CONNECT and its target.
type route struct {
	target    net.Conn
	release   func()     // tells who chose the target that it is free of this; nil: nobody did
	primaries *primaries // that have key; nil: none do
	key       primary
}

func (r *route) close() {
	r.target.Close()
	r.end()
}

// end makes the route known no more.
func (r *route) end() {
	if r.primaries != nil {
		r.primaries.remove(r.key)
		r.primaries = nil
	}
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// reach reaches the target within the connect limit. A client that resets its
// connection meanwhile ends it.
func (x *exchange) reach(ctx context.Context, how approach) (net.Conn, error) {
	ctx, end := x.await(ctx, x.server.timeouts().Connect, false)
	defer end()
	return how(ctx)
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
	return x.passage(nil, grant)
}

// dial connects to the first of the addresses that answers, or has an upstream
// do so. The caller closes the connection.
func (x *exchange) dial(ctx context.Context, to passage) (target net.Conn, err error) {
	if to.offer {
		target, err = x.server.state.offers.connect(ctx, to.name, x.session.Client)
	} else if up := to.way.upstream(); up != nil {
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
