package limits

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// guest is a session that counts towards a quota.
type guest struct {
	server.Stay
	up, down server.Pacer
	ended    []error
}

// in lets a user in.
func in(tb testing.TB, t *Table, name string, limits ...string) *guest {
	tb.Helper()
	g, err := tries(t, name, limits...)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func tries(t *Table, name string, limits ...string) (*guest, error) {
	g := &guest{}
	id := server.Identity{Name: name, Proof: server.Password}
	s, err := t.Of("rule", limits, nil).Budget(&someone, id).Enter(nil, func(err error) { g.ended = append(g.ended, err) })
	if err != nil {
		return nil, err
	}
	g.Stay = s
	g.up, g.down = s.Pace()
	return g, nil
}

// moves has a session move as much as it can, up to n bytes, in the chunks that it
// may, and returns how much that was.
func moves(p server.Pacer, n int) (moved int) {
	for moved < n {
		piece := min(p.Chunk(), n-moved, 64<<10)
		moved += piece
		if p.Took(piece) >= endless {
			break
		}
	}
	return moved
}

func isOver(g *guest) bool {
	return len(g.ended) > 0 && !slices.ContainsFunc(g.ended, func(err error) bool { return !errors.Is(err, server.Quota) })
}

const mib = 1 << 20

// TestQuotaEnds: a session may use all of a quota, and ends with the first byte more,
// and with it every other that counts together with it; nobody else notices.
func TestQuotaEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: mib, Every: Every{Unit: Day}})
		one, two, other := in(t, tab, "alice", "l"), in(t, tab, "alice", "l"), in(t, tab, "bob", "l")
		if n := moves(one.up, mib/2); n != mib/2 {
			t.Errorf("%d bytes passed, want half of the quota", n)
		}
		if n := moves(two.down, mib/2); n != mib/2 || one.ended != nil || two.ended != nil {
			t.Errorf("%d bytes passed, want the other half, and nobody ended: %v, %v", n, one.ended, two.ended)
		}
		if _, err := tries(tab, "alice", "l"); !errors.Is(err, server.Quota) {
			t.Errorf("a session with nothing left: %v, want %v", err, server.Quota)
		}
		if n := moves(one.down, 1000); n != 1 {
			t.Errorf("%d bytes passed beyond the quota, want 1", n)
		}
		if !isOver(one) || !isOver(two) || other.ended != nil {
			t.Errorf("ended are %v, %v, %v; want the first two, by the quota", one.ended, two.ended, other.ended)
		}
		if two.up.Passes(1) || other.up.Took(1) != 0 || !other.up.Passes(1) {
			t.Error("a datagram passes who is over, or does not who is not")
		}
	})
}

// TestQuotaMeasures: up, down, and both.
func TestQuotaMeasures(t *testing.T) {
	for _, test := range []struct {
		counts   Measure
		up, down bool // are counted
	}{{Both, true, true}, {Up, true, false}, {Down, false, true}} {
		synctest.Test(t, func(t *testing.T) {
			tab := table(Limit{Per: User, Quota: mib, Counts: test.counts, Every: Every{Unit: Day}})
			g := in(t, tab, "alice", "l")
			if got := moves(g.up, 2*mib) <= mib+1; got != test.up {
				t.Errorf("measure %d: held up is %t, want %t", test.counts, got, test.up)
			}
			g = in(t, tab, "bob", "l")
			if got := moves(g.down, 2*mib) <= mib+1; got != test.down {
				t.Errorf("measure %d: held down is %t, want %t", test.counts, got, test.down)
			}
		})
	}
}

// TestQuotaOfTime: it counts while any session is open, once however many are.
func TestQuotaOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: int64(time.Hour), Counts: Online, Every: Every{Unit: Month}})
		one, two := in(t, tab, "alice", "l"), in(t, tab, "alice", "l")
		time.Sleep(20 * time.Minute)
		one.Leave()
		time.Sleep(20 * time.Minute)
		two.Leave()
		time.Sleep(24 * time.Hour) // nobody is there
		three := in(t, tab, "alice", "l")
		time.Sleep(20*time.Minute - time.Second)
		if tab.tick(time.Now()); three.ended != nil {
			t.Errorf("ended before the time was used up: %v", three.ended)
		}
		time.Sleep(2 * time.Second)
		if tab.tick(time.Now()); !isOver(three) {
			t.Error("not ended when the time was used up")
		}
		three.Leave()
		if _, err := tries(tab, "alice", "l"); !errors.Is(err, server.Quota) {
			t.Errorf("no time is left: %v, want %v", err, server.Quota)
		}
	})
}

// TestQuotaSlows: who is over goes on at a lower rate, within one chunk, and as before
// in the next window.
func TestQuotaSlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: mib, Every: Every{Unit: Hour}, Then: 8000})
		g := in(t, tab, "alice", "l")
		if n := moves(g.up, mib); n != mib {
			t.Fatalf("%d bytes passed, want all of the quota", n)
		}
		if n := g.up.Chunk(); n != 1 {
			t.Errorf("%d bytes may pass at once at the end of a quota, want 1", n)
		}
		if g.up.Took(1); g.up.Chunk() > most/1000 {
			t.Errorf("beyond the quota %d bytes may pass at once at 1000 bytes a second", g.up.Chunk())
		}
		start, n := time.Now(), 0
		for time.Since(start) < 10*time.Second {
			piece := g.up.Chunk()
			time.Sleep(max(g.up.Took(piece), time.Microsecond))
			n += piece
		}
		if n < 9_700 || n > 10_300 || g.ended != nil {
			t.Errorf("%d bytes in ten seconds, want 10,000; ended: %v", n, g.ended)
		}
		if late, err := tries(tab, "alice", "l"); err != nil || late.up.Chunk() > most/1000 {
			t.Errorf("another session is not let in, or not slow: %v", err)
		}
		time.Sleep(time.Hour)
		tab.tick(time.Now())
		if n := moves(g.up, mib/2); n != mib/2 || g.up.Took(0) != 0 {
			t.Errorf("%d bytes pass in the next window, want as much as before", n)
		}
	})
}

// TestQuotaBeginsAnew: in each window there is as much, and no byte counts in two.
func TestQuotaBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: mib, Every: Every{Unit: Day}})
		tab.Restore(nil, 1)
		var due Amount
		for range 3 {
			g := in(t, tab, "alice", "l")
			if n := moves(g.up, 2*mib); n != mib+1 || !isOver(g) {
				t.Errorf("%d bytes passed, want the quota and one", n)
			}
			g.Leave()
			time.Sleep(time.Hour)
			if _, err := tries(tab, "alice", "l"); !errors.Is(err, server.Quota) {
				t.Errorf("in the same window: %v", err)
			}
			time.Sleep(23 * time.Hour)
			for _, d := range tab.Due(time.Now()) {
				due = due.plus(d.Used)
			}
		}
		if due.Up != 3*(mib+1) || due.Down != 0 {
			t.Errorf("due are %+v, want what was moved", due)
		}
	})
}

// TestQuotaRolls: what was used counts for as long as the period is.
func TestQuotaRolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: 61, Every: Every{Unit: Hour, Rolling: true}, Then: 1000})
		g := in(t, tab, "alice", "l")
		isSlowed := func() bool { // else there is no bound but the quota
			tab.tick(time.Now())
			return tab.named["l"].counters[key{name: "alice"}].is() == over
		}
		for range 120 { // a byte a minute, and the one that is about to be forgotten
			if g.up.Took(1); isSlowed() {
				t.Fatal("slowed within the quota")
			}
			time.Sleep(time.Minute)
		}
		if moves(g.up, 10); !isSlowed() {
			t.Fatal("not slowed beyond the quota")
		}
		if time.Sleep(8 * time.Minute); !isSlowed() {
			t.Error("as fast as before after eight minutes, in which eight bytes came free")
		}
		if time.Sleep(2 * time.Minute); isSlowed() {
			t.Error("still slowed when the quota has room again")
		}
	})
}

// TestClockSteppedBack: a window that has begun is not left for the one before it;
// a clock that was far ahead is followed.
func TestClockSteppedBack(t *testing.T) {
	synctest.Test(t, testClock)
}

func testClock(t *testing.T) {
	t.Helper()
	tab := table(Limit{Per: User, Quota: 1000, Every: Every{Unit: Day}})
	tab.Restore(nil, 1)
	c := claim{tab.named["l"], key{name: "alice"}}.find()
	start := func(text string) int64 {
		c.look(moment(t, text))
		return c.start
	}
	today, yesterday := moment(t, "2026-11-25T00:00:00Z").Unix(), moment(t, "2026-11-24T00:00:00Z").Unix()
	for _, step := range []struct {
		at   string
		want int64
	}{
		{"2026-11-24T23:59:59Z", yesterday},
		{"2026-11-25T00:00:01Z", today},
		{"2026-11-24T23:50:00Z", today}, // ten minutes back
		{"2026-11-24T00:00:00Z", today}, // a day back, the longest
		{"2026-11-25T12:00:00Z", today},
		{"2026-11-23T23:59:59Z", yesterday - daySeconds}, // longer: it was far ahead
	} {
		if got := start(step.at); got != step.want {
			t.Errorf("at %s the window begins at %s, want %s", step.at, time.Unix(got, 0).UTC(), time.Unix(step.want, 0).UTC())
		}
	}
}

// TestWarnings: each once a window, and again when more was granted or a new window
// has come.
func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: 1000, Every: Every{Unit: Hour}, Warn: []int{80, 95}, Then: 1000})
		g := in(t, tab, "alice", "l")
		told := func(n int, want ...int) {
			t.Helper()
			g.up.Took(n)
			var got []int
			for _, n := range tab.tick(time.Now()) {
				got = append(got, n.Percent)
			}
			if !slices.Equal(got, want) {
				t.Errorf("warned at %v percent, want %v", got, want)
			}
		}
		told(799)
		told(1, 80)
		told(100)
		told(50, 95)
		told(50)
		told(1, 100)
		told(1000)
		time.Sleep(time.Hour)
		told(2000, 80, 95, 100)
	})
}

// TestQuotaOfSession: it has no window, and nothing of it is left.
func TestQuotaOfSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Session, Quota: 1000})
		tab.Restore(nil, 1)
		for range 2 {
			g := in(t, tab, "alice", "l")
			if n := moves(g.down, 5000); n != 1001 || !isOver(g) {
				t.Errorf("%d bytes passed, want 1000 and one", n)
			}
			g.Leave()
		}
		if due := tab.Due(time.Now()); len(due) > 0 {
			t.Errorf("the bank is told of a session: %v", due)
		}
		if n := tab.Known(); n > 0 {
			t.Errorf("%d counters are left of sessions that are over", n)
		}
	})
}

// TestQuotaReload: other numbers hold at once, for open sessions too.
func TestQuotaReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limit{Per: User, Quota: 1000, Every: Every{Unit: Day}}
		tab := table(l)
		g := in(t, tab, "alice", "l")
		moves(g.up, 900)
		change := func(change func(*Limit)) {
			change(&l)
			tab.Set(map[string]Limit{"l": l})
		}
		change(func(l *Limit) { l.Quota = 2000 })
		if n := moves(g.up, 500); n != 500 || g.ended != nil {
			t.Errorf("%d bytes passed of a larger quota, want 500; ended: %v", n, g.ended)
		}
		change(func(l *Limit) { l.Every.Unit = Week }) // of which today is a part
		if n := g.up.Chunk(); n != 601 {
			t.Errorf("%d bytes may pass when days became weeks, want 601", n)
		}
		change(func(l *Limit) { l.Counts = Down })
		if n := g.up.Chunk(); n != 2001 {
			t.Errorf("%d bytes may pass when only down counts, want 2001", n)
		}
		change(func(l *Limit) { l.Counts, l.Quota = Up, 1000 })
		if !isOver(g) {
			t.Error("not ended by a smaller quota")
		}
		g = in(t, tab, "bob", "l")
		tab.Set(nil)
		if n := moves(g.up, 5000); n != 5000 || g.ended != nil {
			t.Errorf("%d bytes passed when the quota was gone, want all", n)
		}
	})
}

// TestQuotaRestored: what the bank knows goes on where it was.
func TestQuotaRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := map[string]Limit{"l": {Per: Source, Quota: 1000, Every: Every{Unit: Day}, Warn: []int{50}}}
		var before, after Table
		before.Set(l)
		before.Restore(nil, 1)
		g := in(t, &before, "alice", "l")
		moves(g.up, 700)
		due := before.Due(time.Now())
		if len(due) != 1 || due[0].Account != (Account{Limit: "l", Key: "192.0.2.1"}) || due[0].Used != (Amount{Up: 700}) {
			t.Fatalf("due are %+v", due)
		}
		moves(g.down, 100)
		more := before.Due(time.Now())
		if len(more) != 1 || more[0].Used != (Amount{Down: 100}) || len(before.Due(time.Now())) > 0 {
			t.Fatalf("due are %+v, and then something", more)
		}
		after.Set(l)
		slot := due[0].Slot
		slot.Used = slot.Used.plus(more[0].Used)
		after.Restore([]Balance{{Account: due[0].Account, Slots: []Slot{{Start: slot.Start - daySeconds, Used: Amount{Up: 5000}}, slot}}, {Account: Account{Limit: "gone"}}}, 1)
		g = in(t, &after, "alice", "l")
		if n := moves(g.up, 1000); n != 201 || !isOver(g) {
			t.Errorf("%d bytes passed after a restart, want 200 and one", n)
		}
		if told := after.tick(time.Now()); len(told) != 1 || told[0].Percent != 100 {
			t.Errorf("told are %+v, want only what came after the restart", told)
		}
	})
}

// borrower is a session that counts towards a quota of which its node leases parts.
type borrower struct {
	*testing.T
	table *Table
	*guest
}

// uses moves as much as it may without a pause.
func (b borrower) uses(want int) {
	b.Helper()
	n := 0
	for n <= 2000 {
		piece := b.up.Chunk()
		n += piece
		if b.up.Took(piece) > 0 {
			break
		}
	}
	if n != want {
		b.Errorf("%d bytes passed, want %d", n, want)
	}
}

// settles has the bank come, for which all have used so much.
func (b borrower) settles(all, lease int64) {
	b.Helper()
	due := b.table.Due(time.Now())
	if len(due) != 1 {
		b.Fatalf("due are %+v, want one", due)
	}
	s := due[0].Slot
	s.Used = Amount{Up: all}
	b.table.Settled([]Balance{{Account: due[0].Account, Slots: []Slot{s}, Lease: lease}})
}

// TestLease: a node may use what it was lent; then it pauses until the bank was there.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: 1000, Every: Every{Unit: Day}})
		tab.Restore(nil, 0.1)
		b := borrower{t, tab, in(t, tab, "alice", "l")}
		b.uses(101) // a tenth, before anybody was asked
		if b.ended != nil || b.up.Took(0) != askPause {
			t.Errorf("ended, or no pause, where the bank is waited for: %v", b.ended)
		}
		if _, err := tries(tab, "alice", "l"); err != nil {
			t.Errorf("nobody may come while the bank is waited for: %v", err)
		}
		b.settles(101+400, 200)
		b.uses(201)
		b.settles(702+298, 0) // others have used what was left
		if b.ended != nil {
			t.Errorf("ended by a quota of which all is used, and no more: %v", b.ended)
		}
		if b.uses(1); !isOver(b.guest) {
			t.Error("not ended beyond the quota")
		}
	})
}

// wanders moves something now and then, over some hours, and returns how much.
func (g *guest) wanders(random *rand.Rand) (moved Amount) {
	defer g.Leave()
	for range 200 {
		n := random.IntN(100_000)
		g.up.Took(n)
		g.down.Took(2 * n)
		moved = moved.plus(Amount{Up: int64(n), Down: 2 * int64(n)})
		time.Sleep(time.Duration(random.IntN(120)) * time.Second)
	}
	return moved
}

// TestQuotaExactly: however many sessions move at once, and windows pass meanwhile,
// what is due is what was moved.
func TestQuotaExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: 1 << 50, Every: Every{Unit: Hour}})
		tab.Restore(nil, 1)
		var mu sync.Mutex
		var moved, due Amount
		slots := make(map[int64]bool)
		collect := func() {
			for _, d := range tab.Due(time.Now()) {
				due = due.plus(d.Used)
				slots[d.Start] = true
			}
		}
		var wg sync.WaitGroup
		for i := range 50 {
			g := in(t, tab, []string{"alice", "bob", "carol"}[i%3], "l")
			wg.Go(func() {
				mine := g.wanders(rand.New(rand.NewPCG(1, uint64(i))))
				mu.Lock()
				defer mu.Unlock()
				moved = moved.plus(mine)
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for running := true; running; {
			select {
			case <-ticker.C:
				tab.tick(time.Now())
				collect()
			case <-done:
				running = false
			}
		}
		collect()
		if due != moved || len(slots) < 3 {
			t.Errorf("due were %+v in %d windows, moved %+v", due, len(slots), moved)
		}
	})
}

// TestAccounts: what a bank is told finds back to its key.
func TestAccounts(t *testing.T) {
	tab := &Table{}
	all := make(map[string]Limit)
	for _, per := range []Per{Source, User, Group, Rule, Listener, Whole} {
		all[string(per)] = Limit{Per: per, Quota: 1000, Every: Every{Unit: Day}}
	}
	tab.Set(all)
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range all {
			if !yield(name) {
				return
			}
		}
	})
	for _, at := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, id := range []server.Identity{alice, claimed, none, {Name: "\xff\\\"", Proof: server.Password}} {
			r := server.Request{Client: netip.AddrPortFrom(netip.MustParseAddr(at), 1), Listener: "door"}
			b, ok := tab.Of("rule", names, groups).Budget(&r, id).(*budget)
			if !ok {
				t.Fatal("no budget")
			}
			for _, c := range b.part.claims(nil, &b.who) {
				account := c.find().account()
				if k, ok := account.key(c.Per); !ok || k != c.key || account.Limit != c.name {
					t.Errorf("%+v by %s becomes %+v, and that %+v", c.key, c.Per, account, k)
				}
			}
		}
	}
}

// TestManyEndAtOnce: however many move at once, and however large their pieces may be,
// they do not move much more than the quota.
func TestManyEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const quota, sessions = 64 * mib, 20
		tab := table(Limit{Per: Whole, Quota: quota, Every: Every{Unit: Day}})
		tab.Restore(nil, 1)
		var all []server.Pacer
		for range sessions {
			g := in(t, tab, "alice", "l")
			defer g.Leave()
			all = append(all, g.up, g.down)
		}
		moved := 0
		for over := false; !over; {
			var pieces []int
			for _, p := range all { // all ask before any has moved
				pieces = append(pieces, min(p.Chunk(), most))
			}
			for i, p := range all {
				moved += pieces[i]
				over = p.Took(pieces[i]) > 0
			}
		}
		if moved <= quota || moved > quota+2*sessions*(lastPiece+1) {
			t.Errorf("%d bytes were moved of %d, which is %d too many", moved, quota, moved-quota)
		}
	})
}
