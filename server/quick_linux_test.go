package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// conversation is what one client does, and what it is to be told.
type conversation struct {
	opening []byte // all that it sends before it waits for the end
	cuts    []int  // where that is sent in pieces
	fin     bool   // it says FIN behind that
	behind  bool   // it comes through a load balancer
	mapping int    // it comes to this one of the mappings; 0: to a proxy
}

func (c conversation) String() string {
	return fmt.Sprintf("%.600q (%d bytes), cut at %v, FIN %v, behind a load balancer %v, mapping %d", c.opening, len(c.opening), c.cuts, c.fin, c.behind, c.mapping)
}

// bothWays is a server that is asked twice: on loops, and in goroutines.
type bothWays struct {
	*testing.T
	*rand.Rand
	rigs   [2]*rig
	behind [2]*rig   // a load balancer
	mapped [][2]*rig // port mappings
	echo   netip.AddrPort
	closed netip.AddrPort // refuses
	resets netip.AddrPort // resets whoever connects, once it has said something
}

// policy grants what is on this machine but for port 7, and knows it at once but for the
// name host.example and the user "slow".
func (b *bothWays) policy() deciding {
	return func(ctx context.Context, r *Request) (Grant, error) {
		switch {
		case r.Target.Port == 7, r.Target.IP.IsValid() && !r.Target.IP.IsLoopback():
			return Grant{Rule: "port 7"}, Denied
		case r.Target.Name == "none.example":
			return Grant{Rule: "names"}, NoName
		case r.Target.Name == "many.example": // of which only the last answers
			return Grant{Rule: "names", Addrs: addrs("127.0.0.77", "::1", "127.0.0.1")}, nil
		case r.Target.Name != "":
			return Grant{Rule: "names", Addrs: addrs("127.0.0.1")}, nil
		}
		return anything(ctx, r)
	}
}

// unhurried knows some things at once.
type unhurried struct{ Policy }

func (u unhurried) DecideNow(r *Request) (Grant, bool, error) {
	if r.Target.Name == "host.example" || r.Identity.Name == "slow" {
		return Grant{}, false, nil
	}
	return prompt(u).DecideNow(r)
}

func newBothWays(t *testing.T, random *rand.Rand) *bothWays {
	b := &bothWays{T: t, Rand: random, echo: proxytest.Echo(t, "127.0.0.1"), closed: proxytest.Nowhere(t)}
	for i, p := range []Policy{unhurried{b.policy()}, deliberate{b.policy()}} {
		l := Listener{HideAddress: true, MaxUserID: 20}
		b.rigs[i] = onLoopback(t, &Server{Policy: p, Authenticator: door{login: LoginOptional}, Timeouts: Timeouts{Handshake: time.Second}}, l)
		l.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		b.behind[i] = onLoopback(t, &Server{Policy: p, Authenticator: door{login: LoginOptional}, Timeouts: Timeouts{Handshake: time.Second}}, l)
	}
	resets := listenTCP(t, "127.0.0.1:0")

	b.resets = addrPort(resets.Addr())
	go func() {
		for {
			c, err := resets.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = c.Read(make([]byte, 1))
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}()
		}
	}()
	b.startMappings()
	return b
}

// host is a name of this machine, or of none.
func (b *bothWays) host() string {
	return []string{"host.example", "many.example", "once.example", "none.example"}[b.IntN(4)]
}

// opening makes what a client of some protocol says.
func (b *bothWays) opening(to netip.AddrPort, command socks.Command) (said []byte) {
	user := []string{"", "bob", "slow", strings.Repeat("u", 30)}[b.IntN(4)]
	switch b.IntN(12) {
	case 0, 1:
		said = proxytest.Connect4(to, user)
		said[1] = byte(command)
	case 2:
		said = proxytest.Connect4a(b.host(), to.Port(), user)
		said[1] = byte(command)
	case 3, 4:
		said = append(proxytest.Greeting5(socks.NoAuth), proxytest.Ask5(command, to)...)
	case 5:
		password := []string{"secret", "hunter"}[b.IntN(2)]
		said = append(append(proxytest.Greeting5(socks.Password), proxytest.Login5("fred", password)...), proxytest.Ask5(command, to)...)
	case 6:
		said = append(proxytest.Greeting5(socks.NoAuth), proxytest.AskName5(command, b.host(), to.Port())...)
	default:
		return b.openingHTTP(to)
	}
	if b.IntN(10) == 0 {
		at := []int{0, 2, 3, 6}[b.IntN(4)]
		if said[0] == socks.Version4 { // no other port, which could be that of a server of this test
			at = []int{0, 6}[b.IntN(2)]
		}
		said[at] ^= byte(1 << b.IntN(8)) // garbage, mostly; but no other command
	}
	return said
}

// next makes a conversation whose end does not depend on who is faster.
func (b *bothWays) next() conversation {
	targets := []netip.AddrPort{b.echo, b.echo, b.echo, b.closed, netip.MustParseAddrPort("127.0.0.1:7"), b.resets, netip.AddrPortFrom(b.echo.Addr(), 0)}
	c := conversation{opening: b.opening(targets[b.IntN(len(targets))], socks.Connect), fin: true}
	if b.IntN(4) == 0 {
		c.opening, c.mapping = []byte{}, 1+b.IntN(len(b.mapped))
	}
	switch b.IntN(10) {
	case 0:
		c.opening = c.opening[:b.IntN(len(c.opening)+1)]
	case 1:
		if c.mapping > 0 {
			break
		}
		c = conversation{opening: b.opening(b.echo, socks.Command(9))}
		c.fin = beginsMethod(c.opening[0]) // else it is refused
	default:
		c.opening = append(c.opening, bytes.Repeat([]byte("x"), []int{1, 10, 2000, 100_000}[b.IntN(4)])...)
	}
	if c.behind = b.IntN(4) == 0 && c.mapping == 0; c.behind {
		header := "PROXY TCP4 192.0.2.1 198.51.100.7 40122 1080\r\n"
		c.opening = append([]byte(header[b.IntN(20)/19:]), c.opening...) // once in a while it is none
	}
	for range b.IntN(4) {
		cut := b.IntN(len(c.opening) + 1)
		if bytes.HasSuffix(c.opening[:cut], []byte("\r\n\r\n")) {
			continue // whether a refused client may go on depends on whether more of it is there already
		}
		c.cuts = append(c.cuts, cut)
	}
	return c
}

// hold has the conversation with one of the two, and tells what was seen.
func (b *bothWays) hold(r *rig, c conversation) string {
	conn := proxytest.Dial(b, r.address)
	defer conn.Close()
	go func() {
		at := 0
		for _, cut := range c.cuts {
			if cut > at {
				_, _ = conn.Write(c.opening[at:cut]) // a proxy that refuses need not listen to the end
				at = cut
			}
		}
		_, _ = conn.Write(c.opening[at:])
		if c.fin {
			_ = conn.CloseWrite()
		}
	}()
	heard, how := proxytest.End(conn)
	if errors.Is(how, syscall.ECONNRESET) {
		how = syscall.ECONNRESET
	}
	conn.Close()
	ends := r.allEnds(c)
	said := fmt.Sprintf("heard %d bytes, %.600q, then %v\n", len(heard), heard, how)
	switch ReasonOf(ends[len(ends)-1].err) {
	case Garbage: // whose end is a reset where some of it came late
		said = fmt.Sprintf("heard %q\n", heard)
	case TargetReset: // how much arrived before depends on who was faster
		said = ""
	}
	for _, e := range ends {
		said += recorded(e)
	}
	return said
}

// recorded is what a recorder is told of a session, without what differs from one to the
// next.
func recorded(e end) string {
	reason := ReasonOf(e.err)
	record := e.Record
	record.ID, record.Started, record.Bound = 0, time.Time{}, netip.AddrPort{}
	record.Client, record.Through = withoutOurPort(record.Client), withoutOurPort(record.Through)
	moved := fmt.Sprintf("%d up, %d down", e.Up(), e.Down())
	if reason == TargetReset {
		moved = ""
	}
	var why string
	if reason == Refused {
		why = e.err.Error()
	}
	return fmt.Sprintf("%+v\n%s, reason %q %s\n", record, moved, reason, why)
}

// withoutOurPort leaves the port out that the system has chosen.
func withoutOurPort(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsLoopback() {
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

// nextEnd is next for any reason.
func (r *rig) nextEnd(of any) end {
	select {
	case e := <-r.ends:
		return e
	case <-time.After(time.Minute):
		r.Fatalf("no session has ended: %v", of)
		return end{}
	}
}

// allEnds are those of the sessions of the one connection that there was.
func (r *rig) allEnds(of any) []end {
	all := []end{r.nextEnd(of)}
	proxytest.Eventually(r, "the connection is over", func() bool { return r.server.state.open.Load() == 0 })
	for {
		select {
		case e := <-r.ends:
			all = append(all, e)
		default:
			return all
		}
	}
}

// TestBothWays: whether a session is served on a loop or in a goroutine, its client
// and the recorder see the same.
func TestBothWays(t *testing.T) {
	seed := rand.Uint64()
	b := newBothWays(t, rand.New(rand.NewPCG(seed, 0)))
	seen := map[Reason]int{}
	for range 600 {
		c := b.next()
		rigs := b.rigs
		switch {
		case c.behind:
			rigs = b.behind
		case c.mapping > 0:
			rigs = b.mapped[c.mapping-1]
		}
		loop, goroutine := b.hold(rigs[0], c), b.hold(rigs[1], c)
		if loop != goroutine {
			t.Fatalf("%v\non a loop: %s\nin a goroutine: %s\n(seed %d)", c, loop, goroutine, seed)
		}
		for part := range strings.SplitSeq(loop, "reason \"") {
			word, _, _ := strings.Cut(part, "\"")
			seen[Reason(word)]++
		}
	}
	b.balances()
	for _, reason := range []Reason{Closed, Denied, Refused, TargetReset, BadRequest, BadLogin, NoName, ClientGone} {
		if seen[reason] == 0 {
			t.Errorf("none of the conversations ended with %q: %v (seed %d)", reason, seen, seed)
		}
	}
}

// quickSession is a client of SOCKS 5 that has come to its target.
func quickSession(t *testing.T, r *rig, target *proxytest.Target) (client, far *net.TCPConn) {
	t.Helper()
	client = proxytest.Dial(t, r.address)
	proxytest.Say(t, client, proxytest.Greeting5(socks.NoAuth))
	proxytest.Hear(t, client, choseNone)
	proxytest.Say(t, client, proxytest.Ask5(socks.Connect, target.Addr()))
	far = target.Next(t)
	proxytest.Granted5(t, client)
	return client, far
}

// TestQuickSessionsHold: a session on a loop has two descriptors and no goroutine,
// from its first byte to its last.
func TestQuickSessionsHold(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	for range 12 {
		quickSession(t, r, target) // starts what all share, loops among it
	}
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	var clients, fars []*net.TCPConn
	const sessions = 20
	for range sessions {
		c, far := quickSession(t, r, target)
		clients, fars = append(clients, c), append(fars, far)
	}
	for range sessions {
		clients = append(clients, proxytest.Dial(t, r.address)) // in its handshake
	}
	proxytest.Eventually(t, "all were accepted", func() bool { return r.server.state.open.Load() == 2*sessions+12 })
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines more for %d sessions", n-goroutines, 2*sessions)
	}
	// Of each session the test has as many as the server.
	if n := openDescriptors(t) - descriptors; n != 4*sessions+2*sessions {
		t.Errorf("%d descriptors more, want %d", n, 6*sessions)
	}
	for _, c := range append(clients, fars...) {
		c.Close()
	}
	for range 2 * sessions {
		r.nextEnd("of those that were closed")
	}
}

// openDescriptors counts those of the process.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestQuickLimits: a client that is slow in its handshake is sent away without a word.
func TestQuickLimits(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything), Limits: Limits{Handshakes: 2}, Timeouts: Timeouts{Handshake: 50 * time.Millisecond}}, Listener{})
	first := proxytest.Dial(t, r.address)
	proxytest.Say(t, first, []byte{5})
	r.next(HandshakeSlow)
	if rest, how := proxytest.End(first); len(rest) > 0 || how != nil {
		t.Errorf("%q, %v; want silence, then FIN", rest, how)
	}
}

// TestListenerClosed: whoever owns the socket may close it, and Serve notices.
func TestListenerClosed(t *testing.T) {
	s := &Server{Policy: prompt{deciding(anything)}}
	socket := listenTCP(t, "127.0.0.1:0")
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), socket, Listener{}) }()
	proxytest.Dial(t, socket.Addr().String()).Close()
	socket.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v, want net.ErrClosed", err)
	}
	s.Close()
}

// stuckTarget is an address that never answers.
func stuckTarget(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, address := bareListener(t)
	_ = unix.Close(fd)
	stuckAt(t, address)
	return address
}

// stuckAt sees to it that an address never answers: its queue is full.
func stuckAt(t *testing.T, address netip.AddrPort) {
	t.Helper()
	fd := bareSocket(t)
	t.Cleanup(func() { _ = unix.Close(fd) })
	err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()})
	if err = errors.Join(err, unix.Listen(fd, 0)); err != nil { // a queue of one
		t.Fatal(err)
	}
	proxytest.Dial(t, address.String())
}

// TestSlowAddress: where one of several addresses does not answer soon, the others are
// tried as well.
func TestSlowAddress(t *testing.T) {
	echo := proxytest.Echo(t, "127.0.0.1")
	slow := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), echo.Port())
	stuckAt(t, slow)
	policy := deciding(func(context.Context, *Request) (Grant, error) {
		return Grant{Addrs: []netip.Addr{slow.Addr(), echo.Addr()}}, nil
	})
	r := onLoopback(t, &Server{Policy: policy}, Listener{})
	c := proxytest.Dial(t, r.address)
	proxytest.Say(t, c, proxytest.Connect4a("host.example", echo.Port(), ""))
	proxytest.Granted4(t, c)
	talk(t, c)
	c.Close()
	if e := r.next(Closed); e.Address != echo {
		t.Errorf("it came to %v, want %v", e.Address, echo)
	}
}

// TestQuickWaits for a target that does not answer: until the limit, or the session
// is ended, or its client resets.
func TestQuickWaits(t *testing.T) {
	stuck := stuckTarget(t)
	r := onLoopback(t, &Server{Policy: deciding(anything), Timeouts: Timeouts{Connect: 300 * time.Millisecond}}, Listener{})
	asks := func() *net.TCPConn {
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, proxytest.Connect4(stuck, "bob"))
		return c
	}
	c := asks()
	proxytest.Refused4(t, c, 91)
	c.Close()
	r.next(TimedOut)

	r.server.SetTimeouts(Timeouts{})
	c = asks()
	proxytest.Eventually(t, "it is open", func() bool { return len(r.server.Sessions()) == 1 })
	r.server.Sessions()[0].End(Revoked)
	proxytest.Refused4(t, c, 91)
	c.Close()
	r.next(Revoked)

	c = asks()
	proxytest.Eventually(t, "it is open", func() bool { return len(r.server.Sessions()) == 1 })
	_ = c.SetLinger(0)
	c.Close()
	if e := r.next(ClientReset); e.Address.IsValid() {
		t.Errorf("it came to %v", e.Address)
	}
}

// TestQuickAllocates little for a session: the quick, the session, what its end needs, what was
// asked, and what was granted. The test's own two ends are among what is counted.
func TestQuickAllocates(t *testing.T) {
	if testing.Short() {
		t.Skip("counts what the whole process allocates")
	}
	const granted5 = "\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01"
	for name, way := range map[string]struct {
		speaks func(to netip.AddrPort) (m *Mapping, ask []byte, answer string)
		most   uint64
	}{
		"SOCKS 4": {func(to netip.AddrPort) (*Mapping, []byte, string) {
			return nil, proxytest.Connect4(to, ""), granted4
		}, 10},
		"SOCKS 5": {func(to netip.AddrPort) (*Mapping, []byte, string) {
			return nil, append(proxytest.Greeting5(socks.NoAuth), proxytest.Ask5(socks.Connect, to)...), granted5
		}, 10},
		"HTTP": {func(to netip.AddrPort) (*Mapping, []byte, string) {
			return nil, fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to), established
		}, 16},
		"mapping": {func(to netip.AddrPort) (*Mapping, []byte, string) { return mappingOf(to), nil, "" }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			fd, address := bareListener(t)
			defer unix.Close(fd)
			mapping, ask, answer := way.speaks(address)
			r := onLoopback(t, &Server{Policy: prompt{deciding(anything)}, Recorder: nobody{}}, Listener{Mapping: mapping})
			at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(r.address))
			sessions := func(count int) {
				for range count {
					client, far := bareSession(t, at, fd, ask, answer)
					_ = unix.Close(client)
					_ = unix.Close(far)
				}
			}
			const counted = 200
			sessions(counted)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			sessions(counted)
			runtime.ReadMemStats(&after)
			n := (after.Mallocs - before.Mallocs) / counted
			t.Logf("%d allocations, %d bytes a session", n, (after.TotalAlloc-before.TotalAlloc)/counted)
			if n > way.most {
				t.Errorf("%d allocations a session, want at most %d", n, way.most)
			}
		})
	}
}
