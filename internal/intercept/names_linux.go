//go:build amd64 || arm64

package intercept

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

// Addresses that stand for names are of 198.18.0.0/15 (RFC 2544, appendix C.2.2), in
// which nobody has a server.
const (
	firstStandIn = 198<<24 | 18<<16 | 1
	maxStandIns  = 1<<17 - 2
)

// names are host names and the addresses that stand for them. An address stands for its
// name until that many others were asked for. Safe for concurrent use.
type names struct {
	mu   sync.Mutex
	of   map[string]int // the place in all
	all  []string
	next int
	size int // how many there may be
}

func newNames(size int) *names { return &names{of: map[string]int{}, size: size} }

// standIn returns the address for a name in its canonical form.
func (n *names) standIn(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	place, known := n.of[name]
	if !known {
		place = n.next
		n.next = (n.next + 1) % n.size
		if place == len(n.all) {
			n.all = append(n.all, name)
		} else {
			delete(n.of, n.all[place])
			n.all[place] = name
		}
		n.of[name] = place
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, firstStandIn+uint32(place))))
}

// behind returns the name that an address stands for.
func (n *names) behind(ip netip.Addr) (name string, ok bool) {
	if ip = ip.Unmap(); !ip.Is4() {
		return "", false
	}
	b := ip.As4()
	place := int64(binary.BigEndian.Uint32(b[:])) - firstStandIn
	n.mu.Lock()
	defer n.mu.Unlock()
	if place < 0 || place >= int64(len(n.all)) {
		return "", false
	}
	return n.all[place], true
}
