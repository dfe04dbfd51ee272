package access

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// nameServer answers on loopback, with one IPv4 address or a code.
type nameServer struct {
	at    netip.AddrPort
	code  dnsmessage.RCode
	names chan string // what it was asked for, A only
	count atomic.Int32
}

// startNameServer runs one until the test ends. Silent, it never answers.
func startNameServer(t *testing.T, code dnsmessage.RCode, silent bool) *nameServer {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	s := &nameServer{at: netip.MustParseAddrPort(c.LocalAddr().String()), code: code, names: make(chan string, 100)}
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := s.reply(buf[:n]); err == nil && !silent {
				_, _ = c.WriteTo(reply, from) // the client asks again
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return s
}

func (s *nameServer) reply(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil, errors.New("no question")
	}
	s.count.Add(1)
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: s.code}
	m.Additionals = nil
	if q.Type == dnsmessage.TypeA {
		s.names <- q.Name.String()
		if s.code == dnsmessage.RCodeSuccess {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: cached.As4()},
			}}
		}
	}
	return m.Pack()
}

func TestNameServers(t *testing.T) {
	good := startNameServer(t, dnsmessage.RCodeSuccess, false)
	none := startNameServer(t, dnsmessage.RCodeNameError, false)
	fails := startNameServer(t, dnsmessage.RCodeServerFailure, false)
	refuses := startNameServer(t, dnsmessage.RCodeRefused, false)
	for _, test := range []struct {
		name    string
		servers []*nameServer
		found   bool
	}{
		{"one", []*nameServer{good}, true},
		{"the first that can tell", []*nameServer{fails, refuses, good, none}, true},
		{"that there is none is an answer", []*nameServer{none, good}, false},
		{"none can tell", []*nameServer{fails, refuses}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var at []netip.AddrPort
			for _, s := range test.servers {
				at = append(at, s.at)
			}
			addrs, err := NewNameServers(at).LookupNetIP(t.Context(), "ip", "www.no-such-host.example")
			if test.found && (err != nil || !slices.Equal(addrs, []netip.Addr{cached})) || !test.found && err == nil {
				t.Errorf("%v, %v", addrs, err)
			}
		})
	}
	for len(good.names) > 0 {
		if name := <-good.names; name != "www.no-such-host.example." {
			t.Errorf("it was asked for %q", name)
		}
	}
}

// TestNameServersGoOn: the server that answered last is asked first.
func TestNameServersGoOn(t *testing.T) {
	fails, good := startNameServer(t, dnsmessage.RCodeServerFailure, false), startNameServer(t, dnsmessage.RCodeSuccess, false)
	n := NewNameServers([]netip.AddrPort{fails.at, good.at})
	var first int32
	for i := range 3 {
		if _, err := n.LookupNetIP(t.Context(), "ip", "a.example"); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = fails.count.Load()
		}
	}
	if got := fails.count.Load(); first == 0 || got != first {
		t.Errorf("the one that fails was asked %d times for the first name, then %d", first, got-first)
	}
}

// TestNameServersEnd: a server that says nothing holds nobody longer than it
// wants to wait.
func TestNameServersEnd(t *testing.T) {
	silent := startNameServer(t, dnsmessage.RCodeSuccess, true)
	n := NewNameServers([]netip.AddrPort{silent.at, silent.at})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, server.ClientGone)
	defer cancel()
	if _, err := n.LookupNetIP(ctx, "ip", "a.example"); !errors.Is(err, server.ClientGone) {
		t.Errorf("%v, want the cause", err)
	}
}

// TestNameServersAndRules: what a name server says is judged, from the cache too.
func TestNameServersAndRules(t *testing.T) {
	good := startNameServer(t, dnsmessage.RCodeSuccess, false)
	p := NewPolicy(
		[]Rule{{Name: "there", To: []Destination{{Network: Network{Prefix: netip.MustParsePrefix("192.0.2.0/29")}}}}},
		Options{Resolver: NewCache(NewNameServers([]netip.AddrPort{good.at}), time.Hour)},
	)
	for range 3 {
		r := &server.Request{Protocol: server.SOCKS4a, Command: socks.Connect, Target: socks.Addr{Name: "a.example", Port: 80}, Client: netip.MustParseAddrPort("127.0.0.1:1")}
		grant, err := p.Decide(t.Context(), r)
		if err != nil || !slices.Equal(grant.Addrs, []netip.Addr{cached}) {
			t.Errorf("%v, %v", grant, err)
		}
	}
	if got := len(good.names); got != 1 {
		t.Errorf("the name server was asked %d times, want once", got)
	}
}

// TestIdentOfARelayedClient: behind a load balancer no identd is asked.
func TestIdentOfARelayedClient(t *testing.T) {
	p := NewPolicy([]Rule{{Name: "known", Users: &Users{Any: true}, Proofs: []server.Proof{server.Ident}, To: []Destination{{Network: Network{Class: Any}}}}}, Options{})
	r := &server.Request{
		Protocol: server.SOCKS4, Command: socks.Connect, Target: socks.Addr{IP: cached, Port: 80}, Relayed: true,
		Identity: server.Identity{Name: "bob", Proof: server.Claimed},
		// Asking there would hang, or fail in another way.
		Client: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("198.51.100.7:1080"),
	}
	_, err := p.Decide(t.Context(), r)
	if !errors.Is(err, server.NoIdentd) || !errors.Is(err, errRelayed) {
		t.Errorf("%v", err)
	}
}
