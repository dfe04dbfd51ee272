package upstream

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the checks.
const (
	checkTime  = 5 * time.Second // for one of them
	firstPause = time.Second     // from a fault to the next check, at the least
	mostPause  = time.Minute     // each pause is twice the one before, up to this
)

// health is what is known of one that sessions may be sent to: an upstream proxy,
// or a target of a port mapping.
type health struct {
	name  string
	what  string // the log's words for it
	key   string // the log's key for its name
	log   *slog.Logger
	wake  chan struct{} // asks for a check before its time
	open  atomic.Int64  // sessions that it has, where that is counted
	alone bool          // nobody checks it: whether a fault is over only its use can tell

	mu    sync.Mutex
	down  bool
	login bool          // it is down because it refuses us: a check may not tell whether that is over
	pause time.Duration // the last one
	until time.Time     // its end
}

func newHealth(what, key, name string, log *slog.Logger) *health {
	return &health{name: name, what: what, key: key, log: log, wake: make(chan struct{}, 1)}
}

// usable reports whether it is as good as alive.
func (h *health) usable(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.down || (h.login || h.alone) && !now.Before(h.until)
}

// failed notes that it does not serve. login says that it refuses us.
func (h *health) failed(err error, login bool) {
	h.mu.Lock()
	was := h.down
	now := time.Now()
	if !was || !now.Before(h.until) {
		h.pause = min(max(2*h.pause, firstPause), mostPause)
		h.until = now.Add(h.pause)
	}
	h.down, h.login = true, login
	h.mu.Unlock()
	if !was {
		h.log.Warn(h.what+" is down", h.key, h.name, "error", err.Error())
	}
	h.suspect()
}

// serves notes that it does what it is there for. That a check has
// succeeded is no such thing where the fault was the login.
func (h *health) serves(onlyChecked bool) {
	h.mu.Lock()
	was := h.down && !(onlyChecked && h.login)
	if was {
		h.down, h.login, h.pause = false, false, 0
	}
	h.mu.Unlock()
	if was {
		h.log.Info(h.what+" is alive again", h.key, h.name)
	}
}

// suspect has it checked soon.
func (h *health) suspect() {
	select {
	case h.wake <- struct{}{}:
	default: // that is asked for already
	}
}

// watch checks it until ctx ends.
func (h *health) watch(ctx context.Context, every time.Duration, ask func(context.Context) error) {
	for h.rest(ctx, every) {
		probe, cancel := context.WithTimeout(ctx, checkTime)
		err := ask(probe)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.failed(err, refusesUs(err))
		default:
			h.serves(true)
		}
	}
}

// rest waits until the next check is due; false says that ctx has ended.
func (h *health) rest(ctx context.Context, every time.Duration) bool {
	wait, wake := h.nextCheck(every)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-wake:
			// Whoever uses it may be the cause: not at any rate that he likes.
			sooner, _ := h.nextCheck(firstPause)
			timer.Reset(sooner)
			wake = nil
		}
	}
}

// nextCheck returns how long to wait, and what can shorten it.
func (h *health) nextCheck(every time.Duration) (time.Duration, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		if wait := time.Until(h.until); wait > 0 {
			return wait, nil
		}
		return every, nil // it refuses us: a check tells no more
	}
	return every, h.wake
}
