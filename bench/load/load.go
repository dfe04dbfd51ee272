//go:build linux

// Package load is what the benchmark of this project puts on a proxy: bulk, sessions, round trips and idle relays. The
// clients and the target are both here, in one process that is not the proxy's: the proxy's CPU time and memory are its
// own, and are read from outside (process.go).
//
// It is not part of what is shipped.
package load

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy is one way to the target.
type Proxy struct {
	Address  netip.AddrPort
	Protocol Protocol
	Process  *Process // whose costs are measured; nil: nobody's
}

// Cost is what one turn of a load took.
type Cost struct {
	CPU   float64 // seconds a unit: a GiB, a session, a round trip
	All   float64 // seconds a unit, with those of the clients and the target
	Rate  float64 // units a second
	Worst float64 // seconds: the 99th percentile of a session's set-up, or of a round trip; 0: not measured
}

// Dial connects to the target through p. Whoever calls it closes the connection.
func (p *Proxy) Dial(ctx context.Context, target netip.AddrPort) (*net.TCPConn, error) {
	conn, err := connect(ctx, p.Address)
	if err != nil {
		return nil, err
	}
	if err := p.Protocol.open(conn, target); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func connect(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: patience, KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// patience bounds every single wait of a load: a proxy that stalls is a fault, and no slow proxy.
const patience = 20 * time.Second

// gang runs workers and collects what goes wrong.
type gang struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (g *gang) run(work func() error) {
	g.wg.Go(func() {
		if err := work(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.errs = append(g.errs, err)
		}
	})
}

// wait returns the first faults.
func (g *gang) wait() error {
	g.wg.Wait()
	return errors.Join(g.errs[:min(len(g.errs), 3)]...)
}

// turn measures p while count grows, for the time d. Warming up, a fifth of it, does not count.
func turn(ctx context.Context, p *Proxy, d time.Duration, count *atomic.Int64) (Cost, error) {
	if err := wait(ctx, d/5); err != nil {
		return Cost{}, err
	}
	units, cpu, ends, began := count.Load(), p.Process.CPU(), ownCPU(), time.Now()
	if err := wait(ctx, d); err != nil {
		return Cost{}, err
	}
	cpu, ends, units = p.Process.CPU()-cpu, ownCPU()-ends, count.Load()-units
	took := time.Since(began)
	if units == 0 {
		return Cost{}, errors.New("nothing moved")
	}
	return Cost{CPU: cpu.Seconds() / float64(units), All: (cpu + ends).Seconds() / float64(units), Rate: float64(units) / took.Seconds()}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// times collects durations of many workers.
type times struct {
	mu  sync.Mutex
	all []time.Duration
}

func (t *times) add(some []time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, some...)
}

// worst returns the 99th percentile, in seconds.
func (t *times) worst() float64 {
	if len(t.all) == 0 {
		return 0
	}
	slices.Sort(t.all)
	return t.all[len(t.all)*99/100].Seconds()
}
