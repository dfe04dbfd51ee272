package engine

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// linger is for how long a loop goes on that nobody uses: the next connection is often there by then.
const linger = 100 * time.Millisecond

// loops are those of the process.
var loops struct {
	mu  sync.Mutex
	all []*Loop
}

// Attach returns the loop that has the fewest users of those that are not for who moves alone, and makes the caller one more until
// it calls Detach. A loop is started where all that there are have users, and there may be one more. It may be called from any
// goroutine.
func Attach() (*Loop, error) {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	best, shared := leastUsed()
	if best == nil || best.users > 0 && shared < mostShared() {
		l, err := start()
		if err != nil && best == nil {
			return nil, err
		}
		if err == nil {
			loops.all = append(loops.all, l)
			best = l
		}
	}
	best.users++
	return best, nil
}

// mostLoops is how many loops there may be: one fewer than processors. With none to spare the runtime would take that of a loop
// away whenever it waits, which costs a session a tenth of its time.
func mostLoops() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// mostShared is how many of them there may be that are not for who moves alone. Callers hold loops.mu.
func mostShared() int { return max(1, mostLoops()-spareLoops) }

// leastUsed returns the loop that has the fewest users of those that are not for who moves alone (nil: there is none), and how many
// those are. Callers hold loops.mu.
func leastUsed() (best *Loop, shared int) {
	for _, l := range loops.all {
		if l.spare {
			continue
		}
		shared++
		if best == nil || l.users < best.users {
			best = l
		}
	}
	return best, shared
}

// slack is by how many users a loop may be ahead of another before it shares with that: to wake it costs more than a small session.
const slack = 8

// Share makes the caller one more user of l, of which it is one already, or of another loop that has many fewer, until Detach. It
// returns that loop.
func (l *Loop) Share() *Loop {
	loops.mu.Lock()
	least, shared := leastUsed()
	ahead := l.users - least.users
	if shared < mostShared() {
		ahead = l.users // than one that is yet to be started
	}
	if ahead <= slack {
		l.users++
	}
	loops.mu.Unlock()
	if ahead <= slack {
		return l
	}
	if best, err := Attach(); err == nil {
		return best
	}
	loops.mu.Lock()
	defer loops.mu.Unlock()
	l.users++
	return l
}

// Detach is the end of Attach or Share. The caller's descriptors and timers must be gone by then. It may be called from any
// goroutine.
func (l *Loop) Detach() {
	loops.mu.Lock()
	l.users--
	last := l.users == 0
	loops.mu.Unlock()
	if last {
		r := rest{l}
		l.Post(r, func() { l.Set(&l.resting, r, l.now+linger) })
	}
}

// rest ends a loop that has had no user for a while.
type rest struct{ *Loop }

// Ready is never called: a rest has no descriptor.
func (rest) Ready(Handle, Events) {}

// Expired ends the loop, unless somebody uses it again.
func (r rest) Expired() {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	if r.users > 0 {
		return
	}
	loops.all = slices.DeleteFunc(loops.all, func(l *Loop) bool { return l == r.Loop })
	r.ended = true
}

// Broken is never called, as Expired does not panic.
func (rest) Broken(fault any, _ []byte) { panic(fault) }

// Descriptors returns how many descriptors the loops may hold besides those of their users.
func Descriptors() int { return 2 * mostLoops() }
