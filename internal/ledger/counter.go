package ledger

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
)

// Key is what use is counted by. Fields that are not known are empty.
type Key struct{ User, Source, Listener, Rule, Host string }

// Counts is what was used.
type Counts struct {
	Sessions int64 // that moved anything, or reached their target
	Refused  int64 // sessions that came to nothing: refused, failed, or without a request
	Up, Down int64 // bytes, from the client to the target and back
}

func (c *Counts) add(more Counts) {
	c.Sessions += more.Sessions
	c.Refused += more.Refused
	c.Up += more.Up
	c.Down += more.Down
}

// mostKeys bounds what is counted apart between two writes.
const mostKeys = 100_000

// other is the name of what was summed up because there were too many keys.
const other = "(other)"

// counter counts in memory. Its lock is never held while something is waited for.
type counter struct {
	mu      sync.Mutex
	open    map[*server.Session]reading
	ended   map[subject]*sum // of sessions that have ended since the last collect, and is not in pending yet
	pending map[Key]Counts   // counted, and not in a batch yet
	crowded bool             // a key was turned away
	apart   apart            // of sessions
	nothing apart            // of what came to nothing, so that who is not let in leaves others theirs
}

// reading is what was last read off a session.
type reading struct {
	key      *Key // nil: it is not known yet, or nothing has moved of late
	up, down int64
}

// counted reports whether the session is among those that were counted.
func (r *reading) counted() bool { return r.up != 0 || r.down != 0 }

// moved returns what the session has moved since the last time.
func (r *reading) moved(up, down int64) Counts {
	counts := Counts{Up: up - r.up, Down: down - r.down}
	if !r.counted() {
		counts.Sessions = 1
	}
	r.up, r.down = up, down
	return counts
}

// subject is what a session is counted by as its record has it. A Key is made of it, which
// takes longer than to count.
type subject struct {
	user, listener, rule, name string
	source, host               netip.Addr
	proved                     bool // the user is who he says
	nothing                    bool // it came to nothing
}

// sum is what was used by those of one subject.
type sum struct {
	key Key
	Counts
}

// mostSubjects bounds those that are kept apart from their keys.
const mostSubjects = 10_000

func newCounter(most Apart) counter {
	return counter{
		open: make(map[*server.Session]reading), ended: make(map[subject]*sum), pending: make(map[Key]Counts),
		apart: apart{most: most}, nothing: apart{most: most},
	}
}

// Opened implements [server.Recorder].
func (c *counter) Opened(s *server.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[s] = reading{}
}

// Closed implements [server.Recorder].
func (c *counter) Closed(s *server.Session, _ error) {
	up, down := s.Up(), s.Down()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.open[s]
	delete(c.open, s)
	if !r.counted() && up == 0 && down == 0 && !s.Address.IsValid() && !s.Offered && s.Proxy == "" {
		c.sum(subjectOfNothing(s.Record)).Refused++
		return
	}
	counts := r.moved(up, down)
	switch {
	case counts == Counts{}:
	case r.key != nil:
		c.add(*r.key, counts)
	default:
		c.sum(subjectOf(s.Record)).add(counts)
	}
}

// sum returns that of a subject. Callers hold mu.
func (c *counter) sum(of subject) *sum {
	is := c.ended[of]
	if is == nil {
		if len(c.ended) >= mostSubjects {
			c.settle()
		}
		is = &sum{key: c.keyOf(&of)}
		c.ended[of] = is
	}
	return is
}

// settle adds what was used by sessions that have ended. Callers hold mu.
func (c *counter) settle() {
	for _, is := range c.ended {
		c.add(is.key, is.Counts)
	}
	clear(c.ended)
}

// collect reads the counters of the open sessions, and tells whether there are too
// many keys.
func (c *counter) collect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for s, r := range c.open {
		up, down := s.Up(), s.Down()
		switch {
		case up == r.up && down == r.down && r.key == nil:
			continue
		case up == r.up && down == r.down:
			r.key = nil // it is worth more than the rest of what is kept of a session
		default:
			c.read(&r, s, up, down)
		}
		c.open[s] = r
	}
	return c.crowded
}

// read counts what an open session has moved since the last time. Callers hold mu.
func (c *counter) read(r *reading, s *server.Session, up, down int64) {
	if r.key == nil {
		now := s.Now()
		of := subjectOf(&now)
		key := c.keyOf(&of)
		r.key = &key
	}
	c.add(*r.key, r.moved(up, down))
}

// add counts, under another key where there are too many. Callers hold mu.
func (c *counter) add(k Key, more Counts) {
	sum, there := c.pending[k]
	if !there && len(c.pending) >= mostKeys {
		c.crowded = true
		k = Key{other, other, other, other, other}
		sum = c.pending[k]
	}
	sum.add(more)
	c.pending[k] = sum
}

// take returns what was counted, and forgets it; nil: nothing was.
func (c *counter) take() map[Key]Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return nil
	}
	taken := c.pending
	c.pending, c.crowded = make(map[Key]Counts, len(taken)), false
	return taken
}

func subjectOf(r *server.Record) subject {
	of := subjectOfNothing(r)
	of.user, of.host, of.proved, of.nothing = r.Identity.Name, r.Target.IP, limits.Proved(r.Identity), false
	if !r.Target.IP.IsValid() {
		of.name = r.Target.Name
	}
	return of
}

// subjectOfNothing leaves out what a client may choose that nobody has let in: it would
// fill the ledger with names of its own.
func subjectOfNothing(r *server.Record) subject {
	return subject{listener: r.Listener, rule: r.Rule, source: r.Client.Addr(), nothing: true}
}

// keyOf returns the key of a subject, as far as those like it are counted apart. Callers
// hold mu.
func (c *counter) keyOf(s *subject) Key {
	among := &c.apart
	if s.nothing {
		among = &c.nothing
	}
	return among.bound(s.key(), s.proved, time.Now())
}

func (s *subject) key() Key {
	k := Key{User: legible(s.user), Listener: legible(s.listener), Rule: legible(s.rule), Host: legible(s.name)}
	if s.source.IsValid() {
		k.Source = s.source.Unmap().WithZone("").String()
	}
	if s.host.IsValid() {
		k.Host = s.host.String()
	}
	return k
}

// longest is how many bytes of a name are kept. An index of PostgreSQL takes 2704 for
// all of a key.
const longest = 400

// legible makes a name of any bytes fit for a table: no two names become the same.
// Of one that is too long the end becomes a digest.
func legible(name string) string {
	plain := utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || !strconv.IsPrint(r) })
	if !plain {
		quoted := strconv.Quote(name)
		name = quoted[1 : len(quoted)-1]
	}
	if len(name) <= longest {
		return name
	}
	digest := sha256.Sum256([]byte(name))
	end := fmt.Sprintf("...%x", digest[:16])
	return strings.ToValidUTF8(name[:longest-len(end)], "") + end
}

// sortKeys puts keys into the one order that all nodes have.
func sortKeys(keys []Key) {
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(strings.Compare(a.User, b.User), strings.Compare(a.Source, b.Source), strings.Compare(a.Listener, b.Listener),
			strings.Compare(a.Rule, b.Rule), strings.Compare(a.Host, b.Host))
	})
}
