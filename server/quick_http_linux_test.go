package server

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// connectHead is the head of a CONNECT.
func connectHead(to fmt.Stringer) []byte {
	return []byte(fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", to))
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// tunnelled is a client of HTTP that has come to its target.
func tunnelled(t *testing.T, r *rig, target *proxytest.Target) (client, far *net.TCPConn) {
	t.Helper()
	client = proxytest.Dial(t, r.address)
	proxytest.Say(t, client, connectHead(target.Addr()))
	far = target.Next(t)
	proxytest.Hear(t, client, established)
	return client, far
}

// TestQuickTunnels: a CONNECT by HTTP needs neither a goroutine nor a third descriptor
// on a loop, not even while its head is awaited.
func TestQuickTunnels(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	for range 12 {
		tunnelled(t, r, target) // starts what all share, loops among it
	}
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	const sessions = 20
	for range sessions {
		tunnelled(t, r, target)
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, connectHead(target.Addr())[:20])
	}
	proxytest.Eventually(t, "all heads have begun", func() bool { return r.server.state.open.Load() == 2*sessions+12 })
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines more for %d sessions and as many heads", n-goroutines, sessions)
	}
	if n := openDescriptors(t) - descriptors; n != 4*sessions+2*sessions { // the test's own among them
		t.Errorf("%d descriptors more, want %d", n, 6*sessions)
	}
	r.server.Close()
}

// TestTunnelsWithoutGoroutine: those that began in a goroutine have none once their
// relays go on.
func TestTunnelsWithoutGoroutine(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deliberate{deciding(anything)}}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	c, far := tunnelled(t, r, target)
	proxytest.Eventually(t, "the session has no goroutine", func() bool { return !isRunning("server.serveHTTP") })
	proxytest.Say(t, c, []byte("ping"))
	proxytest.Hear(t, far, "ping")
	r.server.Sessions()[0].End(Revoked)
	wantsReset(t, c)
	wantsReset(t, far)
	if e := r.next(Revoked); e.Up() != 4 || e.Protocol != HTTP {
		t.Errorf("recorded %+v, %d bytes up", e.Record, e.Up())
	}
}

// isRunning reports whether a goroutine is in a function.
func isRunning(function string) bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(function))
}

// TestTunnelWithHead: bytes of the tunnel that come with the head reach the target, in front
// of the others.
func TestTunnelWithHead(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	c := proxytest.Dial(t, r.address)
	words := strings.Repeat("0123456789", 10_000)
	proxytest.Say(t, c, append(connectHead(proxytest.Echo(t, "127.0.0.1")), words...))
	proxytest.Hear(t, c, established+words)
	c.Close()
	r.next(Closed)
}

// TestUnfinishedHeads: whose head does not come whole is told why.
func TestUnfinishedHeads(t *testing.T) {
	for way, of := range map[string]func(Policy) Policy{
		"on a loop":      func(p Policy) Policy { return prompt{p} },
		"in a goroutine": func(p Policy) Policy { return deliberate{p} },
	} {
		begins := func(s *Server) (*rig, *net.TCPConn) {
			s.Policy = of(deciding(anything))
			r := onLoopback(t, s, Listener{})
			c := proxytest.Dial(t, r.address)
			proxytest.Say(t, c, []byte("CONNECT 127.0.0.1:80 HTTP"))
			return r, c
		}
		begun := func(r *rig) {
			proxytest.Eventually(t, "the head has begun", func() bool {
				return r.server.state.open.Load() == 1 && (way == "on a loop" || isRunning("readRequest"))
			})
		}
		answers := func(what string, c *net.TCPConn, status string) {
			t.Helper()
			if page, how := proxytest.End(c); !strings.HasPrefix(string(page), "HTTP/1.1 "+status) || how != nil {
				t.Errorf("%s, %s: %.60q, then %v; want %s", what, way, page, how, status)
			}
			c.Close()
		}
		r, c := begins(&Server{Timeouts: Timeouts{Handshake: 50 * time.Millisecond}})
		answers("slow", c, "408")
		if e := r.next(HandshakeSlow); e.Protocol != HTTP {
			t.Errorf("%s it is recorded as %+v", way, e.Record)
		}
		r, c = begins(&Server{Limits: Limits{HandshakesPerSource: 1}})
		begun(r)
		next := proxytest.Dial(t, r.address)
		answers("too many", c, "503")
		r.next(Busy)
		next.Close()
		r.next(ClientGone)

		r, c = begins(&Server{})
		begun(r)
		_ = r.server.Shutdown(context.Background())
		proxytest.Ends(t, c)
		r.next(Shutdown)
	}
}
