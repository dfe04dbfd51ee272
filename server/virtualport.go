package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// offerPatience is how long one offer may take to answer while there are others.
const offerPatience = 5 * time.Second

// offers are the virtual ports that clients of SSH offer at the moment: for each
// name any number, which are as good as each other. The zero value is empty.
type offers struct {
	mu     sync.Mutex
	byName map[string][]*offer
	turn   uint
}

// add makes an offer known. Those that are there already are asked whether they
// still are: a client that was cut comes back before that is noticed.
func (t *offers) add(o *offer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName == nil {
		t.byName = map[string][]*offer{}
	}
	name := o.name()
	for _, other := range t.byName[name] {
		other.conn.pulse.ask()
	}
	t.byName[name] = append(t.byName[name], o)
}

func (t *offers) remove(o *offer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := o.name()
	left := slices.DeleteFunc(slices.Clone(t.byName[name]), func(other *offer) bool { return other == o })
	if t.byName[name] = left; len(left) == 0 {
		delete(t.byName, name)
	}
}

// name is that of the virtual port.
func (o *offer) name() string { return o.exchange.request.Target.Name }

// inTurn returns the offers of a virtual port in the order in which they are to be
// tried: those first that answer, of them those with the fewest visitors.
func (t *offers) inTurn(name string) []*offer {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.byName[name]
	if len(all) == 0 {
		return nil
	}
	t.turn++
	first := int(t.turn % uint(len(all)))
	order := slices.Concat(all[first:], all[:first])
	slices.SortStableFunc(order, func(a, b *offer) int {
		return cmp.Or(cmp.Compare(a.slowness(), b.slowness()), cmp.Compare(a.load(), b.load()))
	})
	return order
}

// load is how many visitors an offer has.
func (o *offer) load() int {
	if o.packets != nil {
		return o.packets.count()
	}
	return o.visitors.count()
}

func (o *offer) slowness() int {
	if o.conn.pulse.isSlow() {
		return 1
	}
	return 0
}

// connect brings a visitor to one of those who offer a virtual port. The caller
// closes the connection.
func (t *offers) connect(ctx context.Context, name string, visitor netip.AddrPort) (net.Conn, error) {
	all := t.inTurn(name)
	err := fmt.Errorf("%w: nobody offers the virtual port %q", Unreachable, name)
	for i, o := range all {
		var c net.Conn
		if c, err = o.connectFor(ctx, visitor, i < len(all)-1); err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	if errors.Is(err, errWithdrawn) {
		err = fmt.Errorf("%w: who offered the virtual port %q has left, or can take no more", Unreachable, name)
	}
	return nil, err
}

// connectFor is connect, but no longer than a while where there are others to try.
func (o *offer) connectFor(ctx context.Context, visitor netip.AddrPort, others bool) (net.Conn, error) {
	if others {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, offerPatience, TimedOut)
		defer cancel()
	}
	return o.connect(ctx, visitor, !others)
}

// visitors are those of an offer. The zero value is none.
type visitors struct {
	mu  sync.Mutex
	all map[*sshStream]struct{}
}

func (v *visitors) add(s *sshStream) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all == nil {
		v.all = map[*sshStream]struct{}{}
	}
	v.all[s] = struct{}{}
}

func (v *visitors) remove(s *sshStream) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.all, s)
}

func (v *visitors) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.all)
}

// cut resets all that there are.
func (v *visitors) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.all {
		s.fail(errConnectionGone)
	}
}

// visited is a channel that a visitor has come by.
type visited struct {
	*sshStream
	offer *offer
}

// Close takes the visitor off the offer, and off the connection. Another call does
// nothing.
func (v *visited) Close() error {
	err := v.sshStream.Close()
	if err == nil {
		v.offer.visitors.remove(v.sshStream)
		v.conn.leave()
	}
	return err
}
