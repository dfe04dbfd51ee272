// Package live knows what a server does at this moment: which sessions are open and
// how fast each is, what was refused and why, how much moves in all, and what each
// rule has decided. It is told by the server as a recorder is, and counts in memory
// only: what is to be kept, the ledger keeps.
package live

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport/sallyport/server"
)

// every is from one sample to the next.
const every = time.Second

// kept is how many samples, and how many of the last refusals, are remembered.
const (
	keptSamples  = 300
	keptRefusals = 200
)

// View is a [server.Recorder]. Make one with [New]. It is safe for concurrent use;
// nothing but Run blocks.
type View struct {
	mu       sync.Mutex
	open     map[*server.Session]*reading
	slowed   map[*server.Session]int64 // those that were, to so many bits a second
	totals   Totals                    // but for what the doors know
	rules    map[string]*Rule
	doors    map[Door]*door
	users    map[string]*UserBytes
	accounts map[account]*account
	// mostUsers is how many have a count of their own; 0: none are counted.
	mostUsers int

	samples  ring[Sample]
	refusals ring[Refusal]
	refused  uint64    // how many there were: the number of the last
	last     time.Time // of the last sample
	before   Sample    // as the sums were then
	next     chan struct{}
}

// reading is what was last read off an open session.
type reading struct {
	up, down int64 // bytes
	*account
	speed *speed // nil: nothing moves
}

// account is what sessions are counted by. Those that are counted by the same have one.
type account struct {
	door  *door
	user  *UserBytes // nil: not known yet, or not counted
	ruled bool       // their rules have their hits
}

// account returns the one of its kind. Callers hold mu. There are at most two for each
// door and user that is counted.
func (v *View) account(kind account) *account {
	switch {
	case kind.user == nil && kind.ruled:
		return &kind.door.ruled
	case kind.user == nil:
		return &kind.door.plain
	}
	a := v.accounts[kind]
	if a == nil {
		a = &account{kind.door, kind.user, kind.ruled}
		v.accounts[kind] = a
	}
	return a
}

// speed is in bytes a second.
type speed struct{ up, down int64 }

// now returns it, or zeros for nil.
func (s *speed) now() speed {
	if s == nil {
		return speed{}
	}
	return *s
}

// moved notes that so many bytes moved within the last sample, which took so many
// seconds. Half of the speed is that before: a number that a person can read.
func (r *reading) moved(up, down int64, took float64) {
	was := r.speed.now()
	is := speed{(was.up + int64(float64(up)/took)) / 2, (was.down + int64(float64(down)/took)) / 2}
	switch {
	case is == speed{}:
		r.speed = nil
	case r.speed == nil:
		r.speed = &speed{is.up, is.down} // not &is, which would be made for those that rest, too
	default:
		*r.speed = is
	}
}

// Totals are what was counted since the process began.
type Totals struct {
	Opened   uint64 // sessions whose request was known
	Open     int    // of them, how many are
	Up, Down int64  // bytes, of the sessions that are open as of the last sample
	// Refused counts those that came to nothing (refused, failed, without a request),
	// and Ended those that were relayed, by the word for their end.
	Refused, Ended map[server.Reason]uint64
}

// Rule is what a rule has decided.
type Rule struct {
	Hits uint64 // sessions
	Last time.Time
}

// Sample is what happened in one second.
type Sample struct {
	At       time.Time // its end
	Up, Down int64     // bytes a second
	Open     int       // sessions at its end
	Refused  uint64    // sessions that came to nothing
}

// Refusal is a session that came to nothing.
type Refusal struct {
	Seq    uint64 // counts from 1
	At     time.Time
	Record server.Record
	Reason server.Reason
	Err    error // which Reason is of; nil where that is Closed
}

// Session is an open one, as it was at the last sample.
type Session struct {
	*server.Session
	SpeedUp, SpeedDown int64 // bytes a second
	Slowed             int64 // bits a second that it was slowed to; 0: it was not
}

// New returns a view that knows of nothing yet.
func New() *View {
	return &View{
		open:     make(map[*server.Session]*reading),
		slowed:   make(map[*server.Session]int64),
		rules:    make(map[string]*Rule),
		doors:    make(map[Door]*door),
		users:    make(map[string]*UserBytes),
		accounts: make(map[account]*account),
		next:     make(chan struct{}),
		last:     time.Now(),

		samples: newRing[Sample](keptSamples), refusals: newRing[Refusal](keptRefusals),
	}
}

// Opened implements [server.Recorder].
func (v *View) Opened(s *server.Session) {
	now := s.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	r := &reading{account: &v.door(&now).plain}
	v.open[s] = r
	v.totals.Opened++
	r.door.Opened++
	r.door.Open++
}

// Closed implements [server.Recorder].
func (v *View) Closed(s *server.Session, err error) {
	up, down, reason := s.Up(), s.Down(), server.ReasonOf(err)
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.open[s]
	delete(v.open, s)
	delete(v.slowed, s)
	if r != nil {
		r.door.Open--
	} else { // it ended before its request was known
		r = &reading{account: &v.door(s.Record).plain}
	}
	v.decided(r, s.Record)
	v.count(r, up, down)
	if up > 0 || down > 0 || s.Address.IsValid() || s.Offered {
		r.door.Ended[reason]++
		return
	}
	r.door.Refused[reason]++
	v.remember(Refusal{Record: *s.Record, Reason: reason, Err: err})
}

// count adds what has moved since the last time. Callers hold mu.
func (v *View) count(r *reading, up, down int64) {
	v.totals.Up += up - r.up
	v.totals.Down += down - r.down
	r.door.Up += up - r.up
	r.door.Down += down - r.down
	if r.user != nil {
		r.user.Up += up - r.up
		r.user.Down += down - r.down
	}
	r.up, r.down = up, down
}

// decided counts the decision on a session, once there is one. Callers hold mu. Rules
// are named by the settings: there are not many.
func (v *View) decided(r *reading, now *server.Record) {
	if r.ruled || now.Rule == "" {
		return
	}
	is := account{door: r.door, ruled: true}
	rule := v.rules[now.Rule]
	if rule == nil {
		rule = &Rule{}
		v.rules[now.Rule] = rule
	}
	rule.Hits++
	rule.Last = time.Now()
	if v.mostUsers > 0 {
		is.user = v.userBytes(now)
	}
	r.account = v.account(is)
}

// remember keeps a refusal in the place of the oldest. Callers hold mu.
func (v *View) remember(r Refusal) {
	v.refused++
	r.At, r.Seq = time.Now(), v.refused
	v.refusals.push(r)
}

// Run takes a sample each second, until ctx ends.
func (v *View) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			v.sample(time.Now())
		}
	}
}

// sample reads the counters of all open sessions.
func (v *View) sample(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	took := max(now.Sub(v.last), time.Millisecond).Seconds()
	v.last = now
	for s, r := range v.open {
		up, down := s.Up(), s.Down()
		r.moved(up-r.up, down-r.down, took)
		if !r.ruled {
			now := s.Now()
			v.decided(r, &now)
		}
		v.count(r, up, down)
	}
	v.samples.push(Sample{
		At: now, Open: len(v.open), Refused: v.refused - v.before.Refused,
		Up:   int64(float64(v.totals.Up-v.before.Up) / took),
		Down: int64(float64(v.totals.Down-v.before.Down) / took),
	})
	v.before = Sample{Up: v.totals.Up, Down: v.totals.Down, Refused: v.refused}
	close(v.next)
	v.next = make(chan struct{})
}

// Next returns a channel that is closed with the next sample.
func (v *View) Next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.next
}

// Totals returns what was counted. The maps are the caller's.
func (v *View) Totals() Totals {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.totals
	t.Open = len(v.open)
	t.Refused, t.Ended = make(map[server.Reason]uint64), make(map[server.Reason]uint64)
	for _, p := range v.doors {
		add(t.Refused, p.Refused)
		add(t.Ended, p.Ended)
	}
	return t
}

func add(sums, more map[server.Reason]uint64) {
	for reason, n := range more {
		sums[reason] += n
	}
}

// Rules returns what each rule has decided that has decided anything, by its name.
func (v *View) Rules() map[string]Rule {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make(map[string]Rule, len(v.rules))
	for name, r := range v.rules {
		all[name] = *r
	}
	return all
}

// Samples returns those of the last minutes, the oldest first.
func (v *View) Samples() []Sample {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.samples.last(v.samples.len())
}

// Refusals returns the last ones that were after the one numbered after, the oldest first.
func (v *View) Refusals(after uint64) []Refusal {
	v.mu.Lock()
	defer v.mu.Unlock()
	later := v.refused - min(after, v.refused)
	return v.refusals.last(int(min(later, uint64(v.refusals.len()))))
}

// Sessions returns the open ones, in no order.
func (v *View) Sessions() []Session {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]Session, 0, len(v.open))
	for s, r := range v.open {
		speed := r.speed.now()
		all = append(all, Session{s, speed.up, speed.down, v.slowed[s]})
	}
	return all
}

// Find returns the open session with the ID; nil: there is none.
func (v *View) Find(id uint64) *server.Session {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.open {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// Slow slows the open session with the ID down to so many bits a second by the pacers
// (0 and nil: not any more), or reports that there is none.
func (v *View) Slow(id uint64, bits int64, up, down server.Pacer) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.open {
		if s.ID != id {
			continue
		}
		s.Slow(up, down)
		if v.slowed[s] = bits; bits == 0 {
			delete(v.slowed, s)
		}
		return true
	}
	return false
}
