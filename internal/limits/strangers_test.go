package limits

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// comes has a name of a source use so many bytes of the limit "l", and leave. It reports whether that
// was all.
func comes(t *testing.T, p *Part, source string, id server.Identity, bytes int) bool {
	t.Helper()
	ended := false
	r := &server.Request{Client: netip.AddrPortFrom(netip.MustParseAddr(source), 1)}
	s, err := p.Budget(r, id).Enter(nil, func(error) { ended = true })
	if err != nil {
		if !errors.Is(err, server.Quota) {
			t.Fatal(err)
		}
		return false
	}
	defer s.Leave()
	up, _ := s.Pace()
	return moves(up, bytes) == bytes && !ended
}

func claims(name string) server.Identity { return server.Identity{Name: name, Proof: server.Claimed} }

// TestInventedNames have together what one has, beyond the first of each source; whoever shows
// a name, or is in a group, has his own, and so has who came before.
func TestInventedNames(t *testing.T) {
	for _, proof := range []server.Proof{server.Claimed, server.Ident} {
		synctest.Test(t, func(t *testing.T) {
			tab := table(Limit{Per: User, Quota: 1000, Every: Every{Unit: Day}, Names: 3})
			for range 2 {
				inventsNames(t, tab.Of("rule", []string{"l"}, groups), proof)
				time.Sleep(24 * time.Hour)
				tab.tick(time.Now())
				if n := len(tab.named["l"].strange.from) + len(tab.named["l"].strange.of); n > 0 {
					t.Errorf("%s: %d things are remembered of those that are over", proof, n)
				}
			}
		})
	}
}

// inventsNames is a day of the quota of 1000 bytes.
func inventsNames(t *testing.T, p *Part, proof server.Proof) {
	t.Helper()
	is := func(name string) server.Identity { return server.Identity{Name: name, Proof: proof} }
	apart := 0
	for i := range 100 {
		if comes(t, p, fmt.Sprintf("2001:db8::%x", i), is(fmt.Sprintf("name%d", i)), 500) {
			apart++
		}
	}
	if apart != 3+2 {
		t.Errorf("%s: %d names have half of a quota each, want 3, and two that share one", proof, apart)
	}
	for name, ok := range map[string]bool{
		"one who came before":        comes(t, p, "2001:db8::ffff", is("name0"), 500),
		"one of another source":      comes(t, p, "192.0.2.7", is("name99"), 1000),
		"one who is known":           comes(t, p, "2001:db8::1", is("alice"), 1000),
		"one who shows the password": comes(t, p, "2001:db8::1", eve, 1000),
	} {
		if !ok {
			t.Errorf("%s: %s does not have his own", proof, name)
		}
	}
}

// TestInventedNamesAreFewAccounts for the bank, and push nobody out of the table.
func TestInventedNamesAreFewAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := table(Limit{Per: User, Quota: 1000, Every: Every{Unit: Month}})
		tab.Restore(nil, 1)
		p := tab.Of("rule", []string{"l"}, nil)
		comes(t, p, "192.0.2.1", eve, 900)
		for i := range 2 * usualNames {
			comes(t, p, "192.0.2.1", claims(fmt.Sprint("name", i)), 1)
		}
		if n := len(tab.Due(time.Now())); n != 1+usualNames+1 {
			t.Errorf("%d accounts, want that of eve, %d of names and one of all others", n, usualNames)
		}
		var many []Balance
		for i := range mostStrangers {
			many = append(many, Balance{Account: Account{"l", fmt.Sprint("before", i), true}, Slots: []Slot{{Start: tab.named["l"].counters[key{name: "eve"}].start, Used: Amount{Up: 1}}}})
		}
		tab.Restore(many, 1)
		comes(t, p, "192.0.2.9", claims("one more"), 1)
		if c := tab.named["l"].counters[key{name: "one more", claimed: true}]; c != nil {
			t.Error("a name is counted apart, though there are too many of all sources")
		}
		if comes(t, p, "192.0.2.1", eve, 200) {
			t.Error("eve has her quota twice")
		}
	})
}
