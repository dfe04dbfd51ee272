package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// slowNames is a Resolver that takes its time and counts what it is asked.
type slowNames struct {
	takes  time.Duration
	answer func(host string) ([]netip.Addr, error)

	mu    sync.Mutex
	asked map[string]int
	ended int // look-ups that were cut short
}

func (s *slowNames) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[host]++
	s.mu.Unlock()
	if network != "ip" {
		return nil, fmt.Errorf("the network is %q", network)
	}
	select {
	case <-time.After(s.takes):
		return s.answer(host)
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended++
		return nil, ctx.Err()
	}
}

func (s *slowNames) times(host string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[host]
}

func (s *slowNames) cut() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

var cached = netip.MustParseAddr("192.0.2.7")

func one(string) ([]netip.Addr, error) { return []netip.Addr{cached}, nil }

// find looks a name up and requires its address.
func find(t *testing.T, c *Cache, host string) {
	t.Helper()
	if addrs, err := c.LookupNetIP(t.Context(), "ip", host); err != nil || !slices.Equal(addrs, []netip.Addr{cached}) {
		t.Errorf("%s: %v, %v", host, addrs, err)
	}
}

func TestCacheRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &slowNames{answer: one}
		c := NewCache(names, 30*time.Second)
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 1}, {0, 1}, {29999 * time.Millisecond, 1}, {time.Millisecond, 2}, {29 * time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(step.wait) // of the fake clock
			find(t, c, "a.example")
			if got := names.times("a.example"); got != step.want {
				t.Errorf("after %v more: asked %d times, want %d", step.wait, got, step.want)
			}
		}
		find(t, c, "b.example")
		if names.times("b.example") != 1 {
			t.Error("another name was not asked for")
		}
	})
}

func TestCacheOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &slowNames{answer: one}
		c := NewCache(names, 0)
		find(t, c, "a.example")
		find(t, c, "a.example")
		if got := names.times("a.example"); got != 2 {
			t.Errorf("asked %d times, want 2", got)
		}
	})
}

// TestCacheOfFailures: only that there is no such name is remembered, and not
// for long.
func TestCacheOfFailures(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		life time.Duration // of the cache
		kept time.Duration
	}{
		{"no such name", &net.DNSError{IsNotFound: true}, time.Minute, 2 * time.Second},
		{"no such name, wrapped", fmt.Errorf("x: %w", &net.DNSError{IsNotFound: true}), time.Minute, 2 * time.Second},
		{"no address", nil, time.Minute, 2 * time.Second},
		{"a short life", &net.DNSError{IsNotFound: true}, time.Second, time.Second},
		{"no life", &net.DNSError{IsNotFound: true}, 0, 0},
		{"time out", &net.DNSError{IsTimeout: true}, time.Minute, 0},
		{"time out of one half", &net.DNSError{IsTimeout: true, IsNotFound: true}, time.Minute, 0},
		{"a server that failed", &net.DNSError{IsTemporary: true}, time.Minute, 0},
		{"something else", errors.New("something else"), time.Minute, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				names := &slowNames{answer: func(string) ([]netip.Addr, error) { return nil, test.err }}
				c := NewCache(names, test.life)
				ask := func(want int) {
					t.Helper()
					if addrs, err := c.LookupNetIP(t.Context(), "ip", "a.example"); len(addrs) > 0 || !errors.Is(err, test.err) {
						t.Errorf("%v, %v", addrs, err)
					}
					if got := names.times("a.example"); got != want {
						t.Errorf("asked %d times, want %d", got, want)
					}
				}
				ask(1)
				if test.kept > 0 {
					time.Sleep(test.kept - time.Nanosecond)
					ask(1)
					time.Sleep(time.Nanosecond)
				}
				ask(2)
			})
		})
	}
}

// TestCacheAnswersAreCopies: who changes an answer changes nobody else's.
func TestCacheAnswersAreCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(&slowNames{takes: time.Second, answer: one}, time.Minute)
		for range 3 {
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					addrs, err := c.LookupNetIP(t.Context(), "ip", "a.example")
					if err != nil || !slices.Equal(addrs, []netip.Addr{cached}) {
						t.Errorf("%v, %v", addrs, err)
						return
					}
					addrs[0] = netip.IPv6Loopback()
				})
			}
			all.Wait()
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &slowNames{answer: one}
		c := NewCache(names, time.Hour)
		host := func(i int) string { return fmt.Sprintf("h%d.example", i) }
		for i := range cacheNames + 1 {
			find(t, c, host(i))
		}
		if len(c.answers) != cacheNames || c.oldest.Len() != cacheNames {
			t.Errorf("%d and %d answers, want %d", len(c.answers), c.oldest.Len(), cacheNames)
		}
		for _, test := range []struct{ i, want int }{{1, 1}, {cacheNames, 1}, {0, 2}} {
			find(t, c, host(test.i))
			if got := names.times(host(test.i)); got != test.want {
				t.Errorf("%s: asked %d times, want %d", host(test.i), got, test.want)
			}
		}
	})
}

// TestCacheOfLongAnswers: they are handed on, and not remembered.
func TestCacheOfLongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := make([]netip.Addr, cacheAddrs+1)
		names := &slowNames{answer: func(string) ([]netip.Addr, error) { return many, nil }}
		c := NewCache(names, time.Hour)
		for range 2 {
			if addrs, err := c.LookupNetIP(t.Context(), "ip", "many.example"); err != nil || len(addrs) != len(many) {
				t.Errorf("%d addresses, %v", len(addrs), err)
			}
		}
		if names.times("many.example") != 2 {
			t.Error("an answer of any size was remembered")
		}
	})
}

// TestCacheShares: many who want the same name at once ask once; each waits only
// as long as it wants to.
func TestCacheShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &slowNames{takes: 5 * time.Second, answer: one}
		c := NewCache(names, time.Minute)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { find(t, c, "a.example") })
		}
		all.Go(func() { // the first may be one that leaves
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, server.ClientGone)
			defer cancel()
			start := time.Now()
			if _, err := c.LookupNetIP(ctx, "ip", "a.example"); !errors.Is(err, server.ClientGone) || time.Since(start) != time.Second {
				t.Errorf("%v after %v, want the cause after 1s", err, time.Since(start))
			}
		})
		all.Wait()
		if got := names.times("a.example"); got != 1 || names.cut() > 0 {
			t.Errorf("asked %d times, %d cut short; want once", got, names.cut())
		}
	})
}

// TestCacheGivesUp: a look-up for which nobody waits any more ends, and who comes
// then starts another.
func TestCacheGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &slowNames{takes: 5 * time.Second, answer: one}
		c := NewCache(names, time.Minute)
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Second)
				defer cancel()
				if _, err := c.LookupNetIP(ctx, "ip", "a.example"); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if names.cut() != 0 {
			t.Error("it ended while somebody waited")
		}
		all.Wait()
		find(t, c, "a.example")
		if names.cut() != 1 || names.times("a.example") != 2 || len(c.lookups) != 0 {
			t.Errorf("%d cut short, asked %d times, %d go on", names.cut(), names.times("a.example"), len(c.lookups))
		}
	})
}

// TestCacheLimit: a look-up that nobody gives up ends by itself.
func TestCacheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(&slowNames{takes: time.Hour, answer: one}, time.Minute)
		start := time.Now()
		_, err := c.LookupNetIP(t.Context(), "ip", "a.example")
		if server.ReasonOf(err) != server.TimedOut || time.Since(start) != lookupLimit {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestPromptDecisionsRecall: a decision that must not wait goes by what the cache
// remembers, answers as one that may wait, and asks nobody.
func TestPromptDecisionsRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &slowNames{takes: time.Second, answer: func(host string) ([]netip.Addr, error) {
			if host == "host.example" {
				return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("2001:db8::7")}, nil
			}
			return nil, &net.DNSError{IsNotFound: true, Name: host}
		}}
		p := newPolicy(NewCache(names, 30*time.Second), Rule{Name: "some", To: to("192.0.2.0/24")})
		for _, host := range []string{"host.example", "none.example"} {
			r := newRequest(t, host+":80", "")
			if _, known, _ := p.DecideNow(r); known || names.times(host) > 0 {
				t.Errorf("%s: known %v, asked %d times before anybody has waited for it", host, known, names.times(host))
			}
			grant, err := p.Decide(t.Context(), r)
			now, known, errNow := p.DecideNow(r)
			if !known || fmt.Sprint(now, errNow) != fmt.Sprint(grant, err) || names.times(host) != 1 {
				t.Errorf("%s: known %v, %v, %v, asked %d times; want %v, %v", host, known, now, errNow, names.times(host), grant, err)
			}
			time.Sleep(time.Minute)
			if _, known, _ := p.DecideNow(r); known {
				t.Errorf("%s is remembered for too long", host)
			}
		}
	})
}
