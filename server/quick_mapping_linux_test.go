package server

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestQuickMappings: a session of a port mapping needs neither a goroutine nor a third
// descriptor on a loop.
func TestQuickMappings(t *testing.T) {
	for name, change := range map[string]func(*Mapping){
		"plain":  func(*Mapping) {},
		"chosen": func(m *Mapping) { m.Balance = &chosen{order: []int{0}} },
	} {
		t.Run(name, func(t *testing.T) {
			target := proxytest.NewTarget(t, "127.0.0.1")
			m := mappingOf(target.Addr())
			change(m)
			r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Mapping: m})
			visit := func() {
				c := proxytest.Dial(t, r.address)
				far := target.Next(t)
				proxytest.Say(t, far, []byte("welcome"))
				proxytest.Hear(t, c, "welcome")
			}
			for range 12 {
				visit() // starts what all share, loops among it
			}
			goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
			const sessions = 20
			for range sessions {
				visit()
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("%d goroutines more for %d sessions", n-goroutines, sessions)
			}
			if n := openDescriptors(t) - descriptors; n != 4*sessions { // half of them are the test's
				t.Errorf("%d descriptors more, want %d", n, 4*sessions)
			}
			r.server.Close()
		})
	}
}

// TestMappedTargetsWait: one target of several that does not answer has its share of the time, and
// the last all that is left; whoever ends the session, or leaves, ends the waiting.
func TestMappedTargetsWait(t *testing.T) {
	stuck := stuckTarget(t)
	for way, of := range map[string]func(Policy) Policy{
		"on a loop":      func(p Policy) Policy { return prompt{p} },
		"in a goroutine": func(p Policy) Policy { return deliberate{p} },
	} {
		begins := func(connect time.Duration, targets ...netip.AddrPort) (*rig, *chosen) {
			m, b := mappingOf(targets...), &chosen{}
			for i := range targets {
				b.order = append(b.order, i)
			}
			m.Balance = b
			s := &Server{Policy: of(deciding(anything)), Timeouts: Timeouts{Connect: connect}}
			return onLoopback(t, s, Listener{Mapping: m}), b
		}
		told := func(b *chosen, want string) {
			t.Helper()
			if got := b.all(); got != want {
				t.Errorf("%s the balance was told %s, want %s", way, got, want)
			}
		}
		r, b := begins(time.Second, stuck, stuck, proxytest.Echo(t, "127.0.0.1"))
		c := proxytest.Dial(t, r.address)
		talk(t, c)
		c.Close()
		r.next(Closed)
		told(b, "[0 timed-out 1 timed-out 2 closed 2 ended]")

		r, b = begins(time.Second, stuck, stuck)
		proxytest.Ends(t, proxytest.Dial(t, r.address))
		r.next(TimedOut)
		told(b, "[0 timed-out]")

		r, b = begins(time.Minute, proxytest.Nowhere(t), stuck)
		c = proxytest.Dial(t, r.address)
		proxytest.Eventually(t, "the first was tried", func() bool { return b.all() == "[0 refused]" })
		r.server.Sessions()[0].End(Revoked)
		proxytest.Ends(t, c)
		r.next(Revoked)

		c = proxytest.Dial(t, r.address)
		proxytest.Eventually(t, "the first was tried", func() bool { return b.all() == "[0 refused 0 refused]" })
		_ = c.SetLinger(0)
		c.Close()
		r.next(ClientReset)
		told(b, "[0 refused 0 refused]")
	}
}

// cutting is a Balance that ends the session as soon as it hears of it.
type cutting struct {
	chosen
	server *Server
}

func (c *cutting) Tried(target int, err error) {
	c.chosen.Tried(target, err)
	c.server.Sessions()[0].End(Revoked)
}

// TestMappedSessionEndsAtOnce: a session that is ended in the moment in which its target
// answers was one of the target's, and is none any more.
func TestMappedSessionEndsAtOnce(t *testing.T) {
	for way, of := range map[string]func(Policy) Policy{
		"on a loop":      func(p Policy) Policy { return prompt{p} },
		"in a goroutine": func(p Policy) Policy { return deliberate{p} },
	} {
		m, s := mappingOf(proxytest.Echo(t, "127.0.0.1")), &Server{Policy: of(deciding(anything))}
		b := &cutting{chosen: chosen{order: []int{0}}, server: s}
		m.Balance = b
		r := onLoopback(t, s, Listener{Mapping: m})
		proxytest.Ends(t, proxytest.Dial(t, r.address))
		r.next(Revoked)
		if got := b.all(); got != "[0 closed 0 ended]" {
			t.Errorf("%s the balance was told %s", way, got)
		}
	}
}

// TestMappedIntroduction: on a loop, too, a target hears who the client is before anything else.
func TestMappedIntroduction(t *testing.T) {
	target := proxytest.NewTarget(t, "127.0.0.1")
	m := mappingOf(proxytest.Nowhere(t), target.Addr())
	m.ProxyVersion = 2
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Mapping: m})
	c := proxytest.Dial(t, r.address)
	proxytest.Say(t, c, []byte("hello"))
	far := target.Next(t)
	header := AppendProxyHeader(nil, 2, addrPort(c.LocalAddr()), netip.MustParseAddrPort(r.address))
	proxytest.Hear(t, far, string(header)+"hello")
	far.Close()
	c.Close()
	if e := r.next(Closed); e.Up() != 5 {
		t.Errorf("%d bytes up, want the client's own", e.Up())
	}
}

// TestMappingIsNotQuickAnyMore: what is changed to take more than a loop can do is
// served all the same.
func TestMappingIsNotQuickAnyMore(t *testing.T) {
	echo := proxytest.Echo(t, "127.0.0.1")
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Mapping: mappingOf(echo)})
	talks := func(c proxytest.Stream) {
		talk(t, c)
		c.Close()
		r.next(Closed)
	}
	talks(proxytest.Dial(t, r.address))
	ca := newAuthority(t)
	r.door.Change(Listener{Mapping: mappingOf(echo), TLS: ca.server(t)})
	talks(secure(proxytest.Dial(t, r.address), ca.client()))
}
