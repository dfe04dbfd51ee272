package ledger

import (
	"hash/maphash"
	"time"
)

// DefaultHosts is how many target hosts of a user are counted apart in a day.
const DefaultHosts = 1000

// mostHosts bounds them in sum over all users: who may use any name could have as many
// users as he likes. It is a variable for tests.
var mostHosts = 250_000

// hosts bounds how many target hosts are counted apart in a day of UTC: they are of the
// clients' choice, and each is a row for as long as days are kept. What comes beyond is
// counted together. The zero value has the bound of DefaultHosts. It is not safe for
// concurrent use.
type hosts struct {
	most  int // of a user; 0: DefaultHosts
	day   int64
	seen  map[uint64]struct{} // user and host, as digests: one in many millions of new ones may be taken for another
	count map[string]int      // of a user
}

var hostSeed = maphash.MakeSeed()

// bound returns the key by which is counted what k is of.
func (h *hosts) bound(k Key, now time.Time) Key {
	if k.Host == "" {
		return k
	}
	if today := now.Unix() / (24 * 60 * 60); today != h.day || h.seen == nil {
		h.day, h.seen, h.count = today, make(map[uint64]struct{}), make(map[string]int)
	}
	digest := maphash.Comparable(hostSeed, [2]string{k.User, k.Host})
	if _, there := h.seen[digest]; there {
		return k
	}
	most := h.most
	if most == 0 {
		most = DefaultHosts
	}
	if h.count[k.User] >= most || len(h.seen) >= mostHosts {
		k.Host = other
		return k
	}
	h.seen[digest] = struct{}{}
	h.count[k.User]++
	return k
}
