package limits

import (
	"net/netip"
	"slices"
	"time"
)

// Quotas are counted in memory. A *bank* (the ledger) keeps what was used, for a
// restart and for the other nodes that count towards the same quotas. It comes to the
// table, and nobody waits for it: [Table.Restore] once, at start; then, with each of
// its writes, [Table.Due] for what was used since the last time, and, when that is
// surely written, [Table.Settled] with what everybody has used.

// Account is one of those that a quota counts for.
type Account struct {
	Limit   string
	Key     string // of any bytes: a user's name, an address, ...; empty: all together, or who shows no name
	Claimed bool   // the name was only claimed: that counts apart
}

// Amount is what was used.
type Amount struct {
	Up, Down int64         // bytes
	Online   time.Duration // in which a session was open; counted where the quota is one of time
}

// plus returns the sum.
func (a Amount) plus(b Amount) Amount {
	return Amount{a.Up + b.Up, a.Down + b.Down, a.Online + b.Online}
}

// Measure says what of an amount a quota counts.
type Measure int32

// The measures.
const (
	Both   Measure = iota // bytes, up and down
	Up                    // bytes
	Down                  // bytes
	Online                // nanoseconds
)

// Of returns what of a the measure counts.
func (m Measure) Of(a Amount) int64 {
	switch m {
	case Up:
		return a.Up
	case Down:
		return a.Down
	case Online:
		return int64(a.Online)
	}
	return a.Up + a.Down
}

// Slot is what was used in a part of time ([Every]). It is known by its beginning.
type Slot struct {
	Start   int64 // seconds since 1970, UTC
	Used    Amount
	Granted int64 // what is allowed beyond the quota while the slot counts, in its measure
}

// Due is what this node has counted in a slot since it was last asked.
type Due struct {
	Account
	Slot
	Since  int64 // slots of the account that start then or later count now, in seconds since 1970
	Until  int64 // from then on the slot counts for nothing
	Most   int64 // the quota, without what was granted
	Counts Measure
}

// Balance is what the bank has for an account.
type Balance struct {
	Account
	Slots []Slot // what everybody has used, this node with what it said was due; those that count now
	// Lease is how much more this node may use, in the quota's measure, before it must
	// ask again. Below 0: all that is left of the quota.
	Lease int64
}

// Restore takes over what the bank has, when nobody is served yet. From now on it is
// to come for what is due. Of an account that the bank was never asked about, first is
// the part of its quota (0 to 1) that may be used until it has answered: 1 where
// nobody else counts towards the quotas.
func (t *Table) Restore(all []Balance, first float64) {
	t.mu.Lock()
	defer t.unlock()
	t.banked, t.first = true, first
	now := time.Now()
	for _, b := range all {
		l := t.named[b.Limit]
		if l == nil || l.kind() != quota || l.Per == Session {
			continue
		}
		k, ok := b.key(l.Per)
		if !ok {
			continue
		}
		c := claim{l, k}.kept()
		c.balance(b)
		c.look(now)
		l.sweep(now)
	}
	t.notices = nil // of what was before it has been told
}

// Due returns what was used since the last call. It is the bank's to see to it that
// it is written, once: the table counts it as written from now on.
func (t *Table) Due(now time.Time) []Due {
	t.mu.Lock()
	defer t.unlock()
	all := slices.Grow(t.orphans, t.lastDue)
	t.orphans = nil
	for _, l := range t.named {
		if l.kind() != quota {
			continue
		}
		for c := range l.open.all() {
			c.countTime(now)
			c.gather()
			c.look(now)
			all = c.due(all, now)
		}
	}
	t.lastDue = len(all)
	return all
}

// Settled takes what everybody has used of the accounts that were due, where there is
// anybody else; those that are not in it have used what this node has counted.
func (t *Table) Settled(all []Balance) {
	t.mu.Lock()
	defer t.unlock()
	t.away = isThere
	now := time.Now()
	for _, b := range all {
		l := t.named[b.Limit]
		if l == nil || l.kind() != quota {
			continue
		}
		if k, ok := b.key(l.Per); ok && l.counters[k] != nil {
			l.counters[k].balance(b)
			l.counters[k].look(now)
		}
	}
}

// balance takes over what the bank has. The table's mutex is held.
func (c *counter) balance(b Balance) {
	for _, s := range b.Slots {
		mine := c.slot(s.Start)
		mine.known, mine.granted = s.Used, s.Granted
	}
	c.sum()
	c.heard, c.lease = true, -1
	if b.Lease >= 0 {
		c.lease = c.counted - c.unsettled() + b.Lease
	}
}

// unsettled is what was counted that the bank does not know yet.
func (c *counter) unsettled() (n int64) {
	for _, s := range c.slots {
		if s.start >= c.since {
			n += Measure(c.counts.Load()).Of(s.fresh)
		}
	}
	return n
}

// askAgain is how often the bank is asked about an account that is used up, which
// somebody else may grant something.
const askAgain = 10 * time.Second

// due appends what is to be written. The table's mutex is held.
func (c *counter) due(all []Due, now time.Time) []Due {
	l := c.of.limit
	if l.Per == Session || l.gone {
		return all
	}
	again := c.is() != under && now.Sub(c.asked).Abs() >= askAgain || c.is() == waiting
	for i := range c.slots {
		s := &c.slots[i]
		isNow := s.start == c.start
		if s.fresh == (Amount{}) && s.given == 0 && !(isNow && again) {
			continue
		}
		all = append(all, c.dueOf(s))
		s.known, s.fresh = s.known.plus(s.fresh), Amount{}
		s.granted, s.given = s.granted+s.given, 0
		c.asked = now
	}
	c.forget()
	return all
}

func (c *counter) dueOf(s *slot) Due {
	l := c.of.limit
	until := time.Unix(0, c.until.Load())
	if s.start != c.start {
		_, until = l.Every.slot(time.Unix(s.start, 0))
	}
	return Due{
		Account: c.account(), Slot: Slot{s.start, s.fresh, s.given},
		Since: c.since, Until: l.Every.counts(until).Unix(), Most: l.Quota, Counts: l.Counts,
	}
}

// leaveDue keeps what is due of a counter that is forgotten. The table's mutex is held.
func (t *Table) leaveDue(c *counter, now time.Time) {
	if c.tally == nil || !t.banked || len(t.orphans) > mostIdle {
		return
	}
	c.countTime(now)
	c.gather()
	t.orphans = c.due(t.orphans, now)
}

// account returns by what the counter is known outside.
func (c *counter) account() Account {
	return Account{Limit: c.of.name, Key: c.of.key.text(), Claimed: c.of.key.claimed}
}

// text returns the key as a person writes it.
func (k key) text() string {
	switch {
	case !k.source.IsValid():
		return k.name
	case k.source.IsSingleIP():
		return k.source.Addr().String()
	}
	return k.source.String()
}

// key is the inverse of account.
func (a Account) key(per Per) (k key, ok bool) {
	if per != Source {
		return key{name: a.Key, claimed: a.Claimed}, true
	}
	if at, err := netip.ParseAddr(a.Key); err == nil {
		return key{source: source(at)}, true
	}
	p, err := netip.ParsePrefix(a.Key)
	return key{source: p}, err == nil
}
