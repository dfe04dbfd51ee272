package limits

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Standing is how a key stands with a quota.
type Standing struct {
	Account
	Per      Per
	Counts   Measure
	Used     int64 // of the window, or of the period up to now where it is a rolling one, in the quota's measure
	Most     int64 // what may be used: the quota, and what was granted
	Granted  int64
	Then     int64     // bits a second beyond it; 0: nothing
	Until    time.Time // when the quota begins anew; zero: it is a rolling one
	Sessions int       // that are open
}

// Left is how much may still be used.
func (s Standing) Left() int64 { return max(s.Most-s.Used, 0) }

// Tally is what followed from a quota since the server began.
type Tally struct {
	Limit   string
	Warned  int64 // times that a key had used some percent at which to warn, or all
	Refused int64 // sessions
	Ended   int64 // sessions
}

// Standings returns how all stand of whom anything is known, by their limits, and what
// followed from the quotas. Quotas of sessions are left out.
func (t *Table) Standings(now time.Time) (all []Standing, tallies []Tally) {
	t.mu.Lock()
	defer t.unlock()
	for _, l := range t.named {
		if l.kind() != quota || l.Per == Session {
			continue
		}
		for c := range l.open.all() {
			c.countTime(now)
			c.look(now)
			if c.used.Load() > 0 || c.most() != l.Quota || c.sessions > 0 {
				all = append(all, c.standing())
			}
		}
	}
	slices.SortFunc(all, func(a, b Standing) int {
		return cmp.Or(strings.Compare(a.Limit, b.Limit), cmp.Compare(b.Used, a.Used), strings.Compare(a.Key, b.Key))
	})
	return all, t.tallies()
}

// Tallies returns what followed from the quotas, by their limits.
func (t *Table) Tallies() []Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tallies()
}

// tallies is that. The table's mutex is held.
func (t *Table) tallies() (all []Tally) {
	for _, l := range t.named {
		if l.kind() == quota {
			all = append(all, Tally{l.name, l.told, l.refused, l.ended})
		}
	}
	slices.SortFunc(all, func(a, b Tally) int { return strings.Compare(a.Limit, b.Limit) })
	return all
}

// standing says how the key stands. The table's mutex is held.
func (c *counter) standing() Standing {
	l := c.of.limit
	s := Standing{
		Account: c.account(), Per: l.Per, Counts: l.Counts, Used: c.used.Load(), Most: c.most(),
		Granted: c.most() - l.Quota, Then: l.Then, Sessions: c.sessions,
	}
	if !l.Every.Rolling {
		s.Until = time.Unix(0, c.until.Load()).In(l.Every.zone())
	}
	return s
}

// Standing says by a balance how a key stands with the limit, without a table.
func (l Limit) Standing(b Balance, now time.Time) Standing {
	from, until := l.Every.slot(now)
	since := l.Every.since(from).Unix()
	s := Standing{Account: b.Account, Per: l.Per, Counts: l.Counts, Most: l.Quota, Then: l.Then}
	for _, one := range b.Slots {
		if one.Start >= since {
			s.Used += l.Counts.Of(one.Used)
			s.Granted += one.Granted
		}
	}
	s.Most += s.Granted
	if !l.Every.Rolling {
		s.Until = until.In(l.Every.zone())
	}
	return s
}

// ErrNoLimit says that there is no such limit, or one of another kind.
var ErrNoLimit = errors.New("no such limit")

// Grant allows a key n more than its quota, in its measure, until the quota begins
// anew; of a rolling one, for as long as its period is. Who was ended or slowed by the
// quota may come, or go on as before, at once.
func (t *Table) Grant(a Account, n int64, now time.Time) (Standing, error) {
	t.mu.Lock()
	defer t.unlock()
	l := t.named[a.Limit]
	if l == nil {
		return Standing{}, fmt.Errorf("%w: %q", ErrNoLimit, a.Limit)
	}
	due, err := l.Grant(a, n, now)
	if err != nil {
		return Standing{}, err
	}
	k, _ := due.key(l.Per) // it is one: Grant says so
	c := claim{l, k}.kept()
	c.look(now)
	s := c.slot(c.start)
	if t.banked {
		s.given += n
	} else {
		s.granted += n
	}
	c.look(now)
	return c.standing(), nil
}

// kept returns the counter of a claim that is kept though nobody may be there.
func (cl claim) kept() *counter {
	c := cl.find()
	if c.known.of == nil {
		cl.keep(c, 0)
		cl.idle.add(&c.idle, c)
	}
	return c
}

// Grant returns what a bank is to write down when n more are granted to an account of
// the limit.
func (l Limit) Grant(a Account, n int64, now time.Time) (Due, error) {
	if l.kind() != quota || l.Per == Session {
		return Due{}, fmt.Errorf("%w: %q is no quota, or one of each session", ErrNoLimit, a.Limit)
	}
	k, ok := a.key(l.Per)
	if !ok {
		return Due{}, fmt.Errorf("%q is no address, by which the limit %q counts", a.Key, a.Limit)
	}
	if l.Per == Whole && a.Key != "" {
		return Due{}, fmt.Errorf("the limit %q counts all together, and not %q", a.Limit, a.Key)
	}
	if l.Per == Source { // as it is written everywhere
		a.Key = k.text()
	}
	from, until := l.Every.slot(now)
	return Due{
		Account: a, Slot: Slot{Start: from.Unix(), Granted: n},
		Since: l.Every.since(from).Unix(), Until: l.Every.counts(until).Unix(), Most: l.Quota, Counts: l.Counts,
	}, nil
}

// SetRate changes the rates of a limit, in bits a second, until the settings are read
// anew; it holds for open sessions, too. Just those are over 0 that the limit has: rate,
// or up or down.
func (t *Table) SetRate(name string, rate, up, down int64) error {
	t.mu.Lock()
	defer t.unlock()
	l := t.named[name]
	switch {
	case l == nil:
		return fmt.Errorf("%w: %q", ErrNoLimit, name)
	case l.kind() == together && rate > 0 && up == 0 && down == 0:
	case l.kind() == apart && rate == 0 && (up > 0 || down > 0):
		up, down = cmp.Or(up, l.Limit.Up), cmp.Or(down, l.Limit.Down)
	default:
		return fmt.Errorf("%w: %q has no such rate", ErrNoLimit, name)
	}
	now := l.Limit
	now.Rate, now.Up, now.Down = rate, up, down
	l.change(now)
	return nil
}
