package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// deciding is a Policy that is a function.
type deciding func(ctx context.Context, r *Request) (Grant, error)

func (d deciding) Decide(ctx context.Context, r *Request) (Grant, error) { return d(ctx, r) }

// anything grants every target that is an address.
func anything(_ context.Context, r *Request) (Grant, error) {
	return Grant{Rule: "anything", Addrs: []netip.Addr{r.Target.IP}}, nil
}

// binding grants every target on some terms for BIND.
func binding(o BindOptions) deciding {
	return func(ctx context.Context, r *Request) (Grant, error) {
		g, err := anything(ctx, r)
		g.Bind = o
		return g, err
	}
}

// refusing refuses everything with reason.
func refusing(reason error) deciding {
	return func(context.Context, *Request) (Grant, error) { return Grant{Rule: "refusing"}, reason }
}

// end is how a session ended.
type end struct {
	*Session
	err error
}

// witness is a Recorder that fails the test when it is not told of each session
// in the way that Recorder promises.
type witness struct {
	tb   testing.TB
	ends chan end

	mu     sync.Mutex
	opened map[*Session]bool
	closed map[*Session]bool
}

func newWitness(tb testing.TB) *witness {
	tb.Helper()
	return &witness{tb: tb, ends: make(chan end, 4096), opened: make(map[*Session]bool), closed: make(map[*Session]bool)}
}

func (w *witness) Opened(s *Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened[s] || w.closed[s] || s.Protocol == "" {
		w.tb.Errorf("session %d (%q): opened twice, after its end, or without a request", s.ID, s.Protocol)
	}
	w.opened[s] = true
}

func (w *witness) Closed(s *Session, reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed[s] {
		w.tb.Errorf("session %d: closed twice", s.ID)
	}
	w.closed[s] = true
	w.ends <- end{s, reason}
}

// open returns how many sessions are known to be open.
func (w *witness) open() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.opened {
		if !w.closed[s] {
			n++
		}
	}
	return n
}

// logbook is a slog.Handler that keeps the messages.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logbook) WithGroup(string) slog.Handler            { return l }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Level.String()+" "+r.Message)
	return nil
}

// all returns the lines so far.
func (l *logbook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// Where things are in memory.
var (
	proxyAt  = netip.MustParseAddrPort("127.0.0.1:1080")
	clientAt = netip.MustParseAddr("127.0.0.1")
	targetAt = netip.MustParseAddrPort("127.0.0.2:80")
)

// rig is a server with what it tells, on a network in memory or on loopback.
type rig struct {
	testing.TB
	server *Server
	*witness
	book    *logbook
	network *proxytest.Network  // in memory only
	in      *proxytest.Listener // in memory only
	address string              // on loopback only
	door    *Door               // the last
	served  chan error          // what Serve returned
	ports   atomic.Uint32       // of the clients in memory
	clients []*proxytest.Conn   // in memory
}

func newRig(tb testing.TB, s *Server) *rig {
	tb.Helper()
	r := &rig{TB: tb, server: s, witness: newWitness(tb), book: &logbook{}, served: make(chan error, 1)}
	s.Log = slog.New(r.book)
	if s.Recorder == nil {
		s.Recorder = r.witness
	}
	return r
}

// inMemory serves on a network in memory, for tests in a bubble of synctest.
// The server ends with the test.
func inMemory(tb testing.TB, s *Server, l Listener) *rig {
	tb.Helper()
	return inMemoryOf(tb, 64<<10, s, l)
}

// inMemoryOf is inMemory with connections that hold room bytes each way.
func inMemoryOf(tb testing.TB, room int, s *Server, l Listener) *rig {
	tb.Helper()
	r := newRig(tb, s)
	r.network = proxytest.NewNetwork(netip.MustParseAddr("127.0.0.1"), room)
	r.in = r.network.MustListen(proxyAt.String())
	if s.Outbound == nil {
		s.Outbound = r.network
	}
	r.serve(r.in, l)
	return r
}

// onLoopback serves on a TCP socket on loopback. The server ends with the test,
// by a Shutdown that fails the test if it has to cut a session.
func onLoopback(tb testing.TB, s *Server, l Listener) *rig {
	tb.Helper()
	r := newRig(tb, s)
	socket := listenTCP(tb, "127.0.0.1:0")
	r.address = socket.Addr().String()
	r.serve(socket, l)
	return r
}

func listenTCP(tb testing.TB, address string) net.Listener {
	tb.Helper()
	socket, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { socket.Close() })
	return socket
}

func (r *rig) serve(socket net.Listener, l Listener) { r.serveDoor(r.server.Door(socket, l)) }

func (r *rig) serveDoor(door *Door) {
	ctx := context.WithoutCancel(r.Context()) // what ends it is Shutdown
	if _, ok := r.server.Policy.(deciding); ok && r.network == nil {
		r.server.Policy = prompt{r.server.Policy}
	}
	r.door = door
	go func() { r.served <- door.Serve(ctx) }()
	r.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			r.Errorf("sessions do not end when their clients and targets are gone: %v", err)
		}
		if err := <-r.served; !errors.Is(err, ErrServerClosed) {
			r.Errorf("Serve: %v, want ErrServerClosed", err)
		}
		if n := r.open(); n > 0 {
			r.Errorf("%d sessions were opened and never closed", n)
		}
		r.allClosed()
		for _, line := range r.book.all() {
			if strings.Contains(line, "a fault of the proxy itself") {
				r.Errorf("the log says %q", line)
			}
		}
	})
}

// allClosed fails the test if the server has left a connection in memory open.
func (r *rig) allClosed() {
	r.Helper()
	if r.network == nil {
		return
	}
	own := r.network.Given()
	for _, c := range r.clients {
		own = append(own, c.Peer())
	}
	for _, c := range own {
		if !c.Closed() {
			r.Errorf("the server has not closed its connection with %v", c.RemoteAddr())
		}
	}
}

// serving returns how many listeners the server serves.
func (r *rig) serving() int {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	return len(r.server.serving)
}

// client connects in memory, from host if one is named, and is closed when the
// test ends.
func (r *rig) client(host ...netip.Addr) *proxytest.Conn {
	r.Helper()
	from := append(host, clientAt)[0]
	c, err := r.in.Dial(netip.AddrPortFrom(from, uint16(r.ports.Add(1))))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	r.clients = append(r.clients, c)
	return c
}

// next returns the next end, which must have the reason that is wanted. On a
// fake clock it waits as long as it takes: synctest notices when nothing can
// come.
func (r *rig) next(want Reason) end {
	r.Helper()
	var limit <-chan time.Time
	if r.network == nil {
		limit = time.After(time.Minute)
	}
	select {
	case e := <-r.ends:
		if got := ReasonOf(e.err); got != want {
			r.Errorf("session %d ended with %q (%v), want %q", e.ID, got, e.err, want)
		}
		return e
	case <-limit:
		r.Fatalf("no session has ended, want one with %q", want)
		return end{}
	}
}

// taken returns how many of a client's bytes the server has read.
func (r *rig) taken(c *proxytest.Conn) int { return c.Peer().Taken() }

// asks is a client in memory that has sent a request.
func (r *rig) asks(request []byte, host ...netip.Addr) *proxytest.Conn {
	r.Helper()
	c := r.client(host...)
	proxytest.Say(r, c, request)
	return c
}

// relayed is a session in memory to targetAt, with its two far ends.
func (r *rig) relayed(target *proxytest.Listener) (client, far *proxytest.Conn) {
	r.Helper()
	c := r.asks(proxytest.Connect4(target.AddrPort(), "bob"))
	far = r.next4(target)
	proxytest.Granted4(r, c)
	return c, far
}

// next4 takes the next connection to a target in memory; it is closed when the
// test ends.
func (r *rig) next4(target *proxytest.Listener) *proxytest.Conn {
	r.Helper()
	far, err := target.Next()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { far.Close() })
	return far
}
