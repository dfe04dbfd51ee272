package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// The sockets towards targets, one for each family.
const (
	v4 = iota
	v6
	families
)

const (
	maxDeciders = 16               // questions to the policy that are open at once
	decideTime  = 15 * time.Second // for one of them
)

// association relays datagrams between one client and the targets it sends to
// (RFC 1928, section 7), for as long as its TCP connection lives. Nothing in it
// waits for a slow side: what cannot be sent at once, or kept until it is
// decided on, is dropped.
//
// Its goroutines: one reader for each socket of each exit, at most maxDeciders that ask the
// policy, and the caller of run, who watches the TCP connection. All have ended
// when run returns.
type association struct {
	server  *Server
	session *Session
	request Request // what the request for each destination is made of
	client  packetSocket
	direct  *exit // by the Server's Outbound; nil: not open yet
	idle    time.Duration

	home      atomic.Pointer[net.UDPAddr] // where the client sends from, once that is known
	moved     atomic.Int64                // when a datagram was relayed last, in nanoseconds since session.Started
	fragments fragments                   // belongs to the client's reader

	readers  sync.WaitGroup
	deciders sync.WaitGroup

	mu       sync.Mutex // guards what follows
	known    destinations
	exits    map[outlet]*exit // all others
	ended    bool             // no exit may be opened any more, and no alarm set
	deciding int              // deciders that run
	waiting  []*destination   // for a decider
	granted  bool             // a destination was
	alarm    *alarm           // at the end of the first grant that ends; nil: none does
	until    time.Time        // when it ends while no destination is granted; zero: not by itself
	refusal  error            // of the first destination that was not
}

// run relays until the client's TCP connection or ctx ends, nothing was relayed
// for the idle limit, or a socket fails. It closes the sockets.
func (a *association) run(ctx context.Context, control net.Conn) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	a.touch()
	a.read(ctx, a.client, a.up, end)
	for _, s := range a.direct.open() {
		a.read(ctx, s, a.downFrom(a.direct), end)
	}
	stop := context.AfterFunc(ctx, func() { expire(control) })
	err := a.watch(ctx, control)
	end(err)
	stop()
	a.close()
	a.readers.Wait() // only the client's reader starts deciders
	a.deciders.Wait()
	return a.verdict(err)
}

// close gives the sockets and the alarm up. It may be called again.
func (a *association) close() {
	if a.client != nil {
		_ = a.client.Close() // nobody is left to tell
	}
	a.direct.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	a.alarm.stop()
	for _, e := range a.exits {
		e.close()
	}
}

// verdict is why the association ended: where it got the client nowhere because
// that was refused, then that.
func (a *association) verdict(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refusal != nil && !a.granted && (err == nil || errors.Is(err, Idle)) {
		return a.refusal
	}
	return err
}

// watch reads the TCP connection until it ends; what else comes from it has no
// meaning. It also keeps the idle limit.
func (a *association) watch(ctx context.Context, control net.Conn) error {
	var ignored [64]byte
	for {
		_ = control.SetReadDeadline(a.lastMoved().Add(a.idle)) // if this fails, so does the read
		if ctx.Err() != nil {                                  // only now: the end sets a deadline too
			return context.Cause(ctx)
		}
		_, err := control.Read(ignored[:])
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return ClientReset
		}
		if time.Since(a.lastMoved()) >= a.idle {
			return Idle
		}
	}
}

func (a *association) touch() { a.moved.Store(int64(time.Since(a.session.Started))) }

func (a *association) lastMoved() time.Time {
	return a.session.Started.Add(time.Duration(a.moved.Load()))
}

// read starts the reader of a socket. One that fails ends the association.
func (a *association) read(ctx context.Context, s packetSocket, handle func(context.Context, *batch, int), end context.CancelCauseFunc) {
	a.readers.Go(func() {
		if err := a.pump(ctx, s, handle); ctx.Err() == nil {
			end(fmt.Errorf("%w: the socket for datagrams: %w", Failed, err))
		}
	})
}

func (a *association) pump(ctx context.Context, s packetSocket, handle func(context.Context, *batch, int)) error {
	return pump(&a.server.state.batches, s, func(b *batch, n int) { handle(ctx, b, n) })
}

// pump hands batches of datagrams on until the socket fails or is closed.
func pump(pool *batches, s packetSocket, handle func(*batch, int)) error {
	for {
		if err := s.wait(); err != nil {
			return err
		}
		b := pool.take(s)
		n, err := s.read(b.in)
		if n > 0 {
			handle(b, n)
		}
		pool.giveBack(b)
		if err != nil && !passes(err) {
			return err
		}
	}
}

// up takes a batch from the client to its targets.
func (a *association) up(ctx context.Context, b *batch, n int) {
	now := time.Now()
	for i := range n {
		target, payload, ok := a.unwrap(udpAddrPort(b.in[i].Addr), b.received(i), now)
		if !ok {
			continue
		}
		to, by := a.route(ctx, target, payload, now)
		switch by {
		case nil:
		case a.direct:
			b.out[family(to.AddrPort().Addr())].add(payload, to, len(payload))
		default:
			a.sendBy(by, to, payload)
		}
	}
	for f := range b.out {
		a.session.meter.Add(a.send(&b.out[f], a.direct.sockets[f]), 0)
	}
}

// send returns how many bytes that count went.
func (a *association) send(o *outgoing, s packetSocket) int64 {
	if len(o.messages) == 0 {
		return 0
	}
	all := len(o.messages)
	sent, size := o.flush(s)
	a.drop(all - sent)
	if sent > 0 {
		a.touch()
	}
	return int64(size)
}

func (a *association) drop(n int) { a.session.dropped.Add(int64(n)) }

func family(a netip.Addr) int {
	if a.Is4() {
		return v4
	}
	return v6
}

// unwrap returns what a datagram for the proxy carries, and for whom. It is not
// ok where the datagram is a stranger's, or malformed, or only a fragment of
// what is not whole yet.
func (a *association) unwrap(from netip.AddrPort, datagram []byte, now time.Time) (target socks.Addr, payload []byte, ok bool) {
	home := a.home.Load()
	if from.Addr() != a.request.Client.Addr() || home != nil && int(from.Port()) != home.Port {
		a.drop(1)
		return target, nil, false
	}
	header, took, err := socks.ParseDatagram5(datagram)
	if err == nil {
		target, err = header.Host.Addr()
	}
	if err != nil {
		a.drop(1)
		return target, nil, false
	}
	if home == nil {
		a.home.Store(net.UDPAddrFromAddrPort(from))
	}
	payload, ok = a.fragments.add(header.Fragment, target, datagram[took:], now)
	return target, payload, ok
}

// route returns where to send what is for a target, and by which exit. That is
// nil where it was refused, or is kept until that is known.
func (a *association) route(ctx context.Context, target socks.Addr, payload []byte, now time.Time) (*net.UDPAddr, *exit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.known.find(target)
	switch {
	case d == nil:
		if d = a.known.add(target); d != nil {
			a.ask(ctx, d)
		}
	case !d.pending && now.After(d.until):
		d.pending = true
		a.ask(ctx, d)
	}
	switch {
	case d == nil || d.pending && !a.known.keep(d, payload):
		a.drop(1)
	case d.pending:
	case d.to == nil, !(*upward)(a.session).inRate(d.up, len(payload)):
		a.drop(1)
	default:
		return d.to, d.exit
	}
	return nil, nil
}

// ask sees to it that a pending destination is decided on. Callers hold mu.
func (a *association) ask(ctx context.Context, d *destination) {
	if a.deciding == maxDeciders {
		a.waiting = append(a.waiting, d)
		return
	}
	a.deciding++
	a.deciders.Go(func() {
		for d != nil {
			before := a.server.state.judge.Load()
			at, by, err := a.judge(ctx, d)
			d = a.settle(d, at, by, err)
			if judge := a.server.state.judge.Load(); judge != before {
				a.review(judge)
			}
		}
	})
}

// judge asks the policy about a pending destination, and chooses the exit and the
// address.
func (a *association) judge(life context.Context, d *destination) (at netip.AddrPort, by *exit, err error) {
	ctx, cancel := context.WithTimeoutCause(life, decideTime, TimedOut)
	defer cancel()
	request := a.request
	request.Target = d.target
	grant, err := a.server.decide(ctx, &request)
	d.grant = grant
	if err == nil && d.target.Port != 0 {
		by, err = a.exit(life, ctx, d.target, grant)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && isOver(grant.Until, time.Now()):
		err = Schedule
	case err == nil && d.target.Port == 0:
		err = fmt.Errorf("%w: port 0", BadRequest)
	case err == nil && grant.Virtual:
		at = by.offerer
	case err == nil:
		at, err = a.choose(ctx, grant.Addrs, d, by)
	}
	if err == nil {
		if err = a.count(d, grant); err != nil {
			at = netip.AddrPort{}
		}
	}
	if life.Err() == nil { // else it was the end that cut the decision short
		a.note(grant, d.target, at, by, err)
	}
	return at, by, err
}

// count counts the association towards what a grant says, as far as it does not
// count there already.
func (a *association) count(d *destination, g Grant) error {
	pace, err := a.session.enter(g.Budget)
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.up, d.down = nil, nil; pace != nil {
		d.up, d.down = pace.up, pace.down
	}
	return err
}

// choose returns the address to send to: the one in use, if it was granted
// again (a conversation must not change its partner), else the first that the
// system knows a way to.
func (a *association) choose(ctx context.Context, granted []netip.Addr, d *destination, by *exit) (netip.AddrPort, error) {
	hosts, err := a.server.targets(nil, granted, d.target.Port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	hosts = slices.DeleteFunc(hosts, func(h netip.AddrPort) bool {
		unfit := a.unfit(h, by)
		err = cmp.Or(err, unfit)
		return unfit != nil
	})
	switch {
	case len(hosts) == 0:
		return netip.AddrPort{}, err
	case d.exit == by && slices.Contains(hosts, d.at):
		return d.at, nil
	case len(hosts) == 1 || !by.usual || a.server.Outbound != nil: // whose ways are not known here
		return hosts[0], nil
	}
	first := slices.IndexFunc(hosts, func(h netip.AddrPort) bool {
		_, noWay := localFor(ctx, []netip.Addr{h.Addr()})
		return noWay == nil
	})
	return hosts[max(0, first)], nil
}

// unfit says why nothing can be sent to an address.
func (a *association) unfit(h netip.AddrPort, by *exit) error {
	switch {
	case a.server.state.associated.has(h):
		return fmt.Errorf("%w: %s is this proxy", Loop, h)
	case by.sockets[family(h.Addr())] == nil:
		return fmt.Errorf("%w: there is no way out for the family of %s", Unreachable, h.Addr())
	}
	return nil
}

// note tells the session what was decided: the first grant stands for all.
func (a *association) note(grant Grant, target socks.Addr, at netip.AddrPort, by *exit, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.granted {
		return
	}
	first := a.refusal == nil
	switch {
	case err == nil:
		a.granted = true
	case first:
		a.refusal = err
	}
	a.session.note(func(r *Record) {
		if grant.Identity != (Identity{}) {
			r.Identity = grant.Identity
		}
		if err == nil || first {
			r.Rule, r.To, r.Address = grant.Rule, target, at
		}
		if err == nil {
			r.Via, r.Proxy = grant.Way.via(), by.proxy
		}
	})
}

// settle sends or drops what was kept for a destination that is decided on. It
// returns the next that waits for a decision; nil ends the decider.
func (a *association) settle(d *destination, at netip.AddrPort, by *exit, err error) *destination {
	a.mu.Lock()
	defer a.mu.Unlock()
	if by != nil && by.gone {
		at, err = netip.AddrPort{}, UpstreamFailed // ended since it was chosen
	}
	a.known.settle(d, at, by, time.Now())
	for queue := a.known.take(d); len(queue) > 0; queue = a.known.take(d) {
		if err != nil {
			a.drop(len(queue))
			continue
		}
		to := d.to
		queue = a.inTime(d.up, queue)
		a.mu.Unlock()
		a.sendBy(by, to, queue...)
		a.mu.Lock()
	}
	d.pending = false // only now: what comes later must not overtake
	a.setAlarm()
	if len(a.waiting) == 0 {
		a.deciding--
		return nil
	}
	next := a.waiting[0]
	a.waiting = a.waiting[1:]
	return next
}

// inTime returns the payloads that are not too fast, and drops the others.
func (a *association) inTime(p Pacer, payloads [][]byte) [][]byte {
	all := len(payloads)
	payloads = slices.DeleteFunc(payloads, func(payload []byte) bool { return !(*upward)(a.session).inRate(p, len(payload)) })
	a.drop(all - len(payloads))
	return payloads
}

func (a *association) sendBy(by *exit, to *net.UDPAddr, payloads ...[]byte) {
	var o outgoing
	o.messages = make([]message, 0, len(payloads))
	for _, payload := range payloads {
		o.add(payload, to, len(payload))
	}
	a.session.meter.Add(a.send(&o, by.sockets[family(to.AddrPort().Addr())]), 0)
}

// downFrom returns down for what comes by one exit.
func (a *association) downFrom(by *exit) func(context.Context, *batch, int) {
	return func(_ context.Context, b *batch, n int) { a.down(by, b, n) }
}

// down takes a batch from the targets to the client. What comes from an address
// that the client has not sent to by the same exit is dropped.
func (a *association) down(by *exit, b *batch, n int) {
	home := a.home.Load()
	out := &b.out[v4] // all to one address
	a.mu.Lock()
	for i := range n {
		p := a.known.peers[source{by, udpAddrPort(b.in[i].Addr)}]
		if p == nil || home == nil || !(*downward)(a.session).inRate(p.down, b.in[i].N) {
			a.drop(1)
			continue
		}
		out.add(b.headed(i, p.header), home, b.in[i].N)
	}
	a.mu.Unlock()
	a.session.meter.Add(0, a.send(out, a.client))
}
