package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// TargetSettings say what [Targets] are made of.
type TargetSettings struct {
	Listener     string               // the name of the mapping's listener, for the log
	Targets      []server.MapTarget   // at least one
	Choose       Choose               // empty: FirstAlive
	Check        time.Duration        // from one check of a target that is alive to the next; 0: they are not checked
	ProxyVersion int                  // of the PROXY header that a target expects; 0: none
	Resolver     Resolver             // looks names up, for checks; nil: the operating system's
	Forward      client.ContextDialer // reaches the targets for checks; nil: the operating system's network
	Log          *slog.Logger         // a line when a target fails or is back; nil: none
}

// Resolver looks names up.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Targets are those of a port mapping: a [server.Balance] that leaves out those
// that are down, as long as there are others. A target is down when it could not
// be reached; where there are checks until one succeeds, else for a while that
// grows from 1 s to 1 min.
type Targets struct {
	settings TargetSettings
	chooser  chooser
	targets  []*health
}

// NewTargets returns the targets. It connects to nothing.
func NewTargets(s TargetSettings) *Targets {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if s.Resolver == nil {
		s.Resolver = net.DefaultResolver
	}
	if s.Forward == nil {
		s.Forward = &net.Dialer{}
	}
	t := &Targets{settings: s}
	t.chooser.choose = s.Choose
	for i := range s.Targets {
		h := newHealth("a target of a port mapping", "target", targetName(&s.Targets[i]), log.With("listener", s.Listener))
		h.alone = s.Check == 0
		t.targets = append(t.targets, h)
	}
	return t
}

func targetName(t *server.MapTarget) string {
	if t.Socket != "" {
		return "unix:" + t.Socket
	}
	return t.Addr.String()
}

// Order implements [server.Balance].
func (t *Targets) Order(client netip.Addr) []int { return t.chooser.order(client, t.targets) }

// Tried implements [server.Balance].
func (t *Targets) Tried(target int, err error) {
	h := t.targets[target]
	if err != nil {
		h.failed(err, false)
		return
	}
	h.open.Add(1)
	h.serves(false)
}

// Ended implements [server.Balance].
func (t *Targets) Ended(target int) { t.targets[target].open.Add(-1) }

// Run checks the targets until ctx ends, and blocks for as long: it connects to
// each, straight from this machine, and speaks TLS where sessions would.
func (t *Targets) Run(ctx context.Context) {
	if t.settings.Check == 0 {
		return
	}
	var checks sync.WaitGroup
	for i, h := range t.targets {
		checks.Go(func() {
			h.watch(ctx, t.settings.Check, func(ctx context.Context) error { return t.probe(ctx, &t.settings.Targets[i]) })
		})
	}
	checks.Wait()
}

// probe connects to a target, and says that it is nobody's session.
func (t *Targets) probe(ctx context.Context, to *server.MapTarget) error {
	c, err := t.dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(until); err != nil {
			return err
		}
	}
	if version := t.settings.ProxyVersion; version != 0 {
		if _, err := c.Write(server.AppendProxyHeader(nil, version, netip.AddrPort{}, netip.AddrPort{})); err != nil {
			return err
		}
	}
	if to.TLS == nil {
		return nil
	}
	secure := tls.Client(c, to.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	return secure.CloseWrite()
}

// dial connects to the first address of a target that answers.
func (t *Targets) dial(ctx context.Context, to *server.MapTarget) (net.Conn, error) {
	d := t.settings.Forward
	switch {
	case to.Socket != "":
		return d.DialContext(ctx, "unix", to.Socket)
	case to.Addr.Name == "":
		return d.DialContext(ctx, "tcp", to.Addr.String())
	}
	addrs, err := t.settings.Resolver.LookupNetIP(ctx, "ip", to.Addr.Name)
	if err != nil {
		return nil, err
	}
	faults := []error{fmt.Errorf("%s has no address that answers", to.Addr.Name)}
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(int(to.Addr.Port))))
		if err == nil {
			return c, nil
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}
