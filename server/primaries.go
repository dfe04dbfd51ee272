package server

import (
	"net/netip"
	"sync"
)

// primary is a relay that a BIND may lean on: the paper grants a BIND "only
// after a primary connection to the application server has been established".
type primary struct {
	client netip.Addr
	userID string
	target netip.Addr
	name   string // of the target, where an upstream alone knows its address
}

// primary returns what the relay of an open session that has reached its target
// is to a BIND.
func (s *Session) primary() primary {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	w := s.wake()
	p := primary{client: w.record.Client.Addr(), userID: w.request.Identity.Name, target: w.record.Address.Addr()}
	if !p.target.IsValid() {
		p.name = w.request.Target.Name
	}
	return p
}

// primaries are the CONNECT relays that are open now. The zero value is empty.
type primaries struct {
	mu   sync.Mutex
	open map[primary]held
}

// held are the relays of one kind.
type held struct {
	relays int
	proxy  string // of the last of them: which proxy carries it
}

func (p *primaries) add(k primary, proxy string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[primary]held)
	}
	p.open[k] = held{relays: p.open[k].relays + 1, proxy: proxy}
}

func (p *primaries) remove(k primary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.open[k]
	if h.relays <= 1 {
		delete(p.open, k)
		return
	}
	h.relays--
	p.open[k] = h
}

// has reports whether the same client holds a relay to one of the targets, or to
// the one that has this name, and by which proxy.
func (p *primaries) has(client netip.Addr, userID string, targets []netip.Addr, name string) (proxy string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, held := p.open[primary{client, userID, netip.Addr{}, name}]; held && name != "" {
		return h.proxy, true
	}
	for _, target := range targets {
		if h, held := p.open[primary{client, userID, target, ""}]; held {
			return h.proxy, true
		}
	}
	return "", false
}
