//go:build unix

package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// mappingOf leads to targets in their order.
func mappingOf(targets ...netip.AddrPort) *Mapping {
	m := &Mapping{}
	for _, t := range targets {
		m.Targets = append(m.Targets, MapTarget{Addr: socks.FromIP(t)})
	}
	return m
}

// mapBench is a mapping for the suite, in which a client chooses its target: each
// client has a listener of its own, which is opened once it has named the target.
type mapBench struct {
	*rig
	listener Listener
	enter    func(plain proxytest.Stream) proxytest.Stream // what a client does first of all

	mu    sync.Mutex
	fates map[netip.AddrPort]bool // by client: whether its target was reached; of those whose session is over
}

// startMapping starts a mapBench for the inbound suite.
func startMapping(l Listener, enter func(proxytest.Stream) proxytest.Stream) proxytest.Start {
	return func(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
		tb.Helper()
		m := &mapBench{listener: l, enter: enter, fates: map[netip.AddrPort]bool{}}
		m.rig = newRig(tb, &Server{Policy: allowing(allow)})
		m.server.Recorder = m
		return func() proxytest.Stream { return &mapClient{mapBench: m} }
	}
}

func (m *mapBench) Closed(s *Session, reason error) {
	m.mu.Lock()
	end := s.Client
	if s.Through.IsValid() {
		end = s.Through
	}
	m.fates[end] = s.Address.IsValid()
	m.mu.Unlock()
	m.rig.Closed(s, reason)
}

// mapProtocol is that of the suite's clients: they name the target in as many
// bytes as it has, to mapClient and to nobody else.
func mapProtocol() proxytest.Protocol {
	return proxytest.Protocol{
		Name: "map", Mute: true,
		Opening: func(target netip.AddrPort) []byte {
			text, _ := target.MarshalBinary() // of an address that is valid
			return text
		},
		Answer: func(from io.Reader) (bool, error) { return from.(*mapClient).answer(), nil },
	}
}

// opening is how many bytes an address and a port of IPv4 have.
const opening = 6

// mapClient is a client that connects when it has said which target it wants.
type mapClient struct {
	*mapBench
	proxytest.Stream
	named  []byte
	plain  proxytest.Stream
	before time.Time // a deadline from before there was a connection
}

func (c *mapClient) Write(b []byte) (int, error) {
	all := len(b)
	if c.Stream == nil {
		n := min(len(b), opening-len(c.named))
		c.named, b = append(c.named, b[:n]...), b[n:]
		if len(c.named) < opening {
			return all, nil
		}
		var target netip.AddrPort
		if err := target.UnmarshalBinary(c.named); err != nil {
			return 0, err
		}
		c.connect(target)
	}
	if len(b) == 0 {
		return all, nil
	}
	n, err := c.Stream.Write(b)
	return all - len(b) + n, err
}

func (c *mapClient) connect(target netip.AddrPort) {
	socket := listenTCP(c.TB, "127.0.0.1:0")
	l := c.listener
	l.Mapping = mappingOf(target)
	c.serve(socket, l)
	c.plain = proxytest.Dial(c.TB, socket.Addr().String())
	c.Stream = c.enter(c.plain)
	_ = c.Stream.SetDeadline(c.before)
}

func (c *mapClient) SetDeadline(t time.Time) error {
	c.before = t
	if c.Stream != nil {
		return c.Stream.SetDeadline(t)
	}
	return nil
}

func (c *mapClient) SetLinger(seconds int) error {
	if c.Stream == nil {
		return nil
	}
	return c.Stream.SetLinger(seconds)
}

func (c *mapClient) Close() error {
	if c.Stream == nil {
		return nil
	}
	return c.Stream.Close()
}

// answer waits until it is known what became of the client.
func (c *mapClient) answer() (granted bool) {
	at := addrPort(c.plain.LocalAddr())
	proxytest.Eventually(c.TB, "the client's target is reached, or refused", func() bool {
		c.mu.Lock()
		reached, over := c.fates[at]
		c.mu.Unlock()
		if over {
			granted = reached
			return true
		}
		for _, s := range c.server.Sessions() {
			if now := s.Now(); (now.Client == at || now.Through == at) && now.Bound.IsValid() {
				granted = true
				return true
			}
		}
		return false
	})
	return granted
}

// TestInboundMapping: what holds for a protocol holds for a mapping.
func TestInboundMapping(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		proxytest.Inbound(t, mapProtocol(), startMapping(Listener{}, func(c proxytest.Stream) proxytest.Stream { return c }))
	})
	t.Run("TLS is taken off", func(t *testing.T) {
		ca := newAuthority(t)
		proxytest.Inbound(t, mapProtocol(), startMapping(Listener{TLS: ca.server(t)}, func(c proxytest.Stream) proxytest.Stream {
			s := secure(c, ca.client())
			if err := s.Handshake(); err != nil {
				t.Error(err)
			}
			return s
		}))
	})
	t.Run("behind a load balancer", func(t *testing.T) {
		l := Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		proxytest.Inbound(t, mapProtocol(), startMapping(l, func(c proxytest.Stream) proxytest.Stream {
			_, err := c.Write(AppendProxyHeader(nil, 2, netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("192.0.2.2:25")))
			if err != nil {
				t.Error(err)
			}
			return c
		}))
	})
}

// TestMappingTargetSpeaksFirst: nothing is waited for, and what is recorded is a
// session like any other.
func TestMappingTargetSpeaksFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{Name: "mail", Mapping: mappingOf(targetAt)})
		target := r.network.MustListen(targetAt.String())
		c := r.client()
		far := r.next4(target)
		proxytest.Say(t, far, []byte("220 hello"))
		proxytest.Hear(t, c, "220 hello")
		c.Close()
		far.Close()
		e := r.next(Closed)
		if e.Protocol != Mapped || e.Command != socks.Connect || e.Target != socks.FromIP(targetAt) || e.Address != targetAt ||
			e.Rule != "anything" || e.Identity != (Identity{}) || e.Down() != 9 {
			t.Errorf("recorded %+v, %d bytes down", e.Record, e.Down())
		}
	})
}

// chosen is a Balance with an order of its own, that remembers what it is told.
type chosen struct {
	order []int
	mu    sync.Mutex
	told  []string
}

func (c *chosen) Order(netip.Addr) []int { return c.order }

func (c *chosen) Tried(target int, err error) {
	c.tell(fmt.Sprint(target, " ", ReasonOf(err)))
}

func (c *chosen) Ended(target int) { c.tell(fmt.Sprint(target, " ended")) }

func (c *chosen) tell(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, what)
}

func (c *chosen) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.told)
}

// TestMappingFailsOver: the targets are tried in the order of the balance; each is
// decided on by itself, and what the rules say of one is not its fault.
func TestMappingFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forbidden, dead, silent := netip.MustParseAddrPort("127.0.0.3:1"), netip.MustParseAddrPort("127.0.0.4:1"), netip.MustParseAddrPort("127.0.0.5:1")
		b := &chosen{order: []int{1, 2, 3, 0}}
		m := mappingOf(targetAt, forbidden, dead, silent)
		m.Balance = b
		policy := allowing(func(a netip.AddrPort) bool { return a != forbidden })
		r := inMemory(t, &Server{Policy: policy}, Listener{Mapping: m})
		target := r.network.MustListen(targetAt.String())
		r.network.Silence(silent.Addr(), true)
		began := time.Now()
		c := r.client()
		far := r.next4(target)
		if took := time.Since(began); took != mapShare {
			t.Errorf("it took %v, want the share of the silent one", took)
		}
		c.Close()
		far.Close()
		if e := r.next(Closed); e.Address != targetAt || e.Target != socks.FromIP(targetAt) {
			t.Errorf("recorded %v, %v", e.Target, e.Address)
		}
		synctest.Wait()
		if got := b.all(); got != "[2 refused 3 timed-out 0 closed 0 ended]" {
			t.Errorf("the balance was told %s", got)
		}

		target.Close()
		proxytest.Ends(t, r.client())
		if e := r.next(Denied); e.Address.IsValid() {
			t.Errorf("recorded %v", e.Address)
		}
	})
}

// TestMappingTLS: TLS is added, and the target must be who it should.
func TestMappingTLS(t *testing.T) {
	ca := newAuthority(t)
	socket := tls.NewListener(listenTCP(t, "127.0.0.1:0"), ca.server(t))
	var targets sync.WaitGroup
	targets.Go(func() {
		for {
			c, err := socket.Accept()
			if err != nil {
				return
			}
			targets.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // ends when the client does, or its handshake fails
			})
		}
	})
	t.Cleanup(func() { socket.Close(); targets.Wait() })
	at := addrPort(socket.Addr())

	m := mappingOf(at)
	m.Targets[0].TLS = ca.client()
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Mapping: m})
	c := proxytest.Dial(t, r.address)
	talk(t, c)
	c.Close()
	r.next(Closed)

	other := mappingOf(at)
	other.Targets[0].TLS = ca.client()
	other.Targets[0].TLS.ServerName = "mail.example"
	b := &chosen{order: []int{0}}
	other.Balance = b
	r.door.Change(Listener{Mapping: other})
	proxytest.Ends(t, proxytest.Dial(t, r.address))
	e := r.next(BadReply)
	if _, ok := errors.AsType[x509.HostnameError](e.err); !ok {
		t.Errorf("it ended with %v", e.err)
	}
	if got := b.all(); got != "[0 bad-reply]" {
		t.Errorf("the balance was told %s", got)
	}
}

// TestMappingIntroduces: a target that wants it hears who the client is, before
// anything else.
func TestMappingIntroduces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mappingOf(targetAt)
		m.ProxyVersion = 1
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{Mapping: m})
		target := r.network.MustListen(targetAt.String())
		c := r.client(netip.MustParseAddr("127.0.0.9"))
		proxytest.Say(t, c, []byte("hello"))
		far := r.next4(target)
		proxytest.Hear(t, far, fmt.Sprintf("PROXY TCP4 127.0.0.9 127.0.0.1 %d 1080\r\nhello", addrPort(c.LocalAddr()).Port()))
		c.Close()
		far.Close()
		if e := r.next(Closed); e.Up() != 5 {
			t.Errorf("%d bytes up: the header is ours", e.Up())
		}
	})
}

// TestMappingUnixSockets at both ends. To the policy they are on this machine.
func TestMappingUnixSockets(t *testing.T) {
	folder := t.TempDir()
	listen := func(name string) net.Listener {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	target := listen("target")
	asked := make(chan Request, 10)
	policy := deciding(func(ctx context.Context, q *Request) (Grant, error) {
		asked <- *q
		return anything(ctx, q)
	})
	r := newRig(t, &Server{Policy: policy})
	in := listen("in")
	r.serve(in, Listener{Mapping: &Mapping{Targets: []MapTarget{{Socket: filepath.Join(folder, "target")}}}})
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", in.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := dial()
	far, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	proxytest.Say(t, c, []byte("ping"))
	proxytest.Hear(t, far, "ping")
	c.Close()
	proxytest.Ends(t, far)
	far.Close()
	here := netip.MustParseAddrPort("127.0.0.1:0")
	if e := r.next(Closed); e.Socket != target.Addr().String() || e.Client != here {
		t.Errorf("recorded the socket %q, the client %v", e.Socket, e.Client)
	}
	if q := <-asked; q.Client != here || q.Target != socks.FromIP(here) {
		t.Errorf("the policy was asked about %v to %v", q.Client, q.Target)
	}
	target.Close()
	proxytest.Ends(t, dial())
	if e := r.next(Unreachable); e.Socket == "" {
		t.Error("the record has no socket")
	}
}

// TestMappingToNowhere: a door that could lead nowhere is not served.
func TestMappingToNowhere(t *testing.T) {
	s := &Server{Policy: deciding(anything)}
	defer s.Close()
	in := udpSocket(t, "127.0.0.1:0")
	for want, d := range map[error]*Door{
		errEmptyMapping: s.Door(listenTCP(t, "127.0.0.1:0"), Listener{Mapping: &Mapping{}}),
		errNoMapping:    s.PacketDoor(in, Listener{}),
	} {
		if err := d.Serve(t.Context()); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if err := s.PacketDoor(in, Listener{Mapping: &Mapping{}}).Serve(t.Context()); !errors.Is(err, errEmptyMapping) {
		t.Errorf("of datagrams: %v", err)
	}
}
