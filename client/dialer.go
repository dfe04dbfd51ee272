package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// defaultTimeout is a little more than the two minutes after which the paper
// has the proxy give up, so that the proxy's own answer arrives first.
const defaultTimeout = 2*time.Minute + 10*time.Second

// A ContextDialer connects to an address. *net.Dialer is one, and so is *Dialer.
type ContextDialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// A Resolver looks up host names. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer reaches targets through a proxy or a chain of them. Make it with New.
// It keeps nothing between calls, and all its methods are safe for concurrent use.
type Dialer struct {
	proxy    proxy         // the last of the chain
	forward  ContextDialer // in a chain, the Dialer for the proxies before
	resolver Resolver
	timeout  time.Duration
	tls      *tls.Config
}

// An Option changes how a Dialer works.
type Option func(*Dialer)

// WithForward makes the Dialer reach the proxy itself (the first of a chain) by
// f, which must not be nil, instead of a zero net.Dialer: from a certain
// address, through a tunnel, or through another proxy (f may be a Dialer too).
// ListenPacket then needs f to have a method ListenPacket like its own or
// net.ListenConfig's: UDP must not take another way than TCP.
func WithForward(f ContextDialer) Option { return func(d *Dialer) { d.forward = f } }

// WithResolver makes a socks4 or socks5 Dialer look up the targets' names by r,
// which must not be nil, instead of net.DefaultResolver. The others look up none.
func WithResolver(r Resolver) Option { return func(d *Dialer) { d.resolver = r } }

// WithTLSConfig sets the configuration of TLS to https proxies. It is copied when
// used; without a ServerName it gets the host of the proxy's URL, and NextProtos
// does not count.
func WithTLSConfig(c *tls.Config) Option { return func(d *Dialer) { d.tls = c } }

// WithTimeout bounds every DialContext, Listen and ListenPacket whose context has no deadline.
// Without this option the bound is 2 min 10 s; 0 or less is no bound at all.
func WithTimeout(t time.Duration) Option { return func(d *Dialer) { d.timeout = t } }

// New returns a Dialer for the proxy at proxyURL, or for a chain of them: URLs
// with commas between, the first being the one that is reached from here. The
// package documentation gives their form. It connects to nothing.
func New(proxyURL string, opts ...Option) (*Dialer, error) {
	var d *Dialer
	for _, text := range splitChain(proxyURL) {
		p, err := parseProxy(text)
		if err != nil {
			return nil, err
		}
		next := newDialer(p, opts)
		if d != nil {
			next.forward = d
		}
		d = next
	}
	return d, nil
}

func newDialer(p proxy, opts []Option) *Dialer {
	d := &Dialer{proxy: p, forward: new(net.Dialer), resolver: net.DefaultResolver, timeout: defaultTimeout}
	for _, opt := range opts {
		opt(d)
	}
	return d
}

// Dial is DialContext without a context. It makes a Dialer fit where old
// interfaces ask for one.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to address ("host:port") through the proxy and blocks
// until the proxy grants or refuses it, or ctx ends. ctx has no bearing on the
// returned connection, which the caller must close; the package documentation
// tells what it can do.
//
// network is tcp, tcp4 or tcp6. Of a socks5 Dialer the latter two choose among the
// addresses of a name. Others that send the name cannot tell the proxy how to
// reach it: there tcp6 goes only with the text of an IPv6 address.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	g, err := d.open(ctx, socks.Connect, network, address)
	if err != nil {
		return nil, err
	}
	return newConn(g.conn, netAddr(g.target)), nil
}

// granted is a connection to the proxy on which a request has been granted.
type granted struct {
	conn   net.Conn
	target socks.Addr // as it was named in the request
	reply  reply
}

// open makes the request for address, once for every address it may have, until
// one is granted.
func (d *Dialer) open(ctx context.Context, cmd socks.Command, network, address string) (granted, error) {
	if err := d.proxy.carries(cmd); err != nil {
		return granted{}, d.fail(cmd, address, err)
	}
	ctx, cancel := d.bound(ctx)
	defer cancel()
	targets, err := d.targets(ctx, network, address)
	if err != nil {
		return granted{}, d.fail(cmd, address, err)
	}
	var first error
	for i, target := range targets {
		g, err := d.try(ctx, cmd, target, len(targets)-i)
		if err == nil {
			return g, nil
		}
		if ctx.Err() != nil || isFinal(err) {
			return granted{}, err
		}
		if first == nil {
			first = err
		}
	}
	return granted{}, first
}

// bound returns ctx with the Dialer's own time limit if it has none.
func (d *Dialer) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok || d.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d.timeout, fmt.Errorf("no answer within %v", d.timeout))
}

// try makes one request on a connection of its own. left is the number of
// targets still to be tried, this one included.
func (d *Dialer) try(ctx context.Context, cmd socks.Command, target socks.Addr, left int) (_ granted, err error) {
	conn, err := d.reach(ctx)
	if err != nil {
		return granted{}, d.fail(cmd, target.String(), fmt.Errorf("%w: %w", ErrProxy, because(ctx, err)))
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	ctx, cancel := share(ctx, left)
	defer cancel()
	answer, err := exchange(ctx, conn, func() (reply, error) { return d.proxy.ask(conn, cmd, target) })
	if err != nil {
		return granted{}, d.fail(cmd, target.String(), err)
	}
	if !answer.granted {
		return granted{}, refused(d.proxy, cmd.String(), target.String(), answer)
	}
	return granted{conn, target, answer}, nil
}

// Probe connects to the proxy, in a chain through those before it, goes as far as
// its protocol goes without a request (TLS; the greeting and the login of SOCKS 5),
// and hangs up. It blocks until that is done or ctx ends; nil says that the proxy
// serves. Errors are like those of DialContext.
func (d *Dialer) Probe(ctx context.Context) error {
	ctx, cancel := d.bound(ctx)
	defer cancel()
	const op = "probe"
	conn, err := d.reach(ctx)
	if err != nil {
		return &opError{d.proxy.String(), op, d.proxy.address, fmt.Errorf("%w: %w", ErrProxy, because(ctx, err))}
	}
	defer conn.Close()
	_, err = exchange(ctx, conn, func() (reply, error) { return reply{}, d.proxy.greet(conn) })
	if err != nil {
		return &opError{d.proxy.String(), op, d.proxy.address, err}
	}
	return nil
}

// reach connects to the proxy itself.
func (d *Dialer) reach(ctx context.Context) (net.Conn, error) {
	conn, err := d.forward.DialContext(ctx, "tcp", d.proxy.address)
	if err != nil || !d.proxy.overTLS {
		return conn, err
	}
	config := &tls.Config{}
	if d.tls != nil {
		config = d.tls.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = d.proxy.host
	}
	config.NextProtos = []string{"http/1.1"}
	over := tls.Client(conn, config)
	if err := over.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return over, nil
}

// share returns ctx with its share of the time that is left, if there are other
// targets to be tried after this one: a target that never answers must not use
// up the time of those that would.
func share(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	const least = 2 * time.Second
	until, ok := ctx.Deadline()
	if !ok || left == 1 {
		return context.WithCancel(ctx)
	}
	part := max(time.Until(until)/time.Duration(left), least)
	return context.WithTimeoutCause(ctx, part, fmt.Errorf("no answer within %v, this address's share of the time", part))
}

// isFinal reports whether err would be the same for any other address of the
// target: it is about the proxy, or about who asks.
func isFinal(err error) bool {
	return errors.Is(err, ErrProxy) || errors.Is(err, socks.ErrVersion) ||
		errors.Is(err, ErrNoIdentd) || errors.Is(err, ErrOtherUser) || errors.Is(err, ErrLogin)
}

func (d *Dialer) fail(cmd socks.Command, target string, err error) error {
	return &opError{d.proxy.String(), cmd.String(), target, err}
}

func refused(p proxy, op, target string, r reply) error {
	return &ReplyError{
		Proxy:  p.String(),
		Op:     op,
		Target: target,
		Code:   r.code,
		Addr:   netip.AddrPortFrom(r.host.IP.Unmap(), r.host.Port),
		Reason: r.reason,
		Rule:   r.rule,
	}
}
