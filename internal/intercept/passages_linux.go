//go:build amd64 || arm64

package intercept

import (
	"net"
	"net/netip"
	"sync"
)

// passage is a connection of a program that was led through the door.
type passage struct {
	from    netip.AddrPort // the program's own end
	program net.Conn
	proxy   net.Conn       // what comes and goes at the other side
	named   netip.AddrPort // where the program thinks that it is connected to
}

// passages are those that there are.
type passages struct {
	mu sync.Mutex
	by map[netip.AddrPort]*passage // by the programs' own ends
}

func (all *passages) begin(p *passage) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.by[p.from] = p
}

func (all *passages) end(p *passage) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.by[p.from] == p { // the next may have the same end
		delete(all.by, p.from)
	}
}

// of returns where a program thinks that a socket is connected to, by the socket's end.
func (all *passages) of(from netip.AddrPort) (named netip.AddrPort, ok bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	p, ok := all.by[from]
	if !ok {
		return netip.AddrPort{}, false
	}
	return p.named, true
}
