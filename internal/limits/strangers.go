package limits

import (
	"cmp"
	"hash/maphash"

	"github.com/sallyport/sallyport/server"
)

// A name that is only claimed, or that the client's own machine confirms, is the client's
// choice. If each had what a user has, whoever invents names would have as much as he likes;
// and each is a counter, and an account in the bank, for as long as something follows from it.
// So a limit counts only some names of a source apart, and all others as one.

const (
	// other is the name of all that are not counted apart. It counts as claimed.
	other = "(other)"
	// usualNames is how many of a source are counted apart if the limit does not say.
	usualNames = 1000
	// mostStrangers is the same of all sources: there is room for those who show names.
	mostStrangers = mostIdle / 2
)

// Proved reports whether a name is one that the administrator has given. An identd is its
// machine's owner's.
func Proved(id server.Identity) bool {
	switch id.Proof {
	case server.Password, server.Certificate, server.Key:
		return true
	}
	return false
}

// strangers are the names that have a counter, and that nobody had proved when it was made.
type strangers struct {
	from map[key]digest // the source that has brought a name
	of   map[digest]int // how many a source has brought
}

// digest stands for a source; 0: it is not known.
type digest uint64

var sourceSeed = maphash.MakeSeed()

// stranger returns the source of a name that is the client's choice; 0: it is none.
func (p *Part) stranger(r *server.Request, id server.Identity) digest {
	if id.Name == "" || Proved(id) || len(p.groups[id.Name]) > 0 {
		return 0
	}
	return digest(max(1, maphash.Comparable(sourceSeed, source(r.Client.Addr()))))
}

// named returns the key of a user.
func (l *limit) named(of *who) key {
	k := key{name: of.name, claimed: of.claimed}
	s := &l.strange
	switch {
	case of.from == 0 || l.counters[k] != nil:
	case s.of[of.from] >= cmp.Or(l.Names, usualNames) || len(s.from) >= mostStrangers:
		return key{name: other, claimed: true}
	}
	return k
}

// add notes a name that has a counter now.
func (s *strangers) add(k key, from digest) {
	if from == 0 && !k.claimed || k.name == other {
		return
	}
	if s.from == nil {
		s.from, s.of = make(map[key]digest), make(map[digest]int)
	}
	s.from[k] = from
	s.of[from]++
}

// remove notes that it has none any more.
func (s *strangers) remove(k key) {
	from, there := s.from[k]
	if !there {
		return
	}
	delete(s.from, k)
	if s.of[from]--; s.of[from] == 0 {
		delete(s.of, from)
	}
}
