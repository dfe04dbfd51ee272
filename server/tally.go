package server

import (
	"net/netip"
	"sync"
)

// unlimitedConnections bounds the connections where the system does not.
const unlimitedConnections = 1 << 20

// tally counts what waits, in sum and by source, and refuses what is too much.
// It holds a source only while something of it waits, so it is itself bounded.
type tally struct {
	mu       sync.Mutex
	most     int
	perEach  int
	total    int
	bySource map[netip.Prefix]int
}

func (t *tally) limit(most, perEach int) {
	t.most, t.perEach, t.bySource = most, perEach, make(map[netip.Prefix]int)
}

// add counts one more for source; it reports false, and counts nothing, at a limit.
func (t *tally) add(source netip.Addr) bool {
	key := sourceKey(source)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= t.most || t.bySource[key] >= t.perEach {
		return false
	}
	t.total++
	t.bySource[key]++
	return true
}

func (t *tally) remove(source netip.Addr) {
	key := sourceKey(source)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total--
	if t.bySource[key]--; t.bySource[key] == 0 {
		delete(t.bySource, key)
	}
}

// sourceKey is what counts as one source: an IPv4 address, an IPv6 /64 (one
// machine can take any address of its own).
func sourceKey(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}
