package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
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

// TestTargetRefusesLate: a target that has not answered at first refuses.
func TestTargetRefusesLate(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := newLateTarget(t)
	client := proxytest.Dial(t, r.address)
	proxytest.Say(t, client, proxytest.Connect4(target.address, "bob"))
	proxytest.Eventually(t, "the target is being reached", func() bool { return len(r.server.Sessions()) == 1 })
	if err := unix.Shutdown(target.fd, unix.SHUT_RD); err != nil { // nobody listens any more
		t.Fatal(err)
	}
	proxytest.Refused4(t, client, 91)
	client.Close()
	r.next(Refused)
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

// TestNobodyWatchesAfterwards: another process may have the listening socket, too, as in
// an upgrade. Once its owner here has closed it nothing is told of it any more.
func TestNobodyWatchesAfterwards(t *testing.T) {
	s := &Server{Policy: prompt{deciding(anything)}}
	socket := listenTCP(t, "127.0.0.1:0")
	raw, err := socket.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	other := -1
	err = raw.Control(func(fd uintptr) { other, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	var stat unix.Stat_t
	if err := errors.Join(err, unix.Fstat(other, &stat)); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), socket, Listener{}) }()
	proxytest.Eventually(t, "it is watched twice: by the runtime and for a loop", func() bool { return watchers(t, stat.Ino) == 2 })
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
	if n := watchers(t, stat.Ino); n > 0 {
		t.Errorf("it is still watched %d times", n)
	}
}

// watchers returns how often descriptors of this process's epoll watch a file.
func watchers(t *testing.T, inode uint64) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, _ := os.ReadFile("/proc/self/fdinfo/" + entry.Name()) // which may be gone
		for line := range strings.Lines(string(info)) {
			if strings.HasPrefix(line, "tfd:") && strings.Contains(line, fmt.Sprintf(" ino:%x ", inode)) {
				n++
			}
		}
	}
	return n
}

// TestEntranceHasOneTurn: what comes while many clients wait to be accepted does not
// bring the entrance more turns than one.
func TestEntranceHasOneTurn(t *testing.T) {
	s := &Server{Policy: prompt{deciding(anything)}}
	door := s.Door(listenTCP(t, "127.0.0.1:0"), Listener{})
	for range 3 * acceptsAtOnce {
		proxytest.Dial(t, door.address().String())
	}
	ctx, end := context.WithCancelCause(t.Context())
	sv := &serving{Door: door, address: door.address(), refuse: end, cut: end}
	sv.gone = sv.dismiss
	s.register(ctx, sv)
	e := newEntrance(s, sv)
	e.refuse, e.cut = func() error { return ended(ctx) }, func() error { return ended(ctx) }
	var err error
	if e.loop, err = engine.Attach(); err != nil {
		t.Fatal(err)
	}
	defer e.loop.Detach()
	first := make(chan int64)
	e.loop.Post(e, func() {
		e.begin()
		e.Ready(e.handle, engine.Readable)
		first <- s.state.open.Load()
	})
	if n := <-first; n != acceptsAtOnce {
		t.Errorf("%d clients are accepted in a turn, want %d", n, acceptsAtOnce)
	}
	proxytest.Eventually(t, "all are accepted", func() bool { return s.state.open.Load() == 3*acceptsAtOnce })
	e.loop.Post(e, func() { e.finish(net.ErrClosed) })
	<-e.ended
	end(Shutdown)
	s.state.handshakes.clear(sv, Shutdown)
	sv.conns.Wait()
}

// TestClientsAreKeptAlive: who is gone without a word is noticed, on a loop as well.
func TestClientsAreKeptAlive(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	to := proxytest.NewTarget(t, "127.0.0.1")
	quickSession(t, r, to) // who may have come before the listener was served
	client, target := quickSession(t, r, to)
	proxytest.Say(t, client, []byte("x")) // which says as well that the answer has come
	proxytest.Hear(t, target, "x")
	port := func(a net.Addr) string { return fmt.Sprintf("0100007F:%04X", addrPort(a).Port()) } // of 127.0.0.1
	near, far := port(client.RemoteAddr()), port(client.LocalAddr())
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		const keepAlive = "02:" // which timer is running
		if f := strings.Fields(line); f[1] == near && f[2] == far {
			if !strings.HasPrefix(f[5], keepAlive) {
				t.Errorf("the timer of the client's connection is %s", f[5])
			}
			return
		}
	}
	t.Errorf("no connection from %s to %s is known", far, near)
}

// TestListenerTurnsBlocking: somebody makes a file of the listening socket, as who gives
// it to another process does, and its loop goes on.
func TestListenerTurnsBlocking(t *testing.T) {
	r := newRig(t, &Server{Policy: deciding(anything)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.address = socket.Addr().String()
	r.serve(socket, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	quickSession(t, r, target)
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Fatalf("flags %x, %v: it does not block", flags, err)
	}
	quickSession(t, r, target)
}
