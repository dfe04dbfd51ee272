//go:build amd64 || arm64

package intercept

import (
	"net"
	"net/netip"
	"sync"

	"github.com/sallyport/sallyport/internal/relay"
)

// passage is a connection of a program that was led through the door.
type passage struct {
	from    netip.AddrPort // the program's own end
	program net.Conn
	proxy   net.Conn       // what comes and goes at the other side
	named   netip.AddrPort // where the program thinks that it is connected to
	meter   relay.Meter
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

// count returns how many there are.
func (all *passages) count() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	return len(all.by)
}

// sent returns how many bytes those that there are have sent.
func (all *passages) sent() (bytes int64) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, p := range all.by {
		bytes += p.meter.Up()
	}
	return bytes
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
