package server

import (
	"sync"
	"time"
)

// alarmStep is how long an alarm trusts the monotonic clock, by which timers
// run: the one on the wall may be set meanwhile, and goes on while the machine
// sleeps.
const alarmStep = 10 * time.Second

// alarm calls a function once the clock on the wall shows a time.
type alarm struct {
	at   time.Time // without a monotonic reading
	ring func()

	mu    sync.Mutex
	over  bool // stopped, or it has rung
	timer *time.Timer
}

// newAlarm sets an alarm. ring is called in a goroutine of its own, at once
// where the time has passed.
func newAlarm(at time.Time, ring func()) *alarm {
	a := &alarm{at: at.Round(0), ring: ring}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(a.wait(time.Now()), a.look)
	return a
}

// wait returns how long to wait before looking at the clock; 0: it is time.
func (a *alarm) wait(now time.Time) time.Duration {
	return min(max(a.at.Sub(now.Round(0)), 0), alarmStep)
}

func (a *alarm) look() {
	a.mu.Lock()
	if a.over {
		a.mu.Unlock()
		return
	}
	if wait := a.wait(time.Now()); wait > 0 {
		a.timer.Reset(wait)
		a.mu.Unlock()
		return
	}
	a.over = true
	a.mu.Unlock()
	a.ring()
}

// stop takes the alarm back; it may be ringing already. That a is nil is allowed.
func (a *alarm) stop() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
}

// isOver reports whether the time has come; the zero time never does.
func isOver(at, now time.Time) bool {
	return !at.IsZero() && !now.Round(0).Before(at.Round(0))
}
