package server

import (
	"testing"
	"testing/synctest"
)

// TestGauges: a connection is a handshake, then a session, then nothing; who has
// stopped accepts nobody.
func TestGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Policy: deciding(anything), Limits: Limits{Connections: 2, Handshakes: 2, HandshakesPerSource: 2}}
		is := func(when string, want Gauges) {
			t.Helper()
			synctest.Wait()
			if got := s.Gauges(); got != want {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
		}
		is("before anything is served", Gauges{})
		r := inMemory(t, s, Listener{})
		target := r.network.MustListen(targetAt.String())
		idle := Gauges{Accepting: true, MaxConnections: 2, MaxHandshakes: 2}
		is("nobody there", with(idle, func(g *Gauges) { g.Connections = 1 })) // the place of the next one, which is awaited
		silent := r.client()
		is("a handshake", with(idle, func(g *Gauges) { g.Connections, g.Handshakes = 2, 1 }))
		client, far := r.relayed(target)
		is("beside it a session", with(idle, func(g *Gauges) { g.Connections, g.Handshakes, g.Sessions, g.Paused = 2, 1, 1, true }))
		if n := len(s.Sessions()); n != 1 {
			t.Errorf("%d sessions are told of, want 1", n)
		}
		client.Close()
		far.Close()
		r.next(Closed)
		silent.Close()
		r.next(ClientGone)
		is("they have left", with(idle, func(g *Gauges) { g.Connections = 1 }))
		s.Close()
		is("stopped", Gauges{MaxConnections: 2, MaxHandshakes: 2})
	})
}

func with(g Gauges, change func(*Gauges)) Gauges {
	change(&g)
	return g
}
