package limits

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// visit is a session that wants in.
type visit struct {
	from, door string
	id         server.Identity
}

var (
	alice   = server.Identity{Name: "alice", Proof: server.Password}
	bob     = server.Identity{Name: "bob", Proof: server.Password}
	eve     = server.Identity{Name: "eve", Proof: server.Password} // in no group
	claimed = server.Identity{Name: "alice", Proof: server.Claimed}
	none    = server.Identity{}
)

var groups = map[string][]string{"alice": {"staff", "night"}, "bob": {"staff"}}

func (v visit) enter(p *Part, before server.Stay) (server.Stay, error) {
	return p.Budget(&server.Request{Client: netip.AddrPortFrom(netip.MustParseAddr(v.from), 1), Listener: v.door}, v.id).Enter(before, func(error) {})
}

// keys are for each way to count two sessions that count together, and one apart
// from the first.
var keys = []struct {
	per         Per
	one, same   visit
	other       visit
	sameForRule bool // other is another rule's
	nobodyElse  bool // there is no other
}{
	{Source, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.1", "b", bob}, visit{"192.0.2.2", "a", alice}, false, false},
	{Source, visit{"2001:db8::1", "a", alice}, visit{"2001:db8::ffff:1", "a", alice}, visit{"2001:db8:0:1::1", "a", alice}, false, false},
	{User, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.2", "b", alice}, visit{"192.0.2.1", "a", bob}, false, false},
	{User, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.2", "b", alice}, visit{"192.0.2.1", "a", claimed}, false, false},
	{User, visit{"192.0.2.1", "a", none}, visit{"192.0.2.2", "b", none}, visit{"192.0.2.1", "a", bob}, false, false},
	{Group, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.2", "b", bob}, visit{"192.0.2.1", "a", eve}, false, false},
	{Group, visit{"192.0.2.1", "a", eve}, visit{"192.0.2.2", "b", none}, visit{"192.0.2.1", "a", bob}, false, false},
	{Rule, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.2", "b", bob}, visit{"192.0.2.1", "a", alice}, true, false},
	{Listener, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.2", "a", bob}, visit{"192.0.2.1", "b", alice}, false, false},
	{Whole, visit{"192.0.2.1", "a", alice}, visit{"192.0.2.2", "b", bob}, visit{}, false, true},
}

// kinds are limits of which one session uses everything, and whether another one
// counted with it notices.
var kinds = []struct {
	name    string
	limit   Limit
	notices func(server.Stay, error) bool
}{
	{"at once", Limit{Sessions: 1}, func(_ server.Stay, err error) bool { return errors.Is(err, server.TooMany) }},
	{"new", Limit{New: 1, In: time.Minute}, func(_ server.Stay, err error) bool { return errors.Is(err, server.TooFast) }},
	{"rate", Limit{Rate: 8000}, isSlow},
	{"by direction", Limit{Up: 8000, Down: 80}, isSlow},
}

func isSlow(s server.Stay, err error) bool {
	if err != nil {
		return false
	}
	up, _ := s.Pace()
	return up.Took(0) > 0
}

// TestKeys: every kind of limit by everything that it can count by.
func TestKeys(t *testing.T) {
	for _, k := range keys {
		for _, kind := range kinds {
			t.Run(string(k.per)+" "+kind.name, func(t *testing.T) {
				l := kind.limit
				l.Per = k.per
				synctest.Test(t, func(t *testing.T) {
					tab := table(l)
					here, there := tab.Of("rule", []string{"l"}, groups), tab.Of("another", []string{"l"}, groups)
					if !k.sameForRule {
						there = here
					}
					notices := func(v visit, p *Part) bool { return kind.notices(leaveAfter(t, v, p)) }
					first := uses(t, k.one, here)
					if !notices(k.same, here) || !k.nobodyElse && notices(k.other, there) {
						t.Error("who counts with the first one is not limited, or who counts apart is")
					}
					first.Leave()
					time.Sleep(2 * time.Minute)
					if notices(k.same, here) {
						t.Error("who comes after the first one has left is limited")
					}
					time.Sleep(2 * time.Minute)
					wantEmpty(t, tab)
				})
			})
		}
	}
}

// uses enters, and uses up what there is.
func uses(t *testing.T, v visit, p *Part) server.Stay {
	t.Helper()
	s, err := v.enter(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if up, _ := s.Pace(); up != nil {
		up.Took(4000)
	}
	return s
}

// leaveAfter enters, and leaves when the test ends.
func leaveAfter(t *testing.T, v visit, p *Part) (server.Stay, error) {
	t.Helper()
	s, err := v.enter(p, nil)
	if err == nil {
		defer time.AfterFunc(time.Second, s.Leave)
	}
	return s, err
}

// wantEmpty requires that a table knows of nobody any more.
func wantEmpty(t *testing.T, tab *Table) {
	t.Helper()
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for name, l := range tab.named {
		l.sweep(time.Now())
		if len(l.counters) > 0 || l.open.length > 0 || l.idle.length > 0 {
			t.Errorf("%s: %d keys, %d counters, %d idle ones are left", name, len(l.counters), l.open.length, l.idle.length)
		}
	}
}

// TestNewInTime: so many at once, then one after the other.
func TestNewInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: Source, New: 20, In: time.Second})
		p := tab.Of("rule", []string{"l"}, nil)
		come := func() (in int) {
			for range 100 {
				if s, err := (visit{"192.0.2.1", "a", none}).enter(p, nil); err == nil {
					in++
					s.Leave()
				}
			}
			return in
		}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 20}, {0, 0}, {50 * time.Millisecond, 1}, {500 * time.Millisecond, 10}, {time.Hour, 20}} {
			time.Sleep(step.wait)
			if got := come(); got != step.want {
				t.Errorf("after %v there came in %d, want %d", step.wait, got, step.want)
			}
		}
	})
}

// TestRefusedCountNowhere: who is refused by one limit has not used the others.
func TestRefusedCountNowhere(t *testing.T) {
	tab := &Table{}
	tab.Set(map[string]Limit{
		"new": {Per: Whole, New: 2, In: time.Hour}, "few": {Per: Whole, Sessions: 3}, "one": {Per: Source, Sessions: 1},
	})
	p := tab.Of("rule", []string{"new", "few", "one"}, nil)
	first, err := (visit{"192.0.2.1", "a", none}).enter(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := (visit{"192.0.2.1", "a", none}).enter(p, nil); !errors.Is(err, server.TooMany) {
			t.Fatalf("a second one of the same source: %v", err)
		}
	}
	second, err := (visit{"192.0.2.2", "a", none}).enter(p, nil)
	if err != nil {
		t.Fatalf("those who were refused have counted: %v", err)
	}
	if _, err := (visit{"192.0.2.3", "a", none}).enter(p, nil); !errors.Is(err, server.TooFast) {
		t.Errorf("a third one in an hour: %v", err)
	}
	first.Leave()
	second.Leave()
	second.Leave() // of no effect
}

// TestStayIsShared: the stays of one session count once.
func TestStayIsShared(t *testing.T) {
	tab := &Table{}
	tab.Set(map[string]Limit{"one": {Per: User, Sessions: 1}, "rate": {Per: Session, Rate: 8000}, "fast": {Per: Source, Up: 1e9}})
	v := visit{"192.0.2.1", "a", alice}
	first, err := v.enter(tab.Of("rule", []string{"one", "rate"}, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.enter(tab.Of("another", []string{"one", "rate", "fast"}, nil), first)
	if err != nil {
		t.Fatalf("the same session again: %v", err)
	}
	up, _ := first.Pace()
	up.Took(4000)
	if up, _ := again.Pace(); up.Took(0) == 0 {
		t.Error("the session's rate is there twice")
	}
	again.Leave()
	other, err := v.enter(tab.Of("rule", []string{"one"}, nil), nil)
	if err != nil {
		t.Errorf("after the session has left: %v", err)
	} else {
		other.Leave()
	}
}

// TestChangedNumbers: fewer sessions than are open end none, and let none in.
func TestChangedNumbers(t *testing.T) {
	tab := table(Limit{Per: Whole, Sessions: 3})
	p := tab.Of("rule", []string{"l"}, nil)
	come := func() (server.Stay, error) { return visit{"192.0.2.1", "a", none}.enter(p, nil) }
	var open []server.Stay
	for range 3 {
		s, err := come()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	tab.Set(map[string]Limit{"l": {Per: Whole, Sessions: 2}})
	for i := range open {
		if _, err := come(); (i < 2) != errors.Is(err, server.TooMany) {
			t.Errorf("with %d of 2 open: %v", 3-i, err)
		} else if err == nil {
			break
		}
		open[i].Leave()
	}
	tab.Set(map[string]Limit{"l": {Per: Source, Sessions: 1}}) // another limit
	s, err := come()
	if err != nil {
		t.Fatalf("a limit that counts by something else: %v", err)
	}
	s.Leave()
	tab.Set(nil)
	if b := p.Budget(&someone, none); b != nil {
		t.Error("a limit that is gone is counted towards")
	}
	open[2].Leave()
}

var names = []string{"a", "b", "c", "d", "e"}

// shuffle gives a table other limits.
func shuffle(tab *Table, r *rand.Rand) {
	all := make(map[string]Limit)
	for _, name := range names {
		l := kinds[r.IntN(len(kinds))].limit
		l.Per = keys[r.IntN(len(keys))].per
		if l.Rate > 0 && r.IntN(2) == 0 {
			l.Per = Session
		}
		l.Sessions *= 1 + r.IntN(20)
		all[name] = l
	}
	tab.Set(all)
}

// comeAndGo is a session, if there is room for it, that enters once more.
func comeAndGo(tab *Table, r *rand.Rand, meanwhile func()) {
	v := keys[r.IntN(len(keys))].one
	s, err := v.enter(tab.Of("rule", names[:r.IntN(5)+1], groups), nil)
	if err != nil {
		time.Sleep(time.Duration(r.IntN(100)) * time.Second)
		return
	}
	if more, err := v.enter(tab.Of("rule", names[4:], groups), s); err == nil {
		s = more
	}
	if up, _ := s.Pace(); up != nil {
		time.Sleep(up.Took(r.IntN(2000)))
	}
	meanwhile()
	s.Leave()
}

// TestComeAndGo: whatever sessions and settings do, nothing of them is left.
func TestComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := &Table{}
		shuffle(tab, rand.New(rand.NewPCG(0, 0)))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(i)))
				for range 40 {
					comeAndGo(tab, r, func() {
						if i == 0 {
							shuffle(tab, r)
						}
					})
				}
			})
		}
		wg.Wait()
		time.Sleep(48 * time.Hour)
		wantEmpty(t, tab)
	})
}
