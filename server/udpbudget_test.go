//go:build unix

package server

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// oneBudget is a Budget, a Stay and a Pacer: it lets so many in, and of each of them
// so many datagrams pass.
type oneBudget struct {
	room    int
	left    int // datagrams
	entered int
}

func (a *oneBudget) Enter(before Stay, _ func(error)) (Stay, error) {
	if before == a {
		return a, nil
	}
	if a.room == 0 {
		return nil, TooMany
	}
	a.room--
	a.entered++
	return a, nil
}

func (a *oneBudget) Pace() (up, down Pacer) { return a, a }
func (a *oneBudget) Leave()                 { a.entered-- }
func (a *oneBudget) Chunk() int             { return 1 }
func (a *oneBudget) Took(int) time.Duration { return 0 }

func (a *oneBudget) Passes(int) bool {
	a.left--
	return a.left >= 0
}

// TestAssociationCounts: an association counts once, whatever its destinations and
// however often they are decided on; what is too fast is dropped both ways; and a
// destination that a limit has no room for is refused.
func TestAssociationCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, full := &oneBudget{room: 1, left: 4}, &oneBudget{}
		a, b, c := netip.MustParseAddrPort("127.0.0.2:9"), netip.MustParseAddrPort("127.0.0.3:9"), netip.MustParseAddrPort("127.0.0.4:9")
		m := associateInMemory(t, deciding(func(ctx context.Context, r *Request) (Grant, error) {
			g, err := anything(ctx, r)
			if g.Budget = near; r.Target.IP == c.Addr() {
				g.Budget = full
			}
			return g, err
		}), time.Hour)
		m.sends(wrapped(0, a, "1"))
		m.sent(a)
		m.sends(wrapped(0, b, "2"))
		m.sent(b)
		time.Sleep(2 * grantedFor)
		m.sends(wrapped(0, a, "3")) // is decided on again
		m.sent(a)
		m.mayAnswer(a, true)
		m.mayAnswer(a, false)
		m.sends(wrapped(0, a, "4"))
		m.sent(netip.AddrPort{})
		m.sends(wrapped(0, c, "5"))
		m.sent(netip.AddrPort{})
		if n := m.session.Dropped(); n != 3 {
			t.Errorf("%d datagrams were dropped, want 3", n)
		}
		if near.entered != 1 || full.entered != 0 {
			t.Errorf("counted %d and %d times, want 1 and 0", near.entered, full.entered)
		}
		m.control.Close()
		<-m.ended
		m.session.close()
		m.session.close()
		if near.entered != 0 {
			t.Errorf("counted %d times after the end, want 0", near.entered)
		}
	})
}

// endingBudget ends its session instead of letting a datagram pass.
type endingBudget struct {
	oneBudget
	end func(error)
}

func (a *endingBudget) Enter(_ Stay, end func(error)) (Stay, error) {
	a.end = end
	return a, nil
}

func (a *endingBudget) Pace() (up, down Pacer) { return a, a }

func (a *endingBudget) Passes(int) bool {
	a.end(Quota)
	return false
}

// TestAssociationEndsByItsBudget, which says so while a datagram is looked at.
func TestAssociationEndsByItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := netip.MustParseAddrPort("127.0.0.2:9")
		m := associateInMemory(t, deciding(func(ctx context.Context, r *Request) (Grant, error) {
			g, err := anything(ctx, r)
			g.Budget = &endingBudget{}
			return g, err
		}), time.Hour)
		m.sends(wrapped(0, to, "1"))
		if err := <-m.ended; ReasonOf(err) != Quota {
			t.Errorf("it ended with %v, want %v", err, Quota)
		}
		m.sent(netip.AddrPort{})
		m.control.Close()
	})
}
