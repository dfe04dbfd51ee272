package server

import (
	"context"
	"fmt"
	"slices"
)

// exit is by what an association sends to its targets: a socket for each family,
// or a way through an upstream.
type exit struct {
	sockets [families]packetSocket // nil: the family is not to be had
	proxy   string                 // of an upstream: which proxy
	through bool                   // an upstream: one socket stands for both families
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

// exit returns what leads out by a way, and opens it where it is the first time
// that it is needed. It stays until the association ends (life), or it fails.
func (a *association) exit(life, ctx context.Context, grant Grant) (*exit, error) {
	way := grant.Way
	if way == nil && a.direct != nil {
		return a.direct, nil
	}
	if e := a.opened(way); e != nil {
		return e, nil
	}
	e, err := a.openExit(ctx, way, a.wanted(grant))
	if err != nil {
		return nil, err
	}
	return a.adopt(life, way, e)
}

func (a *association) opened(way *Way) *exit {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.exits[way]
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

func (a *association) openExit(ctx context.Context, way *Way, wanted [families]bool) (*exit, error) {
	if way.upstream() == nil {
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
func (a *association) adopt(life context.Context, way *Way, e *exit) (*exit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.exits[way]; other != nil || a.ended {
		e.close()
		if a.ended {
			return nil, fmt.Errorf("%w: the association has ended", Failed)
		}
		return other, nil
	}
	if a.exits == nil {
		a.exits = make(map[*Way]*exit)
	}
	a.exits[way] = e
	for _, s := range e.open() {
		a.readers.Go(func() {
			_ = a.pump(life, s, a.downFrom(e)) // whatever it was, the exit is of no more use
			a.lose(way, e)
		})
	}
	return e, nil
}

// lose gives an exit up that has failed. The association goes on: what is sent
// next is decided on again, and goes by another.
func (a *association) lose(way *Way, e *exit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.gone = true
	if a.exits[way] == e {
		delete(a.exits, way)
	}
	a.known.leave(e)
	e.close()
}
