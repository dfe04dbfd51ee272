package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/socks"
)

// exit is by what an association sends to its targets: a socket for each family,
// or a way through an upstream.
type exit struct {
	sockets [families]packetSocket // nil: the family is not to be had
	proxy   string                 // of an upstream: which proxy
	through bool                   // an upstream, or a virtual port: one socket stands for both families
	offerer netip.AddrPort         // of a virtual port: who offers it; invalid: it is none
	usual   bool                   // by the Server's own Outbound
	gone    bool                   // it has failed; guarded by the association's mu
}

// open returns each socket once. That e is nil is allowed, here and in close.
func (e *exit) open() []packetSocket {
	if e == nil {
		return nil
	}
	if e.through {
		return e.sockets[:1]
	}
	return slices.DeleteFunc(slices.Clone(e.sockets[:]), func(s packetSocket) bool { return s == nil })
}

func (e *exit) close() {
	for _, s := range e.open() {
		_ = s.Close() // nobody is left to tell
	}
}

// outlet tells the exits of an association apart: by the way out, or by the name of
// the virtual port.
type outlet struct {
	way     *Way
	virtual string
}

// outletTo returns by which exit a target is reached.
func outletTo(target socks.Addr, grant Grant) outlet {
	if grant.Virtual {
		return outlet{virtual: target.Name}
	}
	return outlet{way: grant.Way}
}

// exit returns what leads out to a target, and opens it where it is the first time
// that it is needed. It stays until the association ends (life), or it fails.
func (a *association) exit(life, ctx context.Context, target socks.Addr, grant Grant) (*exit, error) {
	by := outletTo(target, grant)
	if by == (outlet{}) && a.direct != nil {
		return a.direct, nil
	}
	if e := a.opened(by); e != nil {
		return e, nil
	}
	e, err := a.openExit(ctx, by, a.wanted(grant))
	if err != nil {
		return nil, err
	}
	return a.adopt(life, by, e)
}

func (a *association) opened(by outlet) *exit {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.exits[by]
}

// wanted says of which families sockets are needed: of both where other
// destinations may follow.
func (a *association) wanted(grant Grant) (of [families]bool) {
	if !a.known.bare {
		return [families]bool{true, true}
	}
	for _, host := range grant.Addrs {
		of[family(host.Unmap())] = true
	}
	return of
}

func (a *association) openExit(ctx context.Context, by outlet, wanted [families]bool) (*exit, error) {
	way := by.way
	switch {
	case by.virtual != "":
		return a.server.state.packetOffers.admit(by.virtual, a.drop)
	case way.upstream() == nil:
		sockets, err := listenTargets(ctx, a.server.outboundOf(way), wanted)
		e := &exit{sockets: sockets, usual: way == nil}
		if err != nil {
			e.close()
		}
		return e, err
	}
	c, proxy, err := way.Upstream.Associate(ctx, departure(&a.request, passage{}))
	if err != nil {
		return nil, err
	}
	s := plainSocket{c}
	return &exit{sockets: [families]packetSocket{v4: s, v6: s}, proxy: proxy, through: true}, nil
}

// adopt makes a new exit the association's own, unless another has been faster
// or the association has ended.
func (a *association) adopt(life context.Context, by outlet, e *exit) (*exit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.exits[by]; other != nil || a.ended {
		e.close()
		if a.ended {
			return nil, fmt.Errorf("%w: the association has ended", Failed)
		}
		return other, nil
	}
	if a.exits == nil {
		a.exits = make(map[outlet]*exit)
	}
	a.exits[by] = e
	for _, s := range e.open() {
		a.readers.Go(func() {
			_ = a.pump(life, s, a.downFrom(e)) // whatever it was, the exit is of no more use
			a.lose(by, e)
		})
	}
	return e, nil
}

// lose gives an exit up that has failed. The association goes on: what is sent
// next is decided on again, and goes by another.
func (a *association) lose(by outlet, e *exit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.gone = true
	if a.exits[by] == e {
		delete(a.exits, by)
	}
	a.known.leave(e)
	e.close()
}

// shownAs is who the client is told that datagrams from an address come from. Behind a
// virtual port there is none that the client could know: it gets the name back.
func (e *exit) shownAs(at netip.AddrPort, target socks.Addr) socks.Host5 {
	if e != nil && e.offerer.IsValid() {
		return socks.Host5(target)
	}
	return socks.NewHost5(at)
}
