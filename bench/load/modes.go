//go:build linux

package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Direction is which way bulk goes.
type Direction string

// The directions, seen from the client.
const (
	Down Direction = "down"
	Up   Direction = "up"
	Both Direction = "both"
)

// Bulk moves as much as it can over streams at once for the time d. The unit is a GiB, both ways added up.
func Bulk(ctx context.Context, p *Proxy, t *Target, way Direction, streams int, d time.Duration) (Cost, error) {
	conns, err := dialAll(ctx, p, t, streams)
	defer closeAll(conns)
	if err != nil {
		return Cost{}, err
	}
	order := map[Direction]byte{Down: source, Up: sink, Both: both}[way]
	var g gang
	for _, conn := range conns {
		if _, err := conn.Write([]byte{order}); err != nil {
			return Cost{}, err
		}
	}
	for _, conn := range conns {
		if order != sink {
			g.run(func() error { drain(conn, &t.took); return nil })
		}
		if order != source {
			g.run(func() error { pour(conn); return nil })
		}
	}
	cost, err := turn(ctx, p, d, &t.took)
	for _, conn := range conns {
		_ = conn.SetLinger(0)
	}
	closeAll(conns)
	_ = g.wait() // they end by our own doing
	cost.CPU *= 1 << 30
	cost.All *= 1 << 30
	cost.Rate /= 1 << 30
	return cost, err
}

// Sessions opens sessions, one after the other in each of workers, for the time d: connect, handshake, one byte each way,
// close. Worst is the 99th percentile of their set-up: the time until the target's byte has come. Before that a proxy without
// a handshake, whose client is connected by the system alone, has not shown that there is a target behind it.
func Sessions(ctx context.Context, p *Proxy, t *Target, workers int, d time.Duration) (Cost, error) {
	session := func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		conn, err := p.Dial(ctx, t.Address())
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		err = bounce(conn, []byte{echo})
		return time.Since(began), err
	}
	return again(ctx, p, d, slices.Repeat([]step{session}, workers))
}

// Refusals asks for what the proxy must refuse, one time after the other in each of workers, for the time d: connect,
// handshake, refusal, close. The target is host:port, by HTTP with any host, else with an IPv4 address.
func Refusals(ctx context.Context, p *Proxy, target string, workers int, d time.Duration) (Cost, error) {
	refusal := func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		err := p.refuses(ctx, target)
		return time.Since(began), err
	}
	return again(ctx, p, d, slices.Repeat([]step{refusal}, workers))
}

// PingPong sends 64 bytes there and back, in each of relays for the time d.
func PingPong(ctx context.Context, p *Proxy, t *Target, relays int, d time.Duration) (Cost, error) {
	conns, err := dialAll(ctx, p, t, relays)
	defer closeAll(conns)
	if err != nil {
		return Cost{}, err
	}
	var trips []step
	for _, conn := range conns {
		ball := make([]byte, 64)
		ball[0] = echo
		trips = append(trips, func(context.Context) (time.Duration, error) {
			began := time.Now()
			err := bounce(conn, ball)
			return time.Since(began), err
		})
	}
	return again(ctx, p, d, trips)
}

// A step is one unit of work; it returns the time of which the 99th percentile is asked for.
type step func(ctx context.Context) (time.Duration, error)

// again does each of steps again and again, all at once, for the time d. The first that fails ends them all, unless the
// time was over.
func again(ctx context.Context, p *Proxy, d time.Duration, steps []step) (Cost, error) {
	var count atomic.Int64
	var all times
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var g gang
	for _, step := range steps {
		g.run(func() error {
			var took []time.Duration
			defer func() { all.add(took) }()
			for ctx.Err() == nil {
				each, err := step(ctx)
				if err != nil && ctx.Err() != nil {
					return nil
				}
				if err != nil {
					stop()
					return err
				}
				took = append(took, each)
				count.Add(1)
			}
			return nil
		})
	}
	cost, err := turn(ctx, p, d, &count)
	stop()
	if fault := g.wait(); fault != nil {
		return Cost{}, fault
	}
	cost.Worst = all.worst()
	return cost, err
}

// refuses returns an error unless the proxy refuses what it is asked for.
func (p *Proxy) refuses(ctx context.Context, target string) error {
	conn, err := connect(ctx, p.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.Protocol == HTTP {
		_ = conn.SetDeadline(time.Now().Add(patience))
		err = openHTTP(conn, target)
	} else {
		var address netip.AddrPort
		if address, err = netip.ParseAddrPort(target); err == nil {
			err = p.Protocol.open(conn, address)
		}
	}
	switch {
	case err == nil:
		return fmt.Errorf("the proxy grants %s", target)
	case errors.Is(err, errRefused):
		return nil
	}
	return err
}

// Idle is what relays in which nothing moves hold, each.
type Idle struct {
	Own         float64 // bytes of the proxy's resident memory
	Kernel      float64 // bytes of the kernel's slabs; whatever else runs on the machine is in it
	Descriptors float64
	crowd       *Crowd
}

// Close ends the relays.
func (i *Idle) Close() error { return i.crowd.Disperse() }

// HoldIdle gathers a crowd of relays, and leaves it to rest until Close. In Kernel are the ends
// that are not the proxy's too: what it says of a proxy is the difference to a [Proxy] that leads directly to the target.
// Before either look at the memory the proxy is left to rest for a while, since what is given back a moment later is not held.
func HoldIdle(ctx context.Context, p *Proxy, t *Target, relays int, rest time.Duration) (*Idle, error) {
	if err := wait(ctx, rest); err != nil {
		return nil, err
	}
	before, err := p.Process.Memory()
	if err != nil {
		return nil, err
	}
	crowd, err := t.Gather(ctx, p, relays, 0)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, rest); err != nil {
		return nil, errors.Join(err, crowd.Disperse())
	}
	after, err := p.Process.Memory()
	if err != nil {
		return nil, errors.Join(err, crowd.Disperse())
	}
	each := func(before, after int64) float64 { return float64(after-before) / float64(relays) }
	return &Idle{
		Own: each(before.Own, after.Own), Kernel: each(before.Kernel, after.Kernel),
		Descriptors: each(before.Descriptors, after.Descriptors), crowd: crowd,
	}, nil
}

// Among is what bulk costs that moves among relays in which nothing does, and what it costs without them.
type Among struct {
	Alone, Crowded Cost
}

// BulkAmong moves bulk without a crowd, with one, and without one again, of which Alone is the mean: what the machine has
// to do besides changes from one minute to the next. Before each the proxy is left to rest, since to begin and to end
// a crowd is no rest; but for the first, to which whoever calls it comes from other work. The relays begin in the time over: of a crowd
// that came at once all would have their timers run off at once, too (keep-alive probes), within the turn or outside it.
func BulkAmong(ctx context.Context, p *Proxy, t *Target, relays int, over, rest time.Duration, bulk func() (Cost, error)) (Among, error) {
	settled := func() (Cost, error) {
		cost, err := bulk()
		return cost, cmp.Or(err, t.Settle(ctx))
	}
	before, err := settled()
	if err != nil {
		return Among{}, err
	}
	crowd, err := t.Gather(ctx, p, relays, over)
	if err != nil {
		return Among{}, err
	}
	var crowded Cost
	if err = wait(ctx, rest); err == nil {
		crowded, err = settled()
	}
	if err := errors.Join(err, crowd.Disperse(), wait(ctx, rest)); err != nil {
		return Among{}, err
	}
	after, err := settled()
	mean := func(of func(Cost) float64) float64 { return (of(before) + of(after)) / 2 }
	return Among{Crowded: crowded, Alone: Cost{
		CPU:  mean(func(c Cost) float64 { return c.CPU }),
		All:  mean(func(c Cost) float64 { return c.All }),
		Rate: mean(func(c Cost) float64 { return c.Rate }),
	}}, err
}

// Settle waits until the target has no connection left: what one turn leaves behind is not to burden the next.
func (t *Target) Settle(ctx context.Context) error {
	for range 2000 {
		if t.open() == 0 {
			return nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d connections to the target are left", t.open())
}

// bounce sends p to a target that echoes, and takes it back.
func bounce(conn net.Conn, p []byte) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(p); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, p)
	return err
}

// dialAll returns the connections that it made on a fault, too.
func dialAll(ctx context.Context, p *Proxy, t *Target, count int) (conns []*net.TCPConn, err error) {
	for range count {
		conn, err := p.Dial(ctx, t.Address())
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func closeAll(conns []*net.TCPConn) {
	for _, conn := range conns {
		conn.Close()
	}
}
