// Package limits keeps what sessions share: how many may be open at once, how many
// may begin in a time, and how fast they may go, counted by source, user, group,
// rule, listener or server.
//
// A Table holds the limits by name, for as long as the server runs; settings change
// its numbers. A rule's part of it ([Table.Of]) resolves a request to a
// [server.Budget].
package limits

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/server"
)

// Per is by what a limit counts. The words are those of the settings.
type Per string

// What limits count by.
const (
	Session  Per = "session"
	Source   Per = "source" // an IPv4 address, or an IPv6 /64
	User     Per = "user"   // all who show no name are one
	Group    Per = "group"  // each that the user is in; all who are in none are one
	Rule     Per = "rule"
	Listener Per = "listener"
	Whole    Per = "server"
)

// Limit is how fast, how many or how much. Just one of Rate, Up or Down, Sessions,
// New and Quota is over zero.
type Limit struct {
	Per      Per
	Rate     int64         // bits a second, both directions together
	Up, Down int64         // bits a second, each direction by itself; 0: not limited
	Burst    int64         // of a rate: bytes that may be moved at once when nothing moved before; 0: those of 50 ms
	Shared   bool          // the rate is that of all nodes of the bank together
	Sessions int           // at the same time
	New      int           // new sessions in In, of which so many may come at once
	In       time.Duration // over 0 where New is
	Quota    int64         // what may be used in a window, as Counts measures it
	Names    int           // with User: so many names of a source that are its own choice count apart, all others as one; 0: 1000

	// With Quota.
	Counts Measure
	Every  Every // of a session's quota zero
	Then   int64 // bits a second of those that are over, both directions together; 0: they are ended, and refused
	Warn   []int // percents under 100, each more than the one before: having used so much is told once a window
}

// kind tells limits apart that have nothing in common but the name.
type kind int

const (
	together kind = iota // both directions
	apart                // each direction
	atOnce
	newly
	quota
)

func (l Limit) kind() kind {
	switch {
	case l.Sessions > 0:
		return atOnce
	case l.New > 0:
		return newly
	case l.Quota > 0:
		return quota
	case l.Rate > 0:
		return together
	}
	return apart
}

// mostIdle bounds how many keys a limit remembers that no open session has: those
// of new sessions lately, and of a rate that was overdrawn. Of more the one that is
// idle for the longest time is forgotten.
const mostIdle = 100_000

// Table holds limits by their names. The zero value has none. It is safe for
// concurrent use.
type Table struct {
	set atomic.Int64 // how often they were set

	mu     sync.Mutex // guards the limits and their counters, too; taken before a shaper's
	named  map[string]*limit
	banked bool     // a bank comes for what is due
	first  float64  // the part of a quota that may be used before the bank was asked
	away   whenAway // the bank cannot be asked

	measured time.Time // when the bank last came for how fast shared rates are
	orphans  []Due     // of counters that are forgotten
	lastDue  int       // how many were due the last time
	notices  []Notice  // that nobody was told of yet

	dismissed []dismissal // that are to follow when the mutex is free
}

// Set puts limits in the place of those before. One that has the name, the kind and
// the key of one before is that one: what it has counted goes on, and its new numbers
// hold for the sessions that are open, too. One that is gone holds nobody any more.
func (t *Table) Set(all map[string]Limit) {
	t.mu.Lock()
	defer t.unlock()
	before := t.named
	t.named = make(map[string]*limit, len(all))
	for name, now := range all {
		l := before[name]
		if l == nil || l.Per != now.Per || l.kind() != now.kind() {
			l = &limit{table: t, name: name, counters: make(map[key]*counter)}
		} else {
			delete(before, name)
		}
		l.change(now)
		t.named[name] = l
	}
	for _, gone := range before {
		for c := range gone.open.all() {
			t.leaveDue(c, time.Now())
		}
		gone.change(Limit{Per: gone.Per})
		gone.gone = true
	}
	t.set.Add(1)
}

// dismissal is the end of a session by a quota.
type dismissal struct {
	end    func(reason error)
	reason error
}

// dismiss has a session ended, by whoever is the next to call unlock. The table's mutex
// is held: a session ends under a lock of its own, under which another goroutine may
// just be about to enter or to leave.
func (t *Table) dismiss(a *account, reason error) {
	t.dismissed = append(t.dismissed, dismissal{a.end, reason})
}

// unlock frees the table's mutex, and then ends those that are dismissed. It is for all
// but who enters and who leaves: whom they dismiss ends with the next tick.
func (t *Table) unlock() {
	all := t.dismissed
	t.dismissed = nil
	t.mu.Unlock()
	for _, d := range all {
		d.end(d.reason)
	}
}

// limit is one of a table, whose mutex guards it.
type limit struct {
	Limit
	table    *Table
	name     string
	told     int64 // so many warnings were given
	refused  int64 // sessions, by a quota
	ended    int64 // likewise
	gone     bool  // it limits nothing any more
	counters map[key]*counter
	strange  strangers      // those of counters that are
	open     chain[counter] // those that shapes can be changed of: of sessions that are open, or idle
	idle     chain[counter] // those that nobody is open of, who is so for the longest time first
}

// change sets other numbers.
func (l *limit) change(now Limit) {
	l.Limit = now
	for c := range l.open.all() {
		c.set(now)
	}
}

// key is one of those that a limit counts for.
type key struct {
	source  netip.Prefix
	name    string
	claimed bool // anybody can claim a name: that counts apart from who has shown it
}

// source is what counts as one source: an IPv4 address, an IPv6 /64.
func source(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// Part is what the sessions of one rule count towards.
type Part struct {
	table  *Table
	rule   string
	names  []string
	groups map[string][]string // of each user

	now atomic.Pointer[present] // what it has in the table, as of when somebody came last
}

// present are the limits that a part has in its table.
type present struct {
	limits []*limit
	set    int64 // how often the table was set by then
}

// Of returns the part of a rule: its limits by their names, which the table may not
// have yet. The groups are by their users.
func (t *Table) Of(rule string, names []string, groups map[string][]string) *Part {
	return &Part{table: t, rule: rule, names: names, groups: groups}
}

// Budget returns what a request counts towards that the rule has granted to the
// identity; nil where none of its limits is in the table.
func (p *Part) Budget(r *server.Request, id server.Identity) server.Budget {
	now := p.now.Load()
	if now == nil || now.set != p.table.set.Load() {
		p.table.mu.Lock()
		now = p.look()
		p.table.mu.Unlock()
	}
	if len(now.limits) == 0 {
		return nil
	}
	return &budget{part: p, who: who{
		source: r.Client.Addr(), listener: r.Listener, name: id.Name, claimed: id.Proof == server.Claimed, from: p.stranger(r, id),
	}}
}

// look finds the limits, where the table was set since the last time. Its mutex is held.
func (p *Part) look() *present {
	now := p.now.Load()
	if now != nil && now.set == p.table.set.Load() {
		return now
	}
	now = &present{set: p.table.set.Load()}
	for _, name := range p.names {
		if l := p.table.named[name]; l != nil {
			now.limits = append(now.limits, l)
		}
	}
	p.now.Store(now)
	return now
}

// who is by what the limits of a part count.
type who struct {
	source         netip.Addr
	listener, name string
	claimed        bool
	from           digest // of whom the name is, if it is a stranger's
}

// claim is a limit and for whom it counts.
type claim struct {
	*limit
	key key
}

// claims appends those that somebody has. The table's mutex is held.
func (p *Part) claims(all []claim, of *who) []claim {
	for _, l := range p.look().limits {
		k := key{}
		switch l.Per {
		case Source:
			k.source = source(of.source)
		case User:
			k = l.named(of)
		case Rule:
			k.name = p.rule
		case Listener:
			k.name = of.listener
		case Group:
			groups := p.groups[of.name]
			for _, group := range groups {
				all = append(all, claim{l, key{name: group, claimed: of.claimed}})
			}
			if len(groups) > 0 {
				continue
			}
		}
		all = append(all, claim{l, k})
	}
	return all
}
