package upstream

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/client"
)

// Bounds of the checks.
const (
	checkTime  = 5 * time.Second // for one of them
	firstPause = time.Second     // from a fault to the next check, at the least
	mostPause  = time.Minute     // each pause is twice the one before, up to this
)

// member is one proxy of a pool, or a chain that is as good as one.
type member struct {
	url  string
	name string // without the login
	last client.Proxy
	log  *slog.Logger
	wake chan struct{} // asks for a check before its time

	mu    sync.Mutex
	down  bool
	login bool          // it is down because it refuses us: a check may not tell whether that is over
	pause time.Duration // the last one
	until time.Time     // its end
}

func newMember(text string, log *slog.Logger) (*member, error) {
	chain, err := client.Proxies(text)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range chain {
		names = append(names, p.String())
	}
	return &member{
		url: text, name: strings.Join(names, ","), last: chain[len(chain)-1],
		log: log, wake: make(chan struct{}, 1),
	}, nil
}

// dialer returns what speaks to the proxy, which is reached by f.
func (m *member) dialer(f forward) (*client.Dialer, error) {
	return client.New(m.url, client.WithForward(f))
}

// usable reports whether the proxy is as good as alive.
func (m *member) usable(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.down || m.login && !now.Before(m.until)
}

// failed notes that the proxy does not serve. login says that it refuses us.
func (m *member) failed(err error, login bool) {
	m.mu.Lock()
	was := m.down
	now := time.Now()
	if !was || !now.Before(m.until) {
		m.pause = min(max(2*m.pause, firstPause), mostPause)
		m.until = now.Add(m.pause)
	}
	m.down, m.login = true, login
	m.mu.Unlock()
	if !was {
		m.log.Warn("an upstream proxy is down", "proxy", m.name, "error", err.Error())
	}
	m.suspect()
}

// serves notes that the proxy does what it is there for. That a check has
// succeeded is no such thing where the fault was the login.
func (m *member) serves(onlyChecked bool) {
	m.mu.Lock()
	was := m.down && !(onlyChecked && m.login)
	if was {
		m.down, m.login, m.pause = false, false, 0
	}
	m.mu.Unlock()
	if was {
		m.log.Info("an upstream proxy is alive again", "proxy", m.name)
	}
}

// suspect has the proxy checked soon.
func (m *member) suspect() {
	select {
	case m.wake <- struct{}{}:
	default: // that is asked for already
	}
}

// watch checks the proxy until ctx ends.
func (m *member) watch(ctx context.Context, every time.Duration, f forward) {
	d, err := m.dialer(f)
	if err != nil {
		return // it was read before
	}
	for m.rest(ctx, every) {
		probe, cancel := context.WithTimeout(ctx, checkTime)
		err := d.Probe(probe)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.failed(err, refusesUs(err))
		default:
			m.serves(true)
		}
	}
}

// rest waits until the next check is due; false says that ctx has ended.
func (m *member) rest(ctx context.Context, every time.Duration) bool {
	wait, wake := m.nextCheck(every)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-wake:
			// Whoever uses the proxy may be the cause: not at any rate that he likes.
			sooner, _ := m.nextCheck(firstPause)
			timer.Reset(sooner)
			wake = nil
		}
	}
}

// nextCheck returns how long to wait, and what can shorten it.
func (m *member) nextCheck(every time.Duration) (time.Duration, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		if wait := time.Until(m.until); wait > 0 {
			return wait, nil
		}
		return every, nil // it refuses us: a check tells no more
	}
	return every, m.wake
}
