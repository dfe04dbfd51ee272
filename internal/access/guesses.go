package access

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// guesses slows down whoever tries passwords: by where they come from, and
// stronger by where they come from and whom they say they are. A user is never
// kept out by what others try elsewhere. Safe for concurrent use.
type guesses struct {
	seed maphash.Seed

	mu      sync.Mutex
	sources recent[netip.Addr, *guess]
	pairs   recent[pair, *guess]
}

// pair is a source and the name of a user, as a number.
type pair struct {
	source netip.Addr
	user   uint64
}

// guess is what is known of one source, or one pair.
type guess struct {
	wrong int       // passwords
	next  time.Time // when the next one may be tried
	last  time.Time // when the last one was
}

// patience says how guesses are slowed down.
type patience struct {
	free  int           // wrong passwords without consequence: people mistype
	first time.Duration // the pause after those; each further one doubles it
	most  time.Duration // the longest pause
}

var (
	withSource = patience{free: 20, first: 100 * time.Millisecond, most: 2 * time.Second} // many people may share one
	withPair   = patience{free: 3, first: 500 * time.Millisecond, most: 4 * time.Second}
)

const (
	forgetGuesses = 15 * time.Minute // without a wrong password
	maxGuesses    = 8192             // sources, and as many pairs
)

func newGuesses() *guesses {
	return &guesses{
		seed:    maphash.MakeSeed(),
		sources: recent[netip.Addr, *guess]{limit: maxGuesses},
		pairs:   recent[pair, *guess]{limit: maxGuesses},
	}
}

// admit returns how long to wait before a password may be tried, and then to
// ask again. Zero: now. Whoever is let in says with ended how it went.
func (g *guesses) admit(client netip.Addr, user string, now time.Time) time.Duration {
	source, p := g.keys(client, user)
	g.mu.Lock()
	defer g.mu.Unlock()
	bySource, _ := g.sources.get(source)
	byPair, _ := g.pairs.get(p)
	if wait := max(bySource.wait(now), byPair.wait(now)); wait > 0 {
		return wait
	}
	// The pause starts now, so that a second guess does not come in beside this one.
	bySource.pause(withSource, now)
	byPair.pause(withPair, now)
	return 0
}

// ended takes note of how a try went.
func (g *guesses) ended(client netip.Addr, user string, right bool, now time.Time) {
	source, p := g.keys(client, user)
	g.mu.Lock()
	defer g.mu.Unlock()
	if right {
		g.pairs.remove(p) // not the source: an account of one's own would buy guesses at others
		return
	}
	bySource, ok := g.sources.get(source)
	if !ok {
		bySource = &guess{}
		g.sources.put(source, bySource)
	}
	byPair, ok := g.pairs.get(p)
	if !ok {
		byPair = &guess{}
		g.pairs.put(p, byPair)
	}
	bySource.failed(withSource, now)
	byPair.failed(withPair, now)
}

func (g *guesses) keys(client netip.Addr, user string) (netip.Addr, pair) {
	source := sourceOf(client)
	return source, pair{source, maphash.String(g.seed, user)}
}

// sourceOf is whom a guess is laid to: of IPv6 the /64, of which anybody has
// all addresses.
func sourceOf(client netip.Addr) netip.Addr {
	client = client.Unmap().WithZone("")
	if client.Is4() {
		return client
	}
	network, err := client.Prefix(64)
	if err != nil {
		return client
	}
	return network.Addr()
}

// wait is how long until the next password may be tried. A nil guess waits for nothing.
func (g *guess) wait(now time.Time) time.Duration {
	if g == nil {
		return 0
	}
	if now.Sub(g.last) >= forgetGuesses {
		*g = guess{}
	}
	return g.next.Sub(now)
}

func (g *guess) failed(p patience, now time.Time) {
	g.wrong++
	g.last = now
	g.pause(p, now)
}

// pause puts off the next password, as the wrong ones before it call for.
func (g *guess) pause(p patience, now time.Time) {
	if g == nil || g.wrong < p.free {
		return
	}
	doublings := min(g.wrong-p.free, 16)
	g.next = now.Add(min(p.first<<doublings, p.most))
}
