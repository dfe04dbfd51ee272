// Package upstream reaches targets through other proxies: it chooses one of
// several, sees which are alive, and goes on to the next where one fails. It is
// what the server calls an Upstream, made of what the client package can. The targets
// of a port mapping are chosen and checked in the same way: that is its Balance.
package upstream

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// Settings say what a Pool is made of.
type Settings struct {
	Name          string
	Proxies       []string             // URLs as client.New takes them, chains too; at least one
	Choose        Choose               // empty: FirstAlive
	ProxyProtocol int                  // the version of the PROXY header that the first proxy of each gets; 0: none
	Check         time.Duration        // from one check of a proxy that is alive to the next; 0: 30 s
	Leave         server.Leaving       // how the proxies are reached, without a Forward
	Forward       client.ContextDialer // reaches the first proxy of each; nil: the operating system's network
	Log           *slog.Logger         // a line when a proxy fails or is back; nil: none
}

const defaultCheck = 30 * time.Second

// Pool is several proxies of which one is as good as the other. It is a
// [server.Upstream], and safe for concurrent use.
type Pool struct {
	name    string
	chooser chooser
	forward forward
	check   time.Duration
	members []*member
}

// New returns a Pool, or an error that holds nothing secret. It connects to nothing.
func New(s Settings) (*Pool, error) {
	if len(s.Proxies) == 0 {
		return nil, errors.New("upstream: no proxies")
	}
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{name: s.Name, check: s.Check}
	p.chooser.choose = s.Choose
	if p.check == 0 {
		p.check = defaultCheck
	}
	p.forward = forward{base: s.Forward, leave: s.Leave, version: s.ProxyProtocol}
	for _, text := range s.Proxies {
		m, err := newMember(text, log.With("upstream", s.Name))
		if err != nil {
			return nil, err
		}
		p.members = append(p.members, m)
	}
	return p, nil
}

// SendsNames reports whether all of the proxies are sent host names unresolved.
func (p *Pool) SendsNames() bool {
	return !slices.ContainsFunc(p.members, func(m *member) bool { return !m.last.SendsNames })
}

// Run checks the proxies until ctx ends, and blocks for as long. Without it a
// proxy that has failed stays the last choice until it serves again.
func (p *Pool) Run(ctx context.Context) {
	var checks sync.WaitGroup
	for _, m := range p.members {
		checks.Go(func() { m.watch(ctx, p.check, p.forward) })
	}
	checks.Wait()
}

// order returns the proxies in the order in which they are to be asked: those
// that are alive as they were chosen, then, for want of better, the others.
func (p *Pool) order(d server.Departure) []*member {
	all := make([]*health, len(p.members))
	for i, m := range p.members {
		all[i] = m.health
	}
	var members []*member
	for _, i := range p.chooser.order(d.Client.Addr(), all) {
		members = append(members, p.members[i])
	}
	now := time.Now()
	slices.SortStableFunc(members, func(a, b *member) int {
		switch known := d.Proxy; {
		case known == "" || a.name == b.name:
		case a.name == known && a.usable(now):
			return -1
		case b.name == known && b.usable(now):
			return 1
		}
		return 0
	})
	return members
}

// Proxy is how one of a pool is.
type Proxy struct {
	Name string // its URL, or those of its chain, without the login
	Up   bool   // as far as is known
}

// Proxies returns how those of the pool are, in the order of the settings.
func (p *Pool) Proxies() []Proxy {
	now := time.Now()
	all := make([]Proxy, 0, len(p.members))
	for _, m := range p.members {
		all = append(all, Proxy{m.name, m.usable(now)})
	}
	return all
}
