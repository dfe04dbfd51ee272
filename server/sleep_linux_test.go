package server

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestSleepingSessions: a session in which nothing moves needs no goroutine, and
// is a session like any other.
func TestSleepingSessions(t *testing.T) {
	const sessions = 4
	r := newRig(t, &Server{Policy: deciding(anything)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.serve(socket, Listener{})
	clients, targets := sleepers(t, socket.Addr().String(), sessions)
	asleep := func() {
		t.Helper()
		proxytest.Eventually(t, "all sessions sleep", func() bool { return relaying() == 0 })
	}
	asleep()
	if n := len(r.server.Sessions()); n != sessions {
		t.Errorf("%d sessions are known, want %d", n, sessions)
	}
	for i := range clients { // they wake
		proxytest.Say(t, clients[i], []byte("ping"))
		proxytest.Hear(t, targets[i], "ping")
	}
	asleep()

	targets[0].Close()
	clients[0].Close()
	if e := r.next(Closed); e.Up() != 4 {
		t.Errorf("%d bytes were recorded, want 4", e.Up())
	}
	_ = targets[1].(*net.TCPConn).SetLinger(0)
	targets[1].Close()
	r.next(TargetReset)
	wantsReset(t, clients[1])
	for _, s := range r.server.Sessions() {
		if s.Client == addrPort(clients[2].LocalAddr()) {
			s.End(Revoked)
		}
	}
	r.next(Revoked)
	wantsReset(t, clients[2])
	wantsReset(t, targets[2])
	r.server.Close()
	r.next(Shutdown)
	wantsReset(t, clients[3])
	if n := r.server.state.open.Load(); n != 0 {
		t.Errorf("%d connections are counted at the end", n)
	}
}

// sleepers opens sessions in which nothing moves yet.
func sleepers(t *testing.T, proxy string, sessions int) (clients, targets []net.Conn) {
	t.Helper()
	target := listenTCP(t, "127.0.0.1:0")
	for range sessions {
		c := proxytest.Dial(t, proxy)
		proxytest.Say(t, c, proxytest.Connect4(addrPort(target.Addr()), "bob"))
		far, err := target.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		proxytest.Granted4(t, c)
		clients, targets = append(clients, c), append(targets, far)
	}
	return clients, targets
}

func wantsReset(t *testing.T, c net.Conn) {
	t.Helper()
	if rest, how := proxytest.End(c); len(rest) > 0 || !errors.Is(how, syscall.ECONNRESET) {
		t.Errorf("% x, then %v; want a reset", rest, how)
	}
}

// relaying returns how many goroutines relay.
func relaying() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "relay.(*session).run") + strings.Count(string(stacks), "relay.(*direction).run")
}
