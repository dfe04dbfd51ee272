package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// Mapping makes a listener a port mapping: whoever comes to it is taken to have
// asked for the target, and neither says nor hears anything of a protocol of
// ours. The policy decides on it as on any other CONNECT (of datagrams: as on any
// other destination); the protocol is [Mapped]. It must not be changed once it is
// in use.
type Mapping struct {
	Targets []MapTarget // at least one; each as good as the other
	Balance Balance     // in which order they are tried; nil: in that of Targets

	// ProxyVersion is that of the PROXY header by which a target learns who the
	// client is, before TLS: 1 or 2; 0: none. Not for datagrams.
	ProxyVersion int

	// Idle is how long a client's datagrams may pause before it counts as a new
	// one; 0: Timeouts.Association.
	Idle time.Duration
}

// MapTarget is where a [Mapping] leads to.
type MapTarget struct {
	Addr   socks.Addr
	Socket string      // the path of a unix socket, in the place of Addr. To the policy it is 127.0.0.1, port 0
	TLS    *tls.Config // the target is spoken to over TLS; ServerName must be set. nil: as it comes. Not for datagrams
}

// Balance chooses among the targets of a [Mapping], and learns how they do. Its
// methods must not block, and are called from many goroutines at once.
type Balance interface {
	// Order returns indexes of targets, the one to be tried first at first.
	Order(client netip.Addr) []int
	// Tried tells what came of it. Without an error a session has begun, and Ended
	// will be called once it is over. An error is one of the target's.
	Tried(target int, err error)
	// Ended tells that a session with a target is over.
	Ended(target int)
}

// asked is the target as rules and records know it.
func (t *MapTarget) asked() socks.Addr {
	if t.Socket != "" {
		return socks.FromIP(netip.AddrPortFrom(hereIP, 0))
	}
	return t.Addr
}

// What a door ends with that leads nowhere.
var (
	errNoMapping    = errors.New("server: a listener for datagrams must be a port mapping")
	errEmptyMapping = errors.New("server: a port mapping needs a target")
)

// hereIP is what a unix socket counts as, at either end: this machine.
var hereIP = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// isPlain reports whether what the mapping asks for is a CONNECT like any other.
func (m *Mapping) isPlain() bool {
	t := &m.Targets[0]
	return len(m.Targets) == 1 && t.Socket == "" && t.TLS == nil && m.ProxyVersion == 0 && m.Balance == nil
}

// order returns which targets to try, one after the other.
func (m *Mapping) order(client netip.Addr) []int {
	if m.Balance != nil {
		return m.Balance.Order(client)
	}
	all := make([]int, len(m.Targets))
	for i := range all {
		all[i] = i
	}
	return all
}

func (m *Mapping) tried(target int, err error) {
	if m.Balance != nil {
		m.Balance.Tried(target, err)
	}
}

func (m *Mapping) ended(target int) {
	if m.Balance != nil {
		m.Balance.Ended(target)
	}
}

// request is the constant that each client of the mapping asks for.
func (m *Mapping) request() *Request {
	return &Request{Protocol: Mapped, Command: socks.Connect, Target: m.Targets[0].asked(), Replier: mute{}}
}

// mute is the Replier of a mapping: its clients hear nothing but the target.
type mute struct{}

func (mute) AppendGrant(b []byte, _ netip.AddrPort) []byte         { return b }
func (mute) AppendDeny(b []byte, _ error, _ netip.AddrPort) []byte { return b }

// mapped is what comes before the bytes that are the target's: a PROXY header,
// and TLS, which every client speaks where the listener has it. Nothing else is
// waited for, since the client may well be one that waits for the target to speak.
func (d *driver) mapped() step {
	switch {
	case !d.headed:
		return step{}
	case d.listener.TLS != nil && !d.session.TLS:
		return step{secure: true}
	}
	return step{request: d.listener.Mapping.request()}
}

// round is one session's way through the targets of a mapping.
type round struct {
	mapping *Mapping
	left    []int     // those that may yet be tried, in their order; the first is at hand
	until   time.Time // when the time for all of them is over
	first   error     // of the first that failed
}

func (x *exchange) newRound(m *Mapping) *round {
	return &round{mapping: m, left: m.order(x.session.Client.Addr()), until: time.Now().Add(x.server.timeouts().Connect)}
}

// target is the one at hand.
func (r *round) target() *MapTarget { return &r.mapping.Targets[r.left[0]] }

// share is how much time the target at hand has, if there are others behind it.
func (r *round) share() time.Duration {
	return min(mapShare, time.Until(r.until)/time.Duration(len(r.left)))
}

// reached notes that a session begins with the target at hand, and returns what is to
// be called at its end.
func (r *round) reached() (release func()) {
	m, i := r.mapping, r.left[0]
	m.tried(i, nil)
	return func() { m.ended(i) }
}

// failed goes on to the next target. The error is what came of the one at hand, which
// is told of it where it is to blame.
func (r *round) failed(err error, blamed bool) {
	if blamed {
		r.mapping.tried(r.left[0], err)
	}
	r.first = cmp.Or(r.first, err)
	r.left = r.left[1:]
}

// aim makes the target at hand what the session asks for.
func (x *exchange) aim(r *round) {
	t := r.target()
	x.session.note(func(rec *Record) { // who reviews the session reads the request, too
		x.request.Target = t.asked()
		rec.Target, rec.Socket = x.request.Target, t.Socket
	})
}

// reachMapped connects to the first target that is left of a round, is granted and
// answers. Where none does, the first one's error is returned. judge is the verdict on the
// target at hand; nil: there is none yet.
func (x *exchange) reachMapped(ctx context.Context, r *round, judge verdict) (net.Conn, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, r.until, TimedOut)
	defer cancel()
	for len(r.left) > 0 {
		x.aim(r)
		if judge == nil {
			judge = x.judgeMapped(r)
		}
		c, blamed, err := x.reachOne(ctx, r, judge)
		if err == nil {
			x.release = r.reached()
			return c, nil
		}
		if until, _ := ctx.Deadline(); !time.Now().Before(until) {
			<-ctx.Done() // a Dialer, which goes by the deadline, may be the first to notice
		}
		r.failed(err, blamed && ctx.Err() == nil)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		judge = nil
	}
	return nil, r.outcome()
}

// outcome is what came of a round in which no target was reached.
func (r *round) outcome() error { return cmp.Or(r.first, errNoTarget) }

// errNoTarget is what a client meets whom a balance gives no target at all.
var errNoTarget = fmt.Errorf("%w: the port mapping's balance names no target", Unreachable)

// mapShare is the most that one target of several may take of the time to connect.
const mapShare = 10 * time.Second

// reachOne connects to the target at hand, by a verdict. blamed says that the error
// tells something of the target.
func (x *exchange) reachOne(ctx context.Context, r *round, judge verdict) (c net.Conn, blamed bool, err error) {
	if len(r.left) > 1 { // else it may take all the time there is
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.share(), TimedOut)
		defer cancel()
	}
	to, err := judge(ctx)
	if err != nil {
		return nil, ReasonOf(err) == NoName, err // else it is the rules'
	}
	t := r.target()
	c, err = x.dialMapped(ctx, t, to)
	if err == nil {
		c, err = x.introduce(ctx, r.mapping, t, c)
	}
	return c, err != nil && blamesTarget(err), err
}

// judgeMapped is judge for the target at hand.
func (x *exchange) judgeMapped(r *round) verdict {
	if r.target().Socket == "" {
		return x.judge
	}
	return func(ctx context.Context) (passage, error) { // which has no address
		grant, err := x.decide(ctx)
		return passage{way: grant.Way}, err
	}
}

// blamesTarget reports whether an error says something of the target, and not of
// the rules or the upstreams on the way to it.
func blamesTarget(err error) bool {
	switch ReasonOf(err) {
	case Refused, Unreachable, TimedOut, BadReply:
		return true
	}
	return false
}

func (x *exchange) dialMapped(ctx context.Context, t *MapTarget, to passage) (net.Conn, error) {
	if t.Socket == "" {
		return x.dial(ctx, to)
	}
	if to.way.upstream() != nil {
		return nil, fmt.Errorf("%w: no upstream leads to a unix socket", Unreachable)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", t.Socket)
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), closeIf(c))
	}
	return c, socketFault(err)
}

// socketFault gives the word for a unix socket that is not there.
func socketFault(err error) error {
	if err != nil && ReasonOf(err) == Failed {
		return fmt.Errorf("%w: %w", Unreachable, err)
	}
	return err
}

// introduce says to a target what it is to hear before the client: who that is,
// and TLS. It closes c where it fails.
func (x *exchange) introduce(ctx context.Context, m *Mapping, t *MapTarget, c net.Conn) (net.Conn, error) {
	if m.ProxyVersion == 0 && t.TLS == nil {
		return c, nil
	}
	stop := context.AfterFunc(ctx, func() { expire(c) })
	secure, err := m.openTo(ctx, t, c, x.request)
	if !stop() || err != nil {
		return nil, errors.Join(causeOr(ctx, err), c.Close())
	}
	return secure, nil
}

// openTo is introduce, on a connection with a deadline.
func (m *Mapping) openTo(ctx context.Context, t *MapTarget, c net.Conn, r *Request) (net.Conn, error) {
	if m.ProxyVersion != 0 {
		if _, err := c.Write(AppendProxyHeader(nil, m.ProxyVersion, r.Client, r.Local)); err != nil {
			return nil, err
		}
	}
	if t.TLS == nil {
		return c, nil
	}
	secure := tls.Client(c, t.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: TLS with the target: %w", BadReply, err)
	}
	return secure, nil
}

// causeOr returns why ctx has ended; else err.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
