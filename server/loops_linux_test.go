package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestSessionsWithoutGoroutine: a session whose relay is on an event loop needs no
// goroutine, and is a session like any other.
func TestSessionsWithoutGoroutine(t *testing.T) {
	const sessions = 4
	r := newRig(t, &Server{Policy: deciding(anything)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.serve(socket, Listener{})
	clients, targets := connected(t, socket.Addr().String(), sessions)
	alone := func() {
		t.Helper()
		proxytest.Eventually(t, "no session has a goroutine", func() bool { return servingGoroutines() == 0 })
	}
	alone()
	if n := len(r.server.Sessions()); n != sessions {
		t.Errorf("%d sessions are known, want %d", n, sessions)
	}
	for i := range clients {
		proxytest.Say(t, clients[i], []byte("ping"))
		proxytest.Hear(t, targets[i], "ping")
	}
	alone()

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
		if s.Now().Client == addrPort(clients[2].LocalAddr()) {
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

// connected opens sessions in which nothing moves yet.
func connected(t *testing.T, proxy string, sessions int) (clients, targets []net.Conn) {
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

// TestSessionsOfManyLoops: sessions that another loop takes over than that which has
// accepted them are sessions like any other.
func TestSessionsOfManyLoops(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	r := newRig(t, &Server{Policy: deciding(anything)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.serve(socket, Listener{})
	clients, targets := connected(t, socket.Addr().String(), 40)
	for i := range clients {
		proxytest.Say(t, clients[i], []byte("ping"))
		proxytest.Hear(t, targets[i], "ping")
		clients[i].Close()
		targets[i].Close()
		r.next(Closed)
	}
}

// TestBulkSpreads: sessions that have much to move leave the loop on which they have begun
// for others, before they rest, too, and are told of as ever.
func TestBulkSpreads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	proxytest.Eventually(t, "the loops of other tests end", func() bool { return pollers(t) <= 1 }) // that of the runtime
	r := newRig(t, &Server{Policy: deciding(anything)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.serve(socket, Listener{})
	clients, targets := connected(t, socket.Addr().String(), 6)
	before := pollers(t)
	const piece = 1 << 20
	zeros, err := unix.MemfdCreate("zeros", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(zeros)
	if err := unix.Ftruncate(zeros, piece); err != nil {
		t.Fatal(err)
	}
	var enough atomic.Bool
	var ends sync.WaitGroup
	var sent, got atomic.Int64
	for i := range clients {
		ends.Go(func() { sendZeros(t, targets[i], zeros, piece, &enough, &sent) })
		ends.Go(func() { throwAway(t, clients[i], piece, &got) })
	}
	for range 2000 {
		if pollers(t) > before {
			break
		}
		<-time.After(5 * time.Millisecond)
	}
	if pollers(t) == before {
		t.Error("none has moved to another loop")
	}
	enough.Store(true)
	ends.Wait()
	var down int64
	for range clients {
		down += r.next(Closed).Down()
	}
	if got.Load() != sent.Load() || down != sent.Load() {
		t.Errorf("%d bytes of %d have come, and %d are recorded", got.Load(), sent.Load(), down)
	}
}

// sendZeros sends pieces of a file until that is enough, and closes c.
func sendZeros(t *testing.T, c net.Conn, zeros, piece int, enough *atomic.Bool, sent *atomic.Int64) {
	defer c.Close()
	for n := int64(1); n > 0 && !enough.Load(); sent.Add(n) {
		n = untilReady(t, bare(t, c).Write, func(fd int) (int, error) {
			var from int64
			return unix.Sendfile(fd, zeros, &from, piece)
		})
	}
}

// throwAway reads to the end, and closes c.
func throwAway(t *testing.T, c net.Conn, piece int, got *atomic.Int64) {
	defer c.Close()
	for n := int64(1); n > 0; got.Add(n) {
		n = untilReady(t, bare(t, c).Read, func(fd int) (int, error) {
			n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(piece), unix.MSG_TRUNC, 0, 0) // into no memory
			if err != 0 {
				return 0, err
			}
			return int(n), nil
		})
	}
}

// untilReady makes a call until it need not wait: it moves bytes that are in no memory of
// the test's, which would be slower than the proxy is.
func untilReady(t *testing.T, wait func(func(fd uintptr) bool) error, call func(fd int) (int, error)) int64 {
	t.Helper()
	var n int
	var failed error
	err := wait(func(fd uintptr) bool {
		n, failed = call(int(fd))
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err := errors.Join(err, failed); err != nil {
		t.Error(err)
		return 0
	}
	return int64(n)
}

func bare(t *testing.T, c net.Conn) syscall.RawConn {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Error(err)
	}
	return raw
}

// pollers returns how many descriptors of epoll the process has: each loop has one.
func pollers(t *testing.T) (count int) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.Contains(to, "eventpoll") {
			count++
		}
	}
	return count
}

// servingGoroutines returns how many goroutines serve a connection or relay.
func servingGoroutines() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "relay.(*session).run") + strings.Count(string(stacks), "server.(*Server).serveConn")
}

// TestIdleSessionsAreSmall: what the server keeps of a session in which nothing
// moves. The clients and targets are bare descriptors, which hold none of the heap.
func TestIdleSessionsAreSmall(t *testing.T) {
	policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
		if r.Target.Name != "" {
			return Grant{Rule: "names", Addrs: addrs("127.0.0.1")}, nil
		}
		return anything(ctx, r)
	})
	socks := func(to netip.AddrPort) (*Mapping, []byte, string) {
		return nil, proxytest.Connect4(to, "bob"), granted4
	}
	http := func(to netip.AddrPort) (*Mapping, []byte, string) {
		head := fmt.Sprintf("CONNECT host.example:%d HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n", to.Port(), strings.Repeat("c", 1900))
		return nil, []byte(head), established
	}
	mapped := func(to netip.AddrPort) (*Mapping, []byte, string) { return mappingOf(to), nil, "" }
	for name, speaks := range map[string]func(to netip.AddrPort) (*Mapping, []byte, string){
		"SOCKS 4": socks, "HTTP": http, "mapping": mapped,
	} {
		if testing.Short() && name != "SOCKS 4" {
			continue // it takes two seconds until a session is at rest
		}
		t.Run(name+", begun in a goroutine", func(t *testing.T) { idleSessionsAreSmall(t, policy, speaks) })
		t.Run(name+", on a loop", func(t *testing.T) { idleSessionsAreSmall(t, prompt{policy}, speaks) })
	}
}

// granted4 begins the answer to a request of SOCKS 4 that was granted.
const granted4 = "\x00\x5a"

func idleSessionsAreSmall(t *testing.T, policy Policy, speaks func(to netip.AddrPort) (*Mapping, []byte, string)) {
	t.Helper()
	const sessions, most = 500, 900
	s := &Server{Policy: policy}
	socket := listenTCP(t, "127.0.0.1:0")
	target, address := bareListener(t)
	open := make([]int, 0, 2000) // grows no more
	open = append(open, target)
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd)
		}
	}()
	mapping, ask, answer := speaks(address)
	begin := func(count int) {
		for range count {
			client, far := bareSession(t, socket.Addr(), target, ask, answer)
			open = append(open, client, far)
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), socket, Listener{Mapping: mapping}) }()
	begin(50) // what the first ones need is not counted
	quiet := func() int64 {
		proxytest.Eventually(t, "no session has a goroutine", func() bool { return servingGoroutines() == 0 })
		proxytest.Eventually(t, "all are at rest", func() bool { return !slices.ContainsFunc(s.Sessions(), awake) })
		runtime.GC()
		runtime.GC() // a pool survives one
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := quiet()
	begin(sessions)
	each := (quiet() - before) / sessions
	t.Logf("an idle session holds %d bytes of heap", each)
	if each > most {
		t.Errorf("an idle session holds %d bytes of heap, want at most %d", each, most)
	}
	s.Close()
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
}

// awake reports whether a session holds more than it needs at rest.
func awake(s *Session) bool {
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	return s.life.whole != nil
}

// bareSession opens a session between two descriptors, which the caller closes. answer
// is how the answer to what it asks begins; empty: there is none.
func bareSession(t *testing.T, proxy net.Addr, target int, ask []byte, answer string) (client, far int) {
	t.Helper()
	client = bareSocket(t)
	to := &unix.SockaddrInet4{Port: int(addrPort(proxy).Port()), Addr: [4]byte{127, 0, 0, 1}}
	err := errors.Join(unix.Connect(client, to), writeAll(client, ask))
	if err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, 0, 64)
	for len(heard) < len(answer) {
		n, err := unix.Read(client, heard[len(heard):cap(heard)])
		if heard = heard[:len(heard)+max(0, n)]; err != nil || n == 0 {
			break
		}
	}
	if !strings.HasPrefix(string(heard), answer) {
		t.Fatalf("the answer is %q, want one that begins with %q", heard, answer)
	}
	if far, _, err = unix.Accept4(target, unix.SOCK_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return client, far
}

// bareListener returns a descriptor that listens, and where.
func bareListener(t *testing.T) (fd int, address netip.AddrPort) {
	t.Helper()
	fd = bareSocket(t)
	err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 16))
	name, failed := unix.Getsockname(fd)
	at, ok := name.(*unix.SockaddrInet4)
	if err != nil || failed != nil || !ok {
		t.Fatalf("listening: %v, %v", err, failed)
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
}

func bareSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func writeAll(fd int, what []byte) error {
	_, err := unix.Write(fd, what)
	return err
}

// TestRelaysFaultIsContained: a fault while bytes are relayed ends that session, is
// logged and recorded, and leaves the others alone.
func TestRelaysFaultIsContained(t *testing.T) {
	policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
		g, err := anything(ctx, r)
		if r.Identity.Name == "mallory" {
			g.Budget = faultyBudget{}
		}
		return g, err
	})
	r := newRig(t, &Server{Policy: policy})
	said := make(chan string, 10)
	r.server.Log = slog.New(slog.NewTextHandler(lines(said), nil))
	socket := listenTCP(t, "127.0.0.1:0")
	r.serve(socket, Listener{})
	echo := proxytest.Echo(t, "127.0.0.1")

	good := proxytest.Dial(t, socket.Addr().String())
	proxytest.Say(t, good, proxytest.Connect4(echo, "bob"))
	proxytest.Granted4(t, good)
	bad := proxytest.Dial(t, socket.Addr().String())
	proxytest.Say(t, bad, proxytest.Connect4(echo, "mallory"))
	proxytest.Granted4(t, bad)
	wantsReset(t, bad)
	r.next(Failed)
	talk(t, good)
	if line := <-said; !strings.Contains(line, "please report it") || !strings.Contains(line, "a fault") {
		t.Errorf("the log says %q", line)
	}
}

// lines is a Writer that hands on what is written.
type lines chan<- string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// faultyBudget is a Budget, a Stay and a Pacer that panics as soon as bytes move.
type faultyBudget struct{}

func (b faultyBudget) Enter(Stay, func(error)) (Stay, error) { return b, nil }
func (b faultyBudget) Pace() (up, down Pacer)                { return b, b }
func (faultyBudget) Leave()                                  {}
func (faultyBudget) Chunk() int                              { return 1 }
func (faultyBudget) Took(int) time.Duration                  { panic("a fault") }
func (faultyBudget) Passes(int) bool                         { return true }
