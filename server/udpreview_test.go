//go:build unix

package server

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestAssociationLosesRights: what a review takes away, or what ends by itself,
// neither gets nor sends anything from then on; the rest goes on, and the
// association ends with its last destination.
func TestAssociationLosesRights(t *testing.T) {
	one, two := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	refused := map[netip.Addr]bool{}
	judge := func(h Held) (time.Time, error) {
		if refused[h.Request.Target.IP] {
			return time.Time{}, Revoked
		}
		return h.Grant.Until, nil
	}
	for name, take := range map[string]func(m *memoryAssociation, which netip.AddrPort) (want Reason){
		"by a review": func(m *memoryAssociation, which netip.AddrPort) Reason {
			refused[which.Addr()] = true
			m.server.Review(judge)
			return Revoked
		},
		"by the clock": func(m *memoryAssociation, which netip.AddrPort) Reason {
			until := map[netip.AddrPort]time.Duration{one: time.Hour, two: 2 * time.Hour}[which]
			time.Sleep(time.Until(m.session.Started.Add(until)) - 1)
			m.mayAnswer(which, true)
			time.Sleep(time.Nanosecond)
			return Schedule
		},
	} {
		t.Run(name, func(t *testing.T) {
			clear(refused)
			synctest.Test(t, func(t *testing.T) {
				m := associateInMemory(t, deciding(func(_ context.Context, q *Request) (Grant, error) {
					ends := map[netip.Addr]time.Duration{one.Addr(): time.Hour, two.Addr(): 2 * time.Hour}[q.Target.IP]
					until := m0.Add(ends)
					if refused[q.Target.IP] || !time.Now().Before(until) {
						return Grant{}, Denied
					}
					return Grant{Addrs: []netip.Addr{q.Target.IP}, Until: until}, nil
				}), 24*time.Hour)
				m.sends(wrapped(0, one, "x"))
				m.sent(one)
				m.sends(wrapped(0, two, "x"))
				m.sent(two)
				m.server.Review(judge) // takes nothing
				take(m, one)
				synctest.Wait()
				m.mayAnswer(one, false)
				m.mayAnswer(two, true)
				m.sends(wrapped(0, one, "x"))
				m.sent(netip.AddrPort{})
				m.sends(wrapped(0, two, "x"))
				m.sent(two)
				m.ends(take(m, two))
			})
		})
	}
}

// TestAssociationWithoutDestinations ends when its hours do; one that has a
// destination by then ends with that.
func TestAssociationWithoutDestinations(t *testing.T) {
	one, two := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	policy := deciding(func(_ context.Context, q *Request) (Grant, error) {
		if q.Target.IP != one.Addr() {
			return Grant{}, Denied
		}
		return Grant{Addrs: []netip.Addr{q.Target.IP}, Until: m0.Add(2 * time.Hour)}, nil
	})
	for name, test := range map[string]struct {
		sends netip.AddrPort // invalid: nothing
		ends  time.Duration
		later bool // by a review
	}{
		"none":           {netip.AddrPort{}, time.Hour, false},
		"one is refused": {two, time.Hour, false},
		"one is granted": {one, 2 * time.Hour, false},
		"other hours":    {netip.AddrPort{}, 90 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := associateInMemory(t, policy, 24*time.Hour)
				m.endsAt(m0.Add(time.Hour))
				if test.sends.IsValid() {
					m.sends(wrapped(0, test.sends, "x"))
				}
				if test.later {
					m.server.Review(func(Held) (time.Time, error) { return m0.Add(test.ends), nil })
				}
				time.Sleep(test.ends - time.Nanosecond)
				synctest.Wait()
				select {
				case err := <-m.ended:
					t.Fatalf("it has ended too early, with %v", err)
				default:
				}
				time.Sleep(time.Nanosecond)
				m.ends(Schedule)
			})
		})
	}
}

// m0 is when a bubble's clock begins.
var m0 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// TestReviewMeetsADestination that is being decided on, and an association that
// has none.
func TestReviewMeetsADestination(t *testing.T) {
	one := netip.MustParseAddrPort("192.0.2.1:53")
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		m := associateInMemory(t, deciding(func(_ context.Context, q *Request) (Grant, error) {
			<-goOn
			return Grant{Addrs: []netip.Addr{q.Target.IP}}, nil
		}), time.Hour)
		m.sends(wrapped(0, one, "x"))
		bare := 0
		m.server.Review(func(h Held) (time.Time, error) {
			if !h.Address.IsValid() {
				bare++
				return time.Time{}, nil
			}
			return time.Time{}, Revoked
		})
		if bare != 1 {
			t.Errorf("put to judge as an association without destinations: %d times, want once", bare)
		}
		close(goOn)
		synctest.Wait()
		m.ends(Revoked)
	})
	synctest.Test(t, func(t *testing.T) {
		m := associateInMemory(t, deciding(anything), time.Hour)
		synctest.Wait()
		m.server.Review(func(Held) (time.Time, error) { return time.Time{}, Revoked })
		m.ends(Revoked)
	})
}
