//go:build linux

// Package soak puts relays of every shape on a proxy for a long time, compares each byte and each end with what it has to
// be, and looks for relays that stop. The clients and the target are both here.
//
// It is not part of what is shipped.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

// kind is what a stream is for: each kind has a number of relays that are open at any time.
type kind int

const (
	bulkStream kind = iota
	pingPong
	churn
)

// Soak says what to put on a proxy.
type Soak struct {
	For       time.Duration
	Bulk      int           // relays that move up to 64 MiB each way
	PingPongs int           // relays with round trips and pauses
	Churn     int           // workers that open one short relay after the other
	Stall     time.Duration // for how long nothing may move in a relay that has something to move
	Seed      uint64
}

// Counts is what has happened. Each side counts for itself: Trips are two for one, and Bytes four for one that was sent
// through the proxy, less what was under way.
type Counts struct {
	Relays, Trips, Bytes atomic.Int64
	Ended                [endings]atomic.Int64
}

func (c *Counts) String() string {
	var ends strings.Builder
	for e := range endings {
		fmt.Fprintf(&ends, ", %d %v", c.Ended[e].Load(), e)
	}
	return fmt.Sprintf("%d relays (%s), %d round trips, %.1f GiB", c.Relays.Load(), ends.String()[2:],
		c.Trips.Load()/2, float64(c.Bytes.Load())/4/(1<<30))
}

// Run returns when all relays have ended, and the first faults: after one of them no relay is begun any more. The target
// is its own: p must lead wherever it is told to.
func (s Soak) Run(ctx context.Context, p *load.Proxy, counts *Counts) error {
	ctx, stop := context.WithTimeout(ctx, s.For)
	defer stop()
	rn := &run{Soak: s, proxy: p, counts: counts, stop: stop, waiting: map[uint64]chan error{}}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	rn.target = ln.(*net.TCPListener)
	rn.all.Go(func() { rn.accept(ctx) })
	var clients sync.WaitGroup
	for k, count := range []int{bulkStream: s.Bulk, pingPong: s.PingPongs, churn: s.Churn} {
		for i := range count {
			clients.Go(func() { rn.client(ctx, kind(k), uint64(i)) })
		}
	}
	clients.Wait()
	ln.Close()
	rn.all.Wait()
	return rn.faults()
}

// run is a soak that goes on.
type run struct {
	Soak
	proxy  *load.Proxy
	target *net.TCPListener
	counts *Counts
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	waiting map[uint64]chan error // by seed: where the target's side says how it went
	errs    []error
}

// fail ends the soak.
func (rn *run) fail(err error) {
	rn.mu.Lock()
	defer rn.mu.Unlock()
	rn.errs = append(rn.errs, err)
	rn.stop()
}

func (rn *run) faults() error {
	rn.mu.Lock()
	defer rn.mu.Unlock()
	return errors.Join(rn.errs[:min(len(rn.errs), 5)]...)
}

// client opens one relay after the other until the time is over.
func (rn *run) client(ctx context.Context, k kind, number uint64) {
	r := rand.New(rand.NewPCG(rn.Seed+number, uint64(k)))
	for ctx.Err() == nil {
		sc := random(r, k)
		if err := rn.relay(ctx, sc); err != nil {
			rn.fail(fmt.Errorf("%v: %w", sc, err))
			return
		}
	}
}

// relay has one relay from its beginning to its end, on both sides.
func (rn *run) relay(ctx context.Context, sc script) error {
	conn, err := rn.proxy.Dial(context.WithoutCancel(ctx), rn.target.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return err
	}
	defer conn.Close()
	far := make(chan error, 1)
	rn.mu.Lock()
	rn.waiting[sc.seed] = far
	rn.mu.Unlock()
	if _, err := conn.Write(sc.append(nil)); err != nil {
		return err
	}
	s := &side{conn: conn, script: sc, client: true, stall: rn.Stall, counts: rn.counts, over: ctx.Done()}
	if err = s.play(); err != nil {
		err = fmt.Errorf("the client's side: %w", err)
		conn.Close() // or the target waits for it
	}
	select {
	case fault := <-far:
		if fault != nil {
			err = errors.Join(err, fmt.Errorf("the target's side: %w", fault))
		}
	case <-time.After(2 * rn.Stall):
		err = errors.Join(err, fmt.Errorf("the target's side: %w", errStalled))
	}
	if err != nil {
		return err
	}
	rn.counts.Relays.Add(1)
	rn.counts.Ended[sc.ending].Add(1)
	return nil
}

// accept is the target.
func (rn *run) accept(ctx context.Context) {
	for {
		conn, err := rn.target.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			rn.all.Go(func() { rn.serve(ctx, conn) })
		}
	}
}

func (rn *run) serve(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(rn.Stall))
	head := make([]byte, scriptSize)
	if _, err := io.ReadFull(conn, head); err != nil {
		rn.fail(fmt.Errorf("the target does not learn what to do: %w", err))
		return
	}
	s := &side{conn: conn, script: parse(head), stall: rn.Stall, counts: rn.counts, over: ctx.Done()}
	err := s.play()
	rn.mu.Lock()
	far := rn.waiting[s.script.seed]
	delete(rn.waiting, s.script.seed)
	rn.mu.Unlock()
	if far == nil {
		rn.fail(fmt.Errorf("%v: nobody asked for it", s.script))
		return
	}
	far <- err
}
