package ledger

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"time"
)

// Apart is how many things of the clients' choice are counted apart in a day of UTC. 0 is
// the default.
type Apart struct {
	Hosts   int // target hosts of a user, or, of those who have not proved a name, of a source
	Names   int // names of a source that no password, certificate or key has proved
	Sources int // addresses of an IPv6 /64
}

// DefaultApart is how many of each it is by default.
const DefaultApart = 1000

// mostApart bounds what is remembered of a day, some 250,000 combinations: there may be as many
// users and networks as anybody likes. It is a variable for tests.
var mostApart = 500_000

// apart bounds what is counted apart in a day: each combination is a row for as long as days
// are kept. What comes beyond is counted together, with as much of the key as nobody but the
// administrator chooses. The zero value has the bounds of DefaultApart. It is not safe for
// concurrent use.
type apart struct {
	most  Apart
	day   int64
	seen  map[uint64]struct{} // digests: one in many millions of new ones may be taken for another
	count map[uint64]int      // of those whose things are counted
}

// kind says what somebody has chosen.
type kind int

const (
	whole    kind = iota // all of a key
	ofSource             // an address, of a network
	ofName               // a name, of a network
	ofHost               // a host, of a network
	ofUser               // a host, of a user
)

// choice is something of somebody's. Without the thing it is he who has chosen.
type choice struct {
	kind  kind
	owner string
	of    Key // the fields of the thing
}

var apartSeed = maphash.MakeSeed()

func (c choice) digest() uint64 { return maphash.Comparable(apartSeed, c) }

// bound returns the key by which is counted what k is of. proved says that its user is one
// whom the administrator knows.
func (a *apart) bound(k Key, proved bool, now time.Time) Key {
	if today := now.Unix() / (24 * 60 * 60); today != a.day || a.seen == nil {
		a.day, a.seen, a.count = today, make(map[uint64]struct{}), make(map[uint64]int)
	}
	switch {
	case a.has(k):
		return k
	case len(a.seen) >= mostApart:
		return a.collapsed(k, proved)
	}
	network := networkOf(k.Source)
	owner := choice{kind: ofHost, owner: network}
	if proved {
		owner.kind, owner.owner = ofUser, k.User
	}
	if k.Host != "" && !a.takes(owner, Key{User: k.User, Host: k.Host}, a.most.Hosts) {
		k.Host = other
	}
	if !proved && k.User != "" && !a.takes(choice{kind: ofName, owner: network}, Key{User: k.User}, a.most.Names) {
		k.User = other
	}
	if network != k.Source && !a.takes(choice{kind: ofSource, owner: network}, Key{Source: k.Source}, a.most.Sources) {
		k.Source = network
	}
	a.seen[choice{kind: whole, of: k}.digest()] = struct{}{}
	return k
}

func (a *apart) has(k Key) bool {
	_, there := a.seen[choice{kind: whole, of: k}.digest()]
	return there
}

// takes reports whether a thing is one of the first of its owner's, which are counted apart.
func (a *apart) takes(c choice, of Key, most int) bool {
	owner := c.digest()
	c.of = of
	thing := c.digest()
	if _, there := a.seen[thing]; there {
		return true
	}
	if a.count[owner] >= cmp.Or(most, DefaultApart) {
		return false
	}
	a.seen[thing] = struct{}{}
	a.count[owner]++
	return true
}

// collapsed is by what is counted what is new when there is too much of all.
func (a *apart) collapsed(k Key, proved bool) Key {
	if k.Host != "" {
		k.Host = other
		if a.has(k) {
			return k
		}
	}
	if k.Source != "" {
		k.Source = other
	}
	if k.User != "" && !proved {
		k.User = other
	}
	return k
}

// networkOf is of whom the addresses and the names of a source are: of IPv6 the /64, of which anybody
// has all addresses, as limits have it.
func networkOf(source string) string {
	at, err := netip.ParseAddr(source)
	if err != nil || at.Is4() {
		return source
	}
	network, err := at.Prefix(64)
	if err != nil {
		return source
	}
	return network.String()
}
