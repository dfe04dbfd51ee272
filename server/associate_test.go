//go:build unix

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

var noAddress = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)

// udpSocket opens a UDP socket that is closed when the test ends and whose reads
// end after a minute.
func udpSocket(tb testing.TB, address string) *net.UDPConn {
	tb.Helper()
	pc, err := (&net.ListenConfig{}).ListenPacket(tb.Context(), "udp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { pc.Close() })
	c, _ := pc.(*net.UDPConn)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // what fails here fails below
	return c
}

func local(c *net.UDPConn) netip.AddrPort { return udpAddrPort(c.LocalAddr()) }

func sendTo(tb testing.TB, c *net.UDPConn, b []byte, to netip.AddrPort) {
	tb.Helper()
	if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
		tb.Fatalf("sending %d bytes to %s: %v", len(b), to, err)
	}
}

// nextFrom takes the next datagram, which must be want, and returns its sender.
func nextFrom(tb testing.TB, c *net.UDPConn, want string) netip.AddrPort {
	tb.Helper()
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		tb.Fatalf("no datagram: %v", err)
	}
	if string(b[:n]) != want {
		tb.Fatalf("a datagram of %d bytes %.40q, want %d bytes %.40q", n, b[:n], len(want), want)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// nothingCame fails the test unless the socket's queue is empty.
func nothingCame(tb testing.TB, c *net.UDPConn) {
	tb.Helper()
	marker := udpSocket(tb, netip.AddrPortFrom(local(c).Addr(), 0).String())
	sendTo(tb, marker, []byte("marker"), local(c))
	nextFrom(tb, c, "marker")
}

// udpEcho answers every datagram with itself until the test ends.
func udpEcho(tb testing.TB, address string) netip.AddrPort {
	tb.Helper()
	c := udpSocket(tb, address)
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from) // the test misses it
		}
	}()
	return local(c)
}

// wrapped is a datagram for the proxy.
func wrapped(frag byte, to netip.AddrPort, payload string) []byte {
	header := socks.Datagram5{Fragment: frag, Host: socks.NewHost5(to)}
	return append(header.Append(nil), payload...)
}

func wrappedName(host string, port uint16, payload string) []byte {
	header := socks.Datagram5{Host: socks.Host5{Name: host, Port: port}}
	return append(header.Append(nil), payload...)
}

// associate is a client's side of an association.
type associate struct {
	testing.TB
	control *net.TCPConn
	*net.UDPConn
	relay netip.AddrPort // where to send to
}

// asksToAssociate is a TCP connection that has asked, and says to send from says.
func (r *rig) asksToAssociate(says netip.AddrPort) *net.TCPConn {
	r.Helper()
	c := proxytest.Dial(r, r.address)
	proxytest.Say(r, c, proxytest.Greeting5(socks.NoAuth))
	proxytest.Hear(r, c, "\x05\x00")
	proxytest.Say(r, c, proxytest.Ask5(socks.Associate, says))
	return c
}

func (r *rig) associate(says netip.AddrPort) *associate {
	r.Helper()
	c := r.asksToAssociate(says)
	return &associate{r, c, udpSocket(r, "127.0.0.1:0"), proxytest.Granted5(r, c)}
}

func (a *associate) send(datagram []byte) {
	a.Helper()
	sendTo(a, a.UDPConn, datagram, a.relay)
}

// hears takes the next datagram, which must be payload from a target.
func (a *associate) hears(from netip.AddrPort, payload string) {
	a.Helper()
	if sender := nextFrom(a, a.UDPConn, string(wrapped(0, from, payload))); sender != a.relay {
		a.Errorf("a datagram from %s, want from %s", sender, a.relay)
	}
}

// talks sends to an echo and waits for the answer.
func (a *associate) talks(echo netip.AddrPort) {
	a.Helper()
	a.send(wrapped(0, echo, "hello"))
	a.hears(echo, "hello")
}

// only returns the one session that is open.
func (w *witness) only(tb testing.TB) *Session {
	tb.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var one *Session
	for s := range w.opened {
		if !w.closed[s] {
			if one != nil {
				tb.Fatal("more than one session is open")
			}
			one = s
		}
	}
	if one == nil {
		tb.Fatal("no session is open")
	}
	return one
}

// dropped waits until the one open session has dropped n datagrams.
func (r *rig) dropped(n int64) {
	r.Helper()
	s := r.only(r)
	proxytest.Eventually(r, fmt.Sprintf("%d datagrams are dropped", n), func() bool { return s.Dropped() == n })
}

func TestAssociate(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := udpSocket(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	if want := netip.MustParseAddrPort(r.address).Addr(); a.relay.Addr() != want || a.relay.Port() == 0 {
		t.Errorf("BND %s, want a port of %s", a.relay, want)
	}
	a.send(wrapped(0, local(target), "ping"))
	back := nextFrom(t, target, "ping")
	sendTo(t, target, []byte("an answer"), back)
	a.hears(local(target), "an answer")
	sendTo(t, target, []byte("another"), back)
	a.hears(local(target), "another")
	a.control.CloseWrite()
	e := r.next(Closed)
	if e.Up() != 4 || e.Down() != 16 || e.Dropped() != 0 {
		t.Errorf("%d up, %d down, %d dropped; want 4, 16, 0", e.Up(), e.Down(), e.Dropped())
	}
	if e.Command != socks.Associate || e.Address != local(target) || e.Bound != a.relay || e.Rule != "anything" || e.To != socks.FromIP(local(target)) {
		t.Errorf("session %+v", e.Session)
	}
	proxytest.Ends(t, a.control)
}

// TestAssociateIPv6: the client's family says nothing of its targets'.
func TestAssociateIPv6(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	if c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp6", "[::1]:0"); err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	} else {
		c.Close()
	}
	six, four := udpEcho(t, "[::1]:0"), udpEcho(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	a.talks(six)
	a.talks(four)
	mapped := socks.Datagram5{Host: socks.Host5{IP: netip.AddrFrom16(four.Addr().As16()), Port: four.Port()}}
	a.send(append(mapped.Append(nil), "mapped"...))
	a.hears(four, "mapped")
}

// TestAssociateSizes: from nothing to what fits a datagram.
func TestAssociateSizes(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	echo := udpEcho(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	for _, size := range []int{0, 1, 1500, 9000, maxPayload - 10} {
		payload := strings.Repeat("x", size)
		a.send(wrapped(0, echo, payload))
		a.hears(echo, payload)
	}
	// An answer that does not fit behind its header is lost, and nothing else.
	target := udpSocket(t, "127.0.0.2:0")
	a.send(wrapped(0, local(target), "ping"))
	back := nextFrom(t, target, "ping")
	sendTo(t, target, make([]byte, maxPayload), back)
	r.dropped(1)
	a.talks(echo)
}

// TestAssociateMany: a thousand datagrams to twenty targets, in batches.
func TestAssociateMany(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	var echoes []netip.AddrPort
	for range 20 {
		echoes = append(echoes, udpEcho(t, "127.0.0.2:0"))
	}
	a := r.associate(noAddress)
	b := make([]byte, 1<<16)
	for round := range 50 {
		missing := make(map[string]bool)
		for i, echo := range echoes {
			d := wrapped(0, echo, fmt.Sprintf("%d to %d", round, i))
			missing[string(d)] = true
			a.send(d)
		}
		for len(missing) > 0 {
			n, err := a.Read(b)
			if err != nil || !missing[string(b[:n])] {
				t.Fatalf("round %d: %q, %v; missing %d", round, b[:n], err, len(missing))
			}
			delete(missing, string(b[:n]))
		}
	}
}

// TestAssociateStrangers: only the client's address and, once it is known, only
// its port is listened to.
func TestAssociateStrangers(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := udpSocket(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	stranger, neighbour := udpSocket(t, "127.0.0.3:0"), udpSocket(t, "127.0.0.1:0")

	sendTo(t, stranger, wrapped(0, local(target), "stranger"), a.relay)
	r.dropped(1)
	a.send([]byte{0, 0, 0, 9}) // and garbage does not make the port known
	sendTo(t, neighbour, []byte("garbage"), a.relay)
	r.dropped(3)
	a.send(wrapped(0, local(target), "client"))
	back := nextFrom(t, target, "client")
	sendTo(t, stranger, wrapped(0, local(target), "stranger"), a.relay)
	sendTo(t, neighbour, wrapped(0, local(target), "neighbour"), a.relay)
	r.dropped(5)
	nothingCame(t, target)
	sendTo(t, target, []byte("answer"), back)
	a.hears(local(target), "answer")
	nothingCame(t, stranger)
	nothingCame(t, neighbour)
}

// TestAssociatePort: the port that the request names counts from the beginning,
// if the address is the client's or left open.
func TestAssociatePort(t *testing.T) {
	for _, test := range []struct {
		name  string
		says  func(a, b netip.AddrPort) netip.AddrPort
		first bool // the first socket is the client
	}{
		{"port of the client's address", func(a, _ netip.AddrPort) netip.AddrPort { return a }, true},
		{"port only", func(a, _ netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(noAddress.Addr(), a.Port()) }, true},
		{"IPv6 zeros and port", func(a, _ netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
		}, true},
		{"address only", func(a, _ netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 0) }, false},
		{"an address that NAT hides", func(a, _ netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), a.Port())
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
			target := udpSocket(t, "127.0.0.2:0")
			first, second := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
			c := r.asksToAssociate(test.says(local(first), local(second)))
			relay := proxytest.Granted5(t, c)
			sendTo(t, second, wrapped(0, local(target), "second"), relay)
			if !test.first {
				nextFrom(t, target, "second")
				return
			}
			r.dropped(1)
			sendTo(t, first, wrapped(0, local(target), "first"), relay)
			nextFrom(t, target, "first")
		})
	}
}

// TestAssociateStrangeTargets: only who was written to may answer, address and port.
func TestAssociateStrangeTargets(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := udpSocket(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	a.send(wrapped(0, local(target), "ping"))
	back := nextFrom(t, target, "ping")
	sendTo(t, udpSocket(t, "127.0.0.2:0"), []byte("other port"), back)
	sendTo(t, udpSocket(t, "127.0.0.3:0"), []byte("other address"), back)
	r.dropped(2)
	sendTo(t, target, []byte("pong"), back)
	a.hears(local(target), "pong")
}

// TestAssociateMalformed: what is no datagram of section 7 goes nowhere.
func TestAssociateMalformed(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	echo := udpEcho(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	a.talks(echo)
	good := wrapped(0, echo, "")
	reserved := append([]byte{0, 1}, good[2:]...)
	bad := [][]byte{reserved, wrappedName("", 53, "x"), wrappedName("a b", 53, "x"), wrappedName("a\x00", 53, "x"), {0, 0, 0, 2, 0, 0}}
	for n := range good {
		bad = append(bad, good[:n])
	}
	for i, b := range bad {
		a.send(b)
		r.dropped(int64(i) + 1)
	}
	a.talks(echo)
}

func TestAssociateFragments(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := udpSocket(t, "127.0.0.2:0")
	to := local(target)
	a := r.associate(noAddress)
	for _, d := range [][]byte{
		wrapped(1, to, "lost"), wrapped(2, to, "lost"),
		wrapped(1, to, "a "), wrapped(2, to, "long "), wrapped(0x83, to, "story"),
		wrapped(1, to, "lost"), wrapped(0, to, "short"), wrapped(0x82, to, "lost"),
		wrapped(1, to, strings.Repeat("x", 40_000)), wrapped(0x82, to, strings.Repeat("x", maxPayload-40_000)),
	} {
		a.send(d)
	}
	nextFrom(t, target, "a long story")
	nextFrom(t, target, "short")
	nextFrom(t, target, strings.Repeat("x", maxPayload))
}

// naming grants names of a table; those that are not in it hang.
func naming(names map[string]netip.Addr) deciding {
	return func(ctx context.Context, r *Request) (Grant, error) {
		if r.Target.Name == "" {
			return anything(ctx, r)
		}
		if at, ok := names[r.Target.Name]; ok {
			return Grant{Rule: "names", Addrs: []netip.Addr{at}}, nil
		}
		<-ctx.Done()
		return Grant{}, ctx.Err()
	}
}

// TestAssociateNames: names are resolved by the policy, answers carry addresses,
// and a name that hangs holds up nobody else.
func TestAssociateNames(t *testing.T) {
	echo := udpEcho(t, "127.0.0.2:0")
	r := onLoopback(t, &Server{Policy: naming(map[string]netip.Addr{"echo.test": echo.Addr()})}, Listener{})
	a := r.associate(noAddress)
	for i := range maxDeciders - 1 {
		a.send(wrappedName(fmt.Sprintf("hangs%d.test", i), 53, "x"))
	}
	a.send(wrappedName("ECHO.test.", echo.Port(), "by name"))
	a.hears(echo, "by name")
	a.talks(echo)
	a.control.Close() // also ends the decisions
	if e := r.next(Closed); e.Rule != "names" || e.To != (socks.Addr{Name: "echo.test", Port: echo.Port()}) {
		t.Errorf("rule %q to %s, want those of the first grant", e.Rule, e.To)
	}
}

// TestAssociateWaitsForDecisions: datagrams that come while their destination is
// being decided on are sent afterwards, in order, up to the limit.
func TestAssociateWaitsForDecisions(t *testing.T) {
	asked, answer := make(chan *Request), make(chan error)
	r := onLoopback(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
		asked <- q
		return Grant{Addrs: []netip.Addr{q.Target.IP}}, <-answer
	})}, Listener{Name: "lan"})
	target, refused := udpSocket(t, "127.0.0.2:0"), udpSocket(t, "127.0.0.2:0")
	a := r.associate(noAddress)
	for i := range maxQueue + 2 {
		a.send(wrapped(0, local(target), fmt.Sprint(i)))
	}
	q := <-asked
	if q.Command != socks.Associate || q.Target != socks.FromIP(local(target)) || q.Listener != "lan" || q.Protocol != SOCKS5 ||
		q.Client != udpAddrPort(a.control.LocalAddr()) {
		t.Errorf("the policy was asked about %+v", q)
	}
	r.dropped(2)
	answer <- nil
	for i := range maxQueue {
		nextFrom(t, target, fmt.Sprint(i))
	}
	a.send(wrapped(0, local(refused), "one"))
	<-asked
	a.send(wrapped(0, local(refused), "two"))
	a.send(wrapped(0, local(target), "meanwhile"))
	nextFrom(t, target, "meanwhile")
	answer <- Denied
	r.dropped(4)
	a.send(wrapped(0, local(refused), "three")) // nobody is asked again so soon
	r.dropped(5)
	nothingCame(t, refused)
}

// TestAssociateDenied: a destination that is refused gets nothing, and a session
// that got nowhere says why.
func TestAssociateDenied(t *testing.T) {
	target := udpSocket(t, "127.0.0.2:0")
	port := local(target).Port()
	r := onLoopback(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
		if q.Target.Port == port {
			return Grant{Rule: "not there"}, Denied
		}
		return anything(ctx, q)
	})}, Listener{})
	a := r.associate(noAddress)
	a.send(wrapped(0, local(target), "x"))
	r.dropped(1)
	a.control.Close()
	if e := r.next(Denied); e.Rule != "not there" || e.Up() != 0 || e.To != socks.FromIP(local(target)) {
		t.Errorf("rule %q, to %s, %d up", e.Rule, e.To, e.Up())
	}
	a = r.associate(noAddress)
	a.send(wrapped(0, local(target), "x"))
	r.dropped(1)
	a.talks(udpEcho(t, "127.0.0.3:0"))
	a.control.Close()
	if e := r.next(Closed); e.Rule != "anything" {
		t.Errorf("rule %q", e.Rule)
	}
	nothingCame(t, target)
}

// TestAssociateGuard: whatever the rules say, nothing goes to many machines at
// once, to nobody, or to ourselves.
func TestAssociateGuard(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	a := r.associate(noAddress)
	own := netip.MustParseAddrPort(r.address)
	everywhere := udpSocket(t, "0.0.0.0:0") // hears what is broadcast on loopback
	for i, to := range []netip.AddrPort{
		netip.MustParseAddrPort("255.255.255.255:53"),
		netip.MustParseAddrPort("224.0.0.251:5353"),
		netip.MustParseAddrPort("[ff02::fb]:5353"),
		netip.MustParseAddrPort("0.0.0.0:53"),
		netip.MustParseAddrPort("0.1.2.3:53"),
		netip.MustParseAddrPort("[::]:53"),
		netip.MustParseAddrPort("127.0.0.2:0"),
		netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), local(everywhere).Port()),
		own,
		a.relay,
	} {
		a.send(wrapped(0, to, "x"))
		s := r.only(t)
		proxytest.Eventually(t, fmt.Sprintf("what is for %s is dropped", to), func() bool { return s.Dropped() == int64(i)+1 })
	}
	sendTo(t, udpSocket(t, "127.0.0.1:0"), []byte("marker"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), local(everywhere).Port()))
	nextFrom(t, everywhere, "marker")
}

// TestAssociateLoop: an association is no target, neither for itself nor for another.
func TestAssociateLoop(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	a := r.associate(noAddress)
	a.send(wrapped(0, a.relay, string(wrapped(0, a.relay, "x"))))
	r.dropped(1)
	a.control.Close()
	r.next(Loop)
}

// foreseeing is an AssociatePolicy.
type foreseeing struct {
	deciding
	may error
}

func (f foreseeing) MayAssociate(context.Context, *Request) (time.Time, error) {
	return time.Time{}, f.may
}

// narrow is an Outbound without datagrams.
type narrow struct{ Outbound }

// starved is an Outbound without descriptors for them.
type starved struct{ *direct }

func (starved) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return nil, &net.OpError{Op: "listen", Net: "udp", Err: syscall.EMFILE}
}

// TestAssociateRefused: what can be known at once is said at once.
func TestAssociateRefused(t *testing.T) {
	taken := udpSocket(t, "127.0.0.1:0")
	port := local(taken).Port()
	for _, test := range []struct {
		name     string
		server   *Server
		listener Listener
		want     Reason
		code     socks.Code5
	}{
		{"no policy", &Server{}, Listener{}, Denied, socks.NotAllowed5},
		{"no rule could match", &Server{Policy: foreseeing{anything, Denied}}, Listener{}, Denied, socks.NotAllowed5},
		{"no datagrams", &Server{Policy: deciding(anything), Outbound: narrow{&direct{}}}, Listener{}, Unsupported, socks.CommandUnsupported5},
		{"no descriptors", &Server{Policy: deciding(anything), Outbound: starved{&direct{}}}, Listener{}, Failed, socks.GeneralFailure5},
		{"no port", &Server{Policy: deciding(anything)}, Listener{BindPorts: PortRange{port, port}}, NoPort, socks.GeneralFailure5},
		{"too many", &Server{Policy: deciding(anything), Limits: Limits{Associations: -1}}, Listener{}, Busy, socks.GeneralFailure5},
		{"too many of one", &Server{Policy: deciding(anything), Limits: Limits{AssociationsPerSource: -1}}, Listener{}, Busy, socks.GeneralFailure5},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := onLoopback(t, test.server, test.listener)
			proxytest.Refused5(t, r.asksToAssociate(noAddress), test.code)
			r.next(test.want)
		})
	}
}

// TestAssociateForeseen: a policy that sees no hindrance is asked for each
// destination as any other.
func TestAssociateForeseen(t *testing.T) {
	r := onLoopback(t, &Server{Policy: foreseeing{anything, nil}}, Listener{})
	r.associate(noAddress).talks(udpEcho(t, "127.0.0.2:0"))
}

// TestAssociateDefaults are what the documentation says, and what is set stays.
func TestAssociateDefaults(t *testing.T) {
	if got := (Timeouts{}).withDefaults().Association; got != 5*time.Minute {
		t.Errorf("idle limit %v", got)
	}
	if got := (Timeouts{Association: 3}).withDefaults().Association; got != 3 {
		t.Errorf("idle limit %v, though 3 was set", got)
	}
	for connections, want := range map[int]int{1: 1, 400: 100, 1 << 20: 1024} {
		if l := (Limits{Connections: connections}).withDefaults(); l.Associations != want || l.AssociationsPerSource != 64 {
			t.Errorf("of %d connections: %d associations, %d of one source", connections, l.Associations, l.AssociationsPerSource)
		}
	}
	if l := (Limits{Associations: 3, AssociationsPerSource: 4}).withDefaults(); l.Associations != 3 || l.AssociationsPerSource != 4 {
		t.Errorf("limits %+v, though 3 and 4 were set", l)
	}
}

func TestAssociateLimit(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything), Limits: Limits{Associations: 1}}, Listener{})
	a := r.associate(noAddress)
	proxytest.Refused5(t, r.asksToAssociate(noAddress), socks.GeneralFailure5)
	r.next(Busy)
	a.control.Close()
	r.next(Closed)
	r.associate(noAddress)
}

// TestAssociateAdvertised: behind NAT the reply says what the listener's
// settings say, with a port of their range.
func TestAssociateAdvertised(t *testing.T) {
	outside := netip.MustParseAddr("203.0.113.7")
	free := udpSocket(t, "127.0.0.1:0")
	port := local(free).Port()
	free.Close()
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Advertise: outside, BindPorts: PortRange{port, port}})
	a := r.associate(noAddress)
	if want := netip.AddrPortFrom(outside, port); a.relay != want {
		t.Fatalf("BND %s, want %s", a.relay, want)
	}
	a.relay = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	a.talks(udpEcho(t, "127.0.0.2:0"))
	a.control.Close()
	if e := r.next(Closed); e.Bound != netip.AddrPortFrom(outside, port) {
		t.Errorf("bound %s", e.Bound)
	}
	udpSocket(t, a.relay.String()) // the port is free again
}

// TestAssociateEnds: in every way, and every time the port is free again.
func TestAssociateEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(r *rig, a *associate)
		want Reason
	}{
		{"FIN", func(_ *rig, a *associate) { a.control.CloseWrite() }, Closed},
		{"data, then FIN", func(_ *rig, a *associate) {
			proxytest.Say(a, a.control, bytes.Repeat([]byte("x"), 100_000))
			a.control.CloseWrite()
		}, Closed},
		{"reset", func(_ *rig, a *associate) { proxytest.Reset(a.control) }, ClientReset},
		{"idle", func(*rig, *associate) {}, Idle},
		{"shutdown", func(r *rig, _ *associate) { r.server.Close() }, Shutdown},
	} {
		t.Run(test.name, func(t *testing.T) {
			idle := time.Minute
			if test.want == Idle {
				idle = 200 * time.Millisecond
			}
			r := onLoopback(t, &Server{Policy: deciding(anything), Timeouts: Timeouts{Association: idle}}, Listener{})
			a := r.associate(noAddress)
			a.talks(udpEcho(t, "127.0.0.2:0"))
			test.end(r, a)
			r.next(test.want)
			_, _ = io.Copy(io.Discard, a.control) // until it is closed
			udpSocket(t, a.relay.String())
		})
	}
}

// TestAssociateSocketFails: a socket that fails ends its association.
func TestAssociateSocketFails(t *testing.T) {
	out := &breaking{direct: &direct{}, opened: make(chan net.PacketConn, families)}
	r := onLoopback(t, &Server{Policy: deciding(anything), Outbound: out}, Listener{})
	a := r.associate(noAddress)
	a.talks(udpEcho(t, "127.0.0.2:0")) // one datagram at a time, as the socket is none of the system's
	(<-out.opened).Close()
	if e := r.next(Failed); !errors.Is(e.err, net.ErrClosed) {
		t.Errorf("the reason %v does not say why", e.err)
	}
}

// breaking is an Outbound whose sockets the test can close.
type breaking struct {
	*direct
	opened chan net.PacketConn
}

func (b *breaking) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	c, err := b.direct.ListenPacket(ctx, network, address)
	if err == nil {
		b.opened <- c
	}
	return struct{ net.PacketConn }{c}, err
}

// TestAssociationsLeaveNothing: after 500 associations, as many at once as fit,
// there are as many goroutines and descriptors as before.
func TestAssociationsLeaveNothing(t *testing.T) {
	needs(t, 2000)
	const rounds, each = 5, 100
	r := onLoopback(t, &Server{Policy: deciding(anything), Limits: Limits{AssociationsPerSource: each}}, Listener{})
	echo := udpEcho(t, "127.0.0.2:0")
	from := udpSocket(t, "127.0.0.1:0")
	round := func() {
		var all []*associate
		for range each {
			c := r.asksToAssociate(noAddress)
			a := &associate{t, c, from, proxytest.Granted5(t, c)}
			a.talks(echo)
			all = append(all, a)
		}
		for i, a := range all {
			want := Closed
			if i%2 == 0 {
				want = ClientReset
				proxytest.Reset(a.control)
			}
			a.control.Close()
			r.next(want)
		}
	}
	round()
	before := takeVitals(t)
	for range rounds {
		round()
	}
	proxytest.Eventually(t, "goroutines and descriptors are what they were", func() bool {
		after := takeVitals(t)
		return after.goroutines <= before.goroutines && after.descriptors <= before.descriptors
	})
}
