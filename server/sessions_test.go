package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// state of a session when its right ends, and what its client sees of that.
type holding struct {
	name  string
	begin func(r *rig) (client *proxytest.Conn)
	sees  func(t *testing.T, client *proxytest.Conn)
}

func seesReset(t *testing.T, client *proxytest.Conn) {
	t.Helper()
	if _, err := proxytest.End(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}
}

func sees91(t *testing.T, client *proxytest.Conn) {
	t.Helper()
	proxytest.Refused4(t, client, 91)
}

const forwardHead = "GET http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n"

func holdings() []holding {
	return []holding{
		{"a relay", func(r *rig) *proxytest.Conn {
			client, far := r.relayed(r.network.MustListen(targetAt.String()))
			r.Cleanup(func() {
				if _, err := proxytest.End(far); !errors.Is(err, syscall.ECONNRESET) {
					r.Errorf("the target sees %v, want a reset", err)
				}
			})
			return client
		}, seesReset},
		{"a target that does not answer", func(r *rig) *proxytest.Conn {
			r.network.Silence(targetAt.Addr(), true)
			return r.asks(proxytest.Connect4(targetAt, "bob"))
		}, sees91},
		{"a BIND that waits", func(r *rig) *proxytest.Conn {
			client, _ := r.waits()
			return client
		}, sees91},
		{"a BIND whose peer has come", func(r *rig) *proxytest.Conn {
			client, at := r.waits()
			r.comes(targetAt.String(), at)
			proxytest.Granted4(r, client)
			return client
		}, seesReset},
		{"an HTTP request without an answer", func(r *rig) *proxytest.Conn {
			client := r.asks([]byte(forwardHead))
			r.next4(r.network.MustListen(targetAt.String()))
			return client
		}, func(t *testing.T, client *proxytest.Conn) {
			t.Helper()
			proxytest.Hear(t, client, "HTTP/1.1 403 ") // and may ask for something else
		}},
		{"an HTTP answer that has begun", func(r *rig) *proxytest.Conn {
			target := r.network.MustListen(targetAt.String())
			client := r.asks([]byte(forwardHead))
			far := r.next4(target)
			proxytest.Say(r, far, []byte("HTTP/1.1 200 OK\r\n\r\nsome"))
			return client
		}, seesReset},
	}
}

// rightEnds is a way for a session's right to end.
type rightEnds struct {
	name  string
	until time.Duration // of the grant
	end   func(s *Server)
	after time.Duration
	want  Reason
}

// TestRightEnds: however a right ends, the session that lives on it ends at that
// moment, with the reason, and nobody takes its end for a proper one.
func TestRightEnds(t *testing.T) {
	const hours = 9 * time.Hour
	for _, how := range []rightEnds{
		{"End", 0, func(s *Server) {
			for _, session := range s.Sessions() {
				session.End(Loop)
				session.End(Denied) // too late
			}
		}, 0, Loop},
		{"Review", 0, func(s *Server) {
			s.Review(func(Held) (time.Time, error) { return time.Time{}, Revoked })
		}, 0, Revoked},
		{"the grant's end", hours, func(*Server) {}, hours, Schedule},
		{"an end that Review has brought", 0, func(s *Server) {
			s.Review(func(Held) (time.Time, error) { return time.Now().Add(90 * time.Second), nil })
		}, 90 * time.Second, Schedule},
		{"an end that Review has put off", time.Minute, func(s *Server) {
			s.Review(func(Held) (time.Time, error) { return time.Now().Add(hours), nil })
		}, hours, Schedule},
	} {
		for _, h := range holdings() {
			t.Run(how.name+"/"+h.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { how.befall(t, h) })
			})
		}
	}
}

func (how rightEnds) befall(t *testing.T, h holding) {
	t.Helper()
	s := &Server{Timeouts: Timeouts{Connect: 24 * time.Hour, Bind: 24 * time.Hour}}
	s.Policy = deciding(func(ctx context.Context, q *Request) (Grant, error) {
		g, err := freely(ctx, q)
		if how.until > 0 {
			g.Until = time.Now().Add(how.until)
		}
		return g, err
	})
	r := inMemory(t, s, Listener{})
	start := time.Now()
	client := h.begin(r)
	synctest.Wait()
	if open := s.Sessions(); len(open) != 1 || open[0].Now().Target.IP != targetAt.Addr() {
		t.Fatalf("open: %v, want the one session", open)
	}
	how.end(s)
	h.sees(t, client)
	client.Close()
	r.next(how.want)
	if took := time.Since(start); took != how.after {
		t.Errorf("it ended after %v, want %v", took, how.after)
	}
	synctest.Wait()
	if open := s.Sessions(); len(open) > 0 {
		t.Errorf("still open: %v", open)
	}
}

// TestReviewSpares what judge lets pass: it lives on, and is not touched.
func TestReviewSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{Name: "lan"})
		target := r.network.MustListen(targetAt.String())
		bob, bobs := r.relayed(target)
		eve := r.asks(proxytest.Connect4(targetAt, "eve"))
		r.next4(target)
		proxytest.Granted4(t, eve)
		r.door.Change(Listener{Name: "office"})
		synctest.Wait()
		r.server.Review(func(h Held) (time.Time, error) {
			if h.Address != targetAt || h.Grant.Rule != "anything" || h.Request.Listener != "office" {
				t.Errorf("put to judge: %+v", h)
			}
			if h.Request.Identity.Name == "eve" {
				return time.Time{}, Revoked
			}
			return time.Time{}, nil
		})
		seesReset(t, eve)
		r.next(Revoked)
		proxytest.Say(t, bob, []byte("still here"))
		proxytest.Hear(t, bobs, "still here")
		bob.Close()
		bobs.Close()
		r.next(Closed)
	})
}

// TestReviewMeetsADecision: what was decided on before the change, and comes to
// its answer only after the review, is put to judge all the same.
func TestReviewMeetsADecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deciders, goOn := 0, make(chan struct{})
		r := inMemory(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
			deciders++
			<-goOn
			return anything(ctx, q)
		})}, Listener{})
		client := r.asks(proxytest.Connect4(targetAt, "bob"))
		synctest.Wait()
		r.server.Review(func(Held) (time.Time, error) { return time.Time{}, Revoked })
		close(goOn)
		sees91(t, client)
		client.Close()
		r.next(Revoked)
		if dialled := r.network.Dialled(); deciders != 1 || len(dialled) > 0 {
			t.Errorf("%d decisions, and dialled %v; want one, and nobody", deciders, dialled)
		}
	})
}

// TestReviewMeetsADial: of several addresses one is reached whose right is gone.
func TestReviewMeetsADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, left := targetAt.Addr(), netip.MustParseAddr("127.0.0.3")
		r := inMemory(t, &Server{Policy: deciding(func(context.Context, *Request) (Grant, error) {
			return Grant{Addrs: []netip.Addr{gone, left}}, nil
		})}, Listener{})
		r.network.MustListen(targetAt.String())
		out := &slowOutbound{Network: r.network, goOn: make(chan struct{})}
		r.server.Outbound = out
		client := r.asks(proxytest.Connect4(targetAt, "bob"))
		synctest.Wait()
		r.server.Review(func(h Held) (time.Time, error) {
			if h.Address.Addr() == gone {
				return time.Time{}, Revoked
			}
			return time.Time{}, nil
		})
		close(out.goOn)
		sees91(t, client)
		client.Close()
		r.next(Revoked)
	})
}

// slowOutbound dials only when it may go on.
type slowOutbound struct {
	*proxytest.Network
	goOn chan struct{}
}

func (o *slowOutbound) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	<-o.goOn
	return o.Network.DialContext(ctx, network, address)
}

// TestGrantThatHasEnded already is none.
func TestGrantThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
			g, err := anything(ctx, q)
			g.Until = time.Now()
			return g, err
		})}, Listener{})
		client := r.asks(proxytest.Connect4(targetAt, "bob"))
		sees91(t, client)
		client.Close()
		r.next(Schedule)
		if dialled := r.network.Dialled(); len(dialled) > 0 {
			t.Errorf("dialled %v", dialled)
		}
	})
}

// TestKeptConnectionEnds with the grant of its last request.
func TestKeptConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
			g, err := anything(ctx, q)
			g.Until = time.Now().Add(time.Minute)
			return g, err
		})}, Listener{})
		target := r.network.MustListen(targetAt.String())
		start, client := time.Now(), r.asks([]byte(forwardHead))
		far := r.next4(target)
		proxytest.Say(t, far, []byte("HTTP/1.1 204 No Content\r\n\r\n"))
		r.next(Closed)
		if _, err := proxytest.End(client); err != nil || time.Since(start) != time.Minute {
			t.Errorf("the client's connection ends with %v after %v, want FIN after a minute", err, time.Since(start))
		}
		if _, err := proxytest.End(far); err != nil {
			t.Errorf("the target's connection ends with %v, want FIN", err)
		}
	})
}

// TestListenerChangesLive: the next client gets what is new; when the socket is
// closed, those who are there stay.
func TestListenerChangesLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
		target := r.network.MustListen(targetAt.String())
		client, far := r.relayed(target)
		r.door.Change(Listener{Protocols: []Protocol{SOCKS5}})
		r.asks(proxytest.Connect4(targetAt, "bob"))
		r.next(Garbage)
		r.server.SetTimeouts(Timeouts{Handshake: time.Second})
		start := time.Now()
		r.client()
		r.next(HandshakeSlow)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the handshake ended after %v, want the new limit", took)
		}
		r.in.Close()
		if err := <-r.served; errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v, want the socket's error", err)
		}
		r.served <- ErrServerClosed // for the end of the rig
		if r.server.isSelf(proxyAt) {
			t.Error("an address where nobody listens is taken for the proxy")
		}
		proxytest.Say(t, client, []byte("still here"))
		proxytest.Hear(t, far, "still here")
		client.Close()
		far.Close()
		r.next(Closed)
	})
}

// TestAlarmLooksAtTheWall: a timer is trusted for a short while only, as the
// clock on the wall may be set.
func TestAlarmLooksAtTheWall(t *testing.T) {
	at := time.Date(2026, 3, 29, 18, 0, 0, 0, time.UTC)
	a := &alarm{at: at}
	for _, test := range []struct{ before, want time.Duration }{
		{24 * time.Hour, alarmStep}, {alarmStep, alarmStep}, {time.Second, time.Second}, {0, 0}, {-time.Hour, 0},
	} {
		if got := a.wait(at.Add(-test.before)); got != test.want {
			t.Errorf("%v before it: looks in %v, want %v", test.before, got, test.want)
		}
	}
	now := time.Now() // with a monotonic reading, which must not count
	b := newAlarm(now.Add(time.Hour), func() { t.Error("it rang") })
	defer b.stop()
	if b.at != now.Add(time.Hour).Round(0) {
		t.Errorf("at %v, want the time of the wall alone", b.at)
	}
}
