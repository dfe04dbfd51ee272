package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// lateTarget is a target that answers nobody before it is told to.
type lateTarget struct {
	testing.TB
	fd      int
	address netip.AddrPort
	filler  int
}

// newLateTarget makes one by a queue that is full.
func newLateTarget(t *testing.T) *lateTarget {
	t.Helper()
	fd, address := bareListener(t)
	l := &lateTarget{t, fd, address, bareSocket(t)}
	t.Cleanup(func() { _ = errors.Join(unix.Close(l.fd), unix.Close(l.filler)) })
	to := &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	if err := errors.Join(unix.Listen(fd, 0), unix.Connect(l.filler, to)); err != nil {
		t.Fatal(err)
	}
	return l
}

// next answers, and returns the connection of a session.
func (l *lateTarget) next() (fd int) {
	l.Helper()
	for range 2 { // the first is the one that has filled the queue
		var err error
		if fd, _, err = unix.Accept4(l.fd, unix.SOCK_CLOEXEC); err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { _ = unix.Close(fd) })
	}
	return fd
}

// stalling is a policy that holds up its loop while it decides on what the user "stall"
// asks for. It does so at one time until it is told to go on.
type stalling struct{ stalls, goOn chan struct{} }

func newStalling() stalling { return stalling{make(chan struct{}), make(chan struct{})} }

func (s stalling) decide(ctx context.Context, r *Request) (Grant, error) {
	if r.Identity.Name == "stall" {
		s.stalls <- struct{}{}
		<-s.goOn
		return Grant{}, Denied
	}
	return anything(ctx, r)
}

// stall holds up the loop of a rig, on which few others are, until goOn is closed.
func (s stalling) stall(r *rig) {
	r.Helper()
	proxytest.Say(r, proxytest.Dial(r, r.address), proxytest.Connect4(targetAt, "stall"))
	<-s.stalls
}

// TestTargetSpeaksAtOnce: what a target says, and its FIN, have come before the loop has
// noticed that it answers.
func TestTargetSpeaksAtOnce(t *testing.T) {
	s := newStalling()
	r := onLoopback(t, &Server{Policy: deciding(s.decide)}, Listener{})
	target := newLateTarget(t)
	client := proxytest.Dial(t, r.address)
	proxytest.Say(t, client, proxytest.Connect4(target.address, "bob"))
	proxytest.Eventually(t, "the target is being reached", func() bool { return len(r.server.Sessions()) == 1 })
	s.stall(r)
	far := target.next()
	if err := errors.Join(writeAll(far, []byte("welcome")), unix.Shutdown(far, unix.SHUT_WR)); err != nil {
		t.Fatal(err)
	}
	close(s.goOn)
	r.next(Denied)
	proxytest.Granted4(t, client)
	proxytest.Hear(t, client, "welcome")
	_ = client.CloseWrite()
	if rest, how := proxytest.End(client); len(rest) > 0 || how != nil {
		t.Errorf("%q, %v behind it; want FIN", rest, how)
	}
	r.next(Closed)
}

// TestClientResetsBehindRequest: the request and the reset behind it have come before the
// loop has noticed either.
func TestClientResetsBehindRequest(t *testing.T) {
	s := newStalling()
	r := onLoopback(t, &Server{Policy: deciding(s.decide)}, Listener{})
	target := newLateTarget(t)
	client := proxytest.Dial(t, r.address)
	request := proxytest.Connect4(target.address, "bob")
	proxytest.Say(t, client, request[:1])
	proxytest.Eventually(t, "it is there", func() bool { return r.server.state.open.Load() == 1 })
	s.stall(r)
	proxytest.Say(t, client, request[1:])
	proxytest.Reset(client)
	close(s.goOn)
	ends := []Reason{ReasonOf(r.nextEnd("the one").err), ReasonOf(r.nextEnd("the other").err)}
	if !slices.Contains(ends, ClientReset) || !slices.Contains(ends, Denied) {
		t.Errorf("the sessions ended with %q", ends)
	}
}
