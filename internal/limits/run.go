package limits

import (
	"context"
	"log/slog"
	"time"
)

// tick is how often the table looks at the clock by itself: for quotas of time, and
// for those that begin anew while nothing moves.
const tick = time.Second

// mostNotices is how many are told in a tick.
const mostNotices = 100

// Notice is that a key has used some percent of its quota; 100: all of it.
type Notice struct {
	Account
	Percent int
	Then    int64     // bits a second that are left to who has used all; 0: none
	Until   time.Time // when the quota begins anew; zero: never, or it is a rolling one
}

// Run looks after the quotas until ctx ends: it ends who has used up his time, lets
// go who may go on as ever, and logs warnings. It blocks; one call at a time.
func (t *Table) Run(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, n := range t.tick(now) {
				n.log(log)
			}
		}
	}
}

// tick looks at every counter of a quota, and returns what is to be told.
func (t *Table) tick(now time.Time) []Notice {
	t.mu.Lock()
	defer t.unlock()
	for _, l := range t.named {
		if l.kind() != quota {
			continue
		}
		for c := range l.open.all() {
			c.countTime(now)
			c.look(now)
		}
		l.sweep(now)
	}
	all := t.notices
	t.notices = nil
	return all
}

// tell notes that a key has used some percent of its quota. The table's mutex is held.
func (t *Table) tell(c *counter, percent int) {
	l := c.of.limit
	l.told++
	if len(t.notices) >= mostNotices {
		return // the count tells
	}
	n := Notice{Account: c.account(), Percent: percent, Then: l.Then}
	if !l.Every.never() && !l.Every.Rolling {
		n.Until = time.Unix(0, c.until.Load())
	}
	t.notices = append(t.notices, n)
}

func (n Notice) log(log *slog.Logger) {
	facts := []any{"limit", n.Limit, "key", n.Key}
	if n.Claimed {
		facts = append(facts, "claimed", true)
	}
	if !n.Until.IsZero() {
		facts = append(facts, "until", n.Until)
	}
	switch {
	case n.Percent < 100:
		log.Warn("a quota is used up soon", append(facts, "percent", n.Percent)...)
	case n.Then > 0:
		log.Warn("a quota is used up: what goes on is slowed", append(facts, "rate", n.Then)...)
	default:
		log.Warn("a quota is used up: sessions are ended, and refused", facts...)
	}
}
