package limits

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// TestBurst: what was not used for a while may be used at once, up to the burst, and
// no more; then the rate holds.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, burst = 10_000, 1_000_000 // bytes
		tab := table(Limit{Per: User, Rate: 8 * rate, Burst: burst})
		s := enter(t, tab, "l")
		defer s.Leave()
		up, _ := s.Pace()
		takes := func(bytes int64, want time.Duration) {
			t.Helper()
			start, moved := time.Now(), int64(0)
			for moved < bytes {
				n := min(int64(up.Chunk()), bytes-moved, 64<<10)
				moved += n
				time.Sleep(up.Took(int(n)))
			}
			if took := time.Since(start); took < want*98/100-catchUp || took > want*102/100+catchUp {
				t.Errorf("%d bytes took %v, want %v", bytes, took, want)
			}
		}
		takes(burst, 0)
		takes(50_000, 5*time.Second)
		time.Sleep(10 * time.Second)
		takes(100_000, 0)
		takes(50_000, 5*time.Second)
		time.Sleep(time.Hour)
		takes(burst+50_000, 5*time.Second)
	})
}

// TestPieceFitsAnInt: where an int has 32 bits, too, the largest burst, the fastest rate and
// the largest quota that the settings take let a piece pass.
func TestPieceFitsAnInt(t *testing.T) {
	for name, l := range map[string]Limit{
		"burst": {Per: User, Rate: 1000, Burst: 1 << 40},
		"rate":  {Per: User, Up: 1_000_000_000_000, Down: 1_000_000_000_000},
		"quota": {Per: User, Quota: 1 << 60, Every: Every{Unit: Day}},
	} {
		s := enter(t, table(l), "l")
		up, down := s.Pace()
		for _, p := range []server.Pacer{up, down} {
			if n := p.Chunk(); n < math.MaxInt32 {
				t.Errorf("%s: a piece of %d bytes", name, n)
			}
		}
		s.Leave()
	}
}

// TestBurstIsShared: however many come at once, they have it once, and then equal parts
// of the rate.
func TestBurstIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Whole, Rate: 8_000_000, Burst: 10_000_000})
		crowd(t, tab, 10, 2*time.Second, func(moved []atomic.Int64) {
			time.Sleep(500 * time.Millisecond)
			before, start := read(moved)
			time.Sleep(time.Second)
			after, sum := read(moved)
			if math.Abs(sum/11.5e6-1) > 0.02 {
				t.Errorf("%.0f bytes in all, want the burst and one and a half seconds' worth", sum)
			}
			for i := range after {
				if n := after[i] - before[i]; math.Abs(n*10/(sum-start)-1) > 0.1 {
					t.Errorf("session %d has %.0f bytes of %.0f", i, n, sum-start)
				}
			}
		})
	})
}

// TestSetRate: another rate holds at once, and a limit without one has none.
func TestSetRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := &Table{}
		all := map[string]Limit{"l": {Per: User, Rate: 80_000_000}, "by": {Per: User, Up: 8000, Down: 8000}, "few": {Per: User, Sessions: 5}}
		tab.Set(all)
		s := enter(t, tab, "l", "by")
		defer s.Leave()
		up, down := s.Pace()
		set := func(ok bool, name string, rate, u, d int64) {
			t.Helper()
			if err := tab.SetRate(name, rate, u, d); (err == nil) != ok || !ok && !errors.Is(err, ErrNoLimit) {
				t.Errorf("%s to %d, %d, %d: %v", name, rate, u, d, err)
			}
		}
		pause := func(p server.Pacer, bytes int, want time.Duration) {
			t.Helper()
			time.Sleep(time.Hour)
			if got := p.Took(bytes); got < want*9/10-catchUp || got > want*11/10 {
				t.Errorf("after %d bytes the pause is %v, want %v", bytes, got, want)
			}
		}
		pause(up, 1000, time.Second)
		set(true, "by", 0, 80_000, 0)
		pause(up, 10_000, time.Second)
		pause(down, 1000, time.Second)
		set(true, "l", 800, 0, 0)
		pause(up, 100, time.Second)
		set(false, "l", 0, 800, 0)
		set(false, "by", 800, 0, 0)
		set(false, "by", 0, 0, 0)
		set(false, "few", 800, 0, 0)
		set(false, "none", 800, 0, 0)
		tab.Set(all)
		pause(up, 1000, time.Second)
	})
}

// TestGrants: more than a quota, in the window in which it was granted, for who is
// there and for who is not known yet.
func TestGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: 1000, Every: Every{Unit: Day}})
		tab.Restore(nil, 1)
		grants := func(n int64, want Standing) {
			t.Helper()
			want.Account, want.Per, want.Until = Account{Limit: "l", Key: "alice"}, User, time.Now().Add(24*time.Hour).Truncate(24*time.Hour).UTC()
			if got, err := tab.Grant(want.Account, n, time.Now()); err != nil || got != want {
				t.Errorf("granted: %+v, %v; want %+v", got, err, want)
			}
		}
		grants(500, Standing{Most: 1500, Granted: 500})
		g := in(t, tab, "alice", "l")
		if n := moves(g.up, 5000); n != 1501 || !isOver(g) {
			t.Errorf("%d bytes passed, want 1500 and one", n)
		}
		g.Leave()
		grants(100, Standing{Used: 1501, Most: 1600, Granted: 600})
		g = in(t, tab, "alice", "l")
		grants(1, Standing{Used: 1501, Most: 1601, Granted: 601, Sessions: 1})
		if n := moves(g.up, 5000); n != 101 {
			t.Errorf("%d bytes passed, want 100 and one", n)
		}
		g.Leave()
		if due := tab.Due(time.Now()); len(due) != 1 || due[0].Granted != 601 {
			t.Errorf("the bank is told of %+v, want that 601 were granted", due)
		}
		time.Sleep(24 * time.Hour)
		g = in(t, tab, "alice", "l")
		if n := moves(g.up, 5000); n != 1001 {
			t.Errorf("%d bytes passed in the next window, want 1000 and one", n)
		}
		all, tallies := tab.Standings(time.Now())
		if len(all) != 1 || all[0].Used != 1001 || all[0].Left() != 0 || !all[0].Until.Equal(time.Now().Add(24*time.Hour).Truncate(24*time.Hour)) {
			t.Errorf("she stands %+v", all)
		}
		if len(tallies) != 1 || tallies[0] != (Tally{Limit: "l", Warned: 3, Ended: 3}) {
			t.Errorf("counted are %+v", tallies)
		}
	})
}

// TestNoGrants: of what is no quota, and to who cannot be.
func TestNoGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := &Table{}
		tab.Set(map[string]Limit{
			"few": {Per: User, Sessions: 1}, "by source": {Per: Source, Quota: 1, Every: Every{Unit: Day}},
			"whole": {Per: Whole, Quota: 1, Every: Every{Unit: Day}}, "each": {Per: Session, Quota: 1},
		})
		for _, name := range []string{"none", "few", "by source", "whole", "each"} {
			if s, err := tab.Grant(Account{Limit: name, Key: "alice"}, 1, time.Now()); err == nil {
				t.Errorf("of %q was granted: %+v", name, s)
			}
		}
		if s, err := tab.Grant(Account{Limit: "by source", Key: "2001:db8::7"}, 5, time.Now()); err != nil || s.Key != "2001:db8::/64" {
			t.Errorf("an address was granted: %+v, %v", s, err)
		}
	})
}
