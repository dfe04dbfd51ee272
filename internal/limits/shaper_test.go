package limits

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// most is what a relay moves at once at the most.
const most = 512 << 10

var someone = server.Request{Client: netip.MustParseAddrPort("192.0.2.1:1000"), Listener: "door"}

// table returns one with a single limit, called "l".
func table(l Limit) *Table {
	t := &Table{}
	t.Set(map[string]Limit{"l": l})
	return t
}

// enter lets a session in that counts towards limits.
func enter(tb testing.TB, t *Table, names ...string) server.Stay {
	tb.Helper()
	s, err := t.Of("rule", names, nil).Budget(&someone, server.Identity{Name: "alice"}).Enter(nil, func(error) {})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// greedy moves as much as the pacer allows until a time, into a counter.
func greedy(p server.Pacer, until time.Time, moved *atomic.Int64) {
	time.Sleep(p.Took(0))
	for time.Now().Before(until) {
		n := min(p.Chunk(), most)
		moved.Add(int64(n))
		time.Sleep(max(p.Took(n), time.Microsecond))
	}
}

// crowd are sessions that all take what they get.
func crowd(t *testing.T, tab *Table, sessions int, length time.Duration, look func(moved []atomic.Int64)) {
	t.Helper()
	moved := make([]atomic.Int64, sessions)
	until := time.Now().Add(length)
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			s := enter(t, tab, "l")
			defer s.Leave()
			up, _ := s.Pace()
			greedy(up, until, &moved[i])
		})
	}
	look(moved)
	wg.Wait()
}

func read(moved []atomic.Int64) (each []float64, sum float64) {
	for i := range moved {
		each = append(each, float64(moved[i].Load()))
		sum += each[i]
	}
	return each, sum
}

// TestRates: over five seconds a rate holds to 2 %, and each session's part to 10 %.
func TestRates(t *testing.T) {
	for _, rate := range []int64{64_000, 1_000_000, 20_000_000, 1_000_000_000} {
		for _, sessions := range []int{1, 10, 100} {
			t.Run(fmt.Sprintf("%d bit/s for %d", rate, sessions), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testRate(t, rate, sessions) })
			})
		}
	}
}

func testRate(t *testing.T, rate int64, sessions int) {
	t.Helper()
	crowd(t, table(Limit{Per: Whole, Rate: rate}), sessions, 10*time.Second, func(moved []atomic.Int64) {
		time.Sleep(4*time.Second + time.Millisecond) // who comes while others have yet to count their first piece takes more than his part, and all wait for that
		before, start := read(moved)
		time.Sleep(5 * time.Second)
		after, end := read(moved)
		want := float64(rate) / 8 * 5
		if got := end - start; math.Abs(got/want-1) > 0.02 {
			t.Errorf("%.0f bytes in five seconds, want %.0f", got, want)
		}
		for i := range after {
			if got := after[i] - before[i]; math.Abs(got*float64(sessions)/want-1) > 0.1 {
				t.Errorf("session %d of %d got %.0f bytes of %.0f", i, sessions, got, want)
			}
		}
	})
}

// TestLittleAddsUp: a rate holds for sessions that come one after the other, each of which
// moves too little to be slowed, whether the limit has somebody all the time or not.
func TestLittleAddsUp(t *testing.T) {
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept %v", kept), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const piece, sessions, rate = 300, 7000, 1_000_000 // bytes
				tab := table(Limit{Per: Source, Rate: rate * 8})
				if kept {
					defer enter(t, tab, "l").Leave()
				}
				start := time.Now()
				for range sessions {
					s := enter(t, tab, "l")
					up, down := s.Pace()
					for _, p := range []server.Pacer{up, down} {
						time.Sleep(p.Took(0))
						time.Sleep(p.Took(piece))
					}
					s.Leave()
				}
				moved, took := float64(2*piece*sessions), time.Since(start)
				if want := seconds(moved/rate) - catchUp; (took - want).Abs() > 5*time.Millisecond {
					t.Errorf("%.0f bytes took %v, want %v", moved, took, want)
				}
			})
		})
	}
}

// TestLittleBeforeASlowerRate: what was too little to be counted at one rate is nothing that
// a slower one has to pay for.
func TestLittleBeforeASlowerRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Source, Rate: 8_000_000_000})
		s := enter(t, tab, "l")
		defer s.Leave()
		up, down := s.Pace()
		up.Took(900_000) // of the million in a millisecond
		time.Sleep(time.Hour)
		tab.Set(map[string]Limit{"l": {Per: Source, Rate: 8000}})
		if wait := down.Took(1); wait > 0 {
			t.Errorf("it has to wait for %v", wait)
		}
	})
}

// TestThousandSessions: however many share a rate, it holds.
func TestThousandSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crowd(t, table(Limit{Per: Rule, Rate: 80_000_000}), 1000, 4*time.Second, func(moved []atomic.Int64) {
			time.Sleep(time.Second)
			_, start := read(moved)
			time.Sleep(2 * time.Second)
			if _, end := read(moved); math.Abs((end-start)/20e6-1) > 0.02 {
				t.Errorf("%.0f bytes in two seconds, want 20 MB", end-start)
			}
		})
	})
}

// TestKeystrokes: who moves little is not held up by who takes all the rest.
func TestKeystrokes(t *testing.T) {
	for _, rate := range []int64{64_000, 10_000_000} {
		for _, downloads := range []int{1, 10} {
			synctest.Test(t, func(t *testing.T) {
				tab := table(Limit{Per: User, Up: rate})
				ssh := enter(t, tab, "l")
				defer ssh.Leave()
				keys, _ := ssh.Pace()
				crowd(t, tab, downloads, 4*time.Second, func([]atomic.Int64) {
					time.Sleep(time.Second)
					for range 20 {
						if wait := keys.Took(1); wait > 100*time.Millisecond {
							t.Errorf("%d bit/s, %d downloads: the next key has to wait for %v", rate, downloads, wait)
						}
						time.Sleep(130 * time.Millisecond)
					}
				})
			})
		}
	}
}

// TestUnusedPartsFallToOthers: a session that is slow by itself costs what it uses.
func TestUnusedPartsFallToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Whole, Up: 8_000_000})
		slow := enter(t, tab, "l")
		defer slow.Leave()
		up, down := slow.Pace()
		if down != nil && down.Took(1<<30) != 0 {
			t.Error("the direction that is not limited is")
		}
		crowd(t, tab, 1, 4*time.Second, func(moved []atomic.Int64) {
			time.Sleep(time.Second)
			_, start := read(moved)
			for range 200 {
				up.Took(500) // 50 kB a second of 1 MB
				time.Sleep(10 * time.Millisecond)
			}
			if _, end := read(moved); math.Abs((end-start)/1.9e6-1) > 0.02 {
				t.Errorf("the other one got %.0f bytes in two seconds, want 1.9 MB", end-start)
			}
		})
	})
}

// TestChangedWhileOpen: another number under the same name holds at once for who is
// there, and a limit that is gone holds nobody.
func TestChangedWhileOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Source, Rate: 80_000})
		crowd(t, tab, 4, 9*time.Second, func(moved []atomic.Int64) {
			for _, rate := range []int64{80_000, 8_000_000, 800_000} {
				tab.Set(map[string]Limit{"l": {Per: Source, Rate: rate}})
				time.Sleep(time.Second)
				_, start := read(moved)
				time.Sleep(2 * time.Second)
				want := float64(rate) / 4
				if _, end := read(moved); math.Abs((end-start)/want-1) > 0.03 {
					t.Errorf("%.0f bytes in two seconds, want %.0f", end-start, want)
				}
			}
		})
		s := enter(t, tab, "l")
		defer s.Leave()
		up, _ := s.Pace()
		up.Took(1 << 20)
		if up.Took(0) == 0 {
			t.Error("a limit that is overdrawn lets more through")
		}
		tab.Set(nil)
		if wait := up.Took(1 << 30); wait != 0 || up.Chunk() < most {
			t.Errorf("the limit is gone, and there is a pause of %v", wait)
		}
	})
}

// TestSeveralAtOnce: the slowest of the limits counts, and each is used by what was
// moved.
func TestSeveralAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := &Table{}
		tab.Set(map[string]Limit{"each": {Per: Session, Rate: 800_000}, "all": {Per: Whole, Rate: 2_000_000}})
		for _, c := range []struct {
			sessions int
			want     float64 // bytes a second
		}{{1, 100e3}, {2, 200e3}, {5, 250e3}} {
			var moved atomic.Int64
			var wg sync.WaitGroup
			until := time.Now().Add(4 * time.Second)
			for range c.sessions {
				wg.Go(func() {
					s := enter(t, tab, "each", "all")
					defer s.Leave()
					up, _ := s.Pace()
					greedy(up, until, &moved)
				})
			}
			time.Sleep(time.Second)
			start := moved.Load()
			time.Sleep(2 * time.Second)
			if got := float64(moved.Load()-start) / 2; math.Abs(got/c.want-1) > 0.02 {
				t.Errorf("%d sessions move %.0f bytes a second, want %.0f", c.sessions, got, c.want)
			}
			wg.Wait()
		}
	})
}

// TestOneAfterTheOther: who comes again and again has no more than who stays.
func TestOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Source, Rate: 800_000})
		moved, start := 0, time.Now()
		for time.Since(start) < 5*time.Second {
			s := enter(t, tab, "l")
			_, down := s.Pace()
			time.Sleep(down.Took(0))
			moved += down.Chunk()
			down.Took(down.Chunk())
			s.Leave()
			time.Sleep(time.Millisecond)
		}
		if moved > 520_000 {
			t.Errorf("%d bytes in five seconds, want 500,000", moved)
		}
	})
}

// TestDatagrams: those that are too fast are dropped, and two that flood share.
func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Whole, Rate: 8_000_000})
		var pacers []server.Pacer
		for range 2 {
			s := enter(t, tab, "l")
			defer s.Leave()
			up, _ := s.Pace()
			pacers = append(pacers, up)
		}
		var passed [2]float64
		for i := range 40_000 { // 4 seconds at 10,000 a second each
			for j, p := range pacers {
				if p.Passes(500) && i >= 10_000 {
					passed[j] += 500
				}
			}
			time.Sleep(100 * time.Microsecond)
		}
		for _, got := range passed {
			if math.Abs(got/1.5e6-1) > 0.1 {
				t.Errorf("%.0f bytes in three seconds, want half of 3 MB", got)
			}
		}
		if sum := passed[0] + passed[1]; math.Abs(sum/3e6-1) > 0.03 {
			t.Errorf("%.0f bytes in three seconds, want 3 MB", sum)
		}
	})
}
