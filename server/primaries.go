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
}

// primaries are the CONNECT relays that are open now. The zero value is empty.
type primaries struct {
	mu   sync.Mutex
	open map[primary]int
}

func (p *primaries) add(k primary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[primary]int)
	}
	p.open[k]++
}

func (p *primaries) remove(k primary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[k]--; p.open[k] == 0 {
		delete(p.open, k)
	}
}

// has reports whether the same client holds a relay to one of the targets.
func (p *primaries) has(client netip.Addr, userID string, targets []netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, target := range targets {
		if p.open[primary{client, userID, target}] > 0 {
			return true
		}
	}
	return false
}
