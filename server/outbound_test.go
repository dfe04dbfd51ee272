package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// passing is an Upstream that hands out what a test gives it, and keeps what it
// was asked for.
type passing struct {
	conn     net.Conn
	listener net.Listener
	packets  func() net.PacketConn
	err      error

	mu    sync.Mutex
	asked []Departure
}

func (p *passing) note(d Departure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, d)
}

func (p *passing) last() Departure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[len(p.asked)-1]
}

func (p *passing) Connect(_ context.Context, d Departure) (net.Conn, string, error) {
	p.note(d)
	return p.conn, "a proxy", p.err
}

func (p *passing) Bind(_ context.Context, d Departure) (net.Listener, string, error) {
	p.note(d)
	return p.listener, "another proxy", p.err
}

func (p *passing) Associate(_ context.Context, d Departure) (net.PacketConn, string, error) {
	p.note(d)
	if p.err != nil {
		return nil, "", p.err
	}
	return p.packets(), "a proxy", nil
}

// granting is a Policy that lets everything leave by w: an address as it is, a
// name by its name.
func granting(w *Way, o BindOptions) deciding {
	return func(_ context.Context, r *Request) (Grant, error) {
		g := Grant{Rule: "via", Way: w, Bind: o, ByName: r.Target.Name != ""}
		if r.Target.IP.IsValid() {
			g.Addrs = []netip.Addr{r.Target.IP}
		}
		return g, nil
	}
}

var farAt = netip.MustParseAddrPort("198.51.100.7:80")

func TestUpstreamConnect(t *testing.T) {
	for _, named := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			near, far := proxytest.Pipe(netip.MustParseAddrPort("10.0.0.1:1"), farAt, 64<<10)
			defer far.Close()
			up := &passing{conn: near}
			r := inMemory(t, &Server{Policy: granting(&Way{Via: "hq", Upstream: up}, BindOptions{})}, Listener{})
			request, want := proxytest.Connect4(farAt, "bob"), Departure{Target: socks.FromIP(farAt), Addrs: []netip.AddrPort{farAt}}
			if named {
				request, want = proxytest.Connect4a("inside.example", 80, "bob"), Departure{Target: socks.Addr{Name: "inside.example", Port: 80}}
			}
			c := r.asks(request)
			proxytest.Granted4(t, c)
			proxytest.Say(t, c, []byte("up"))
			proxytest.Hear(t, far, "up")
			got := up.last()
			if got.Client != addrPort(c.LocalAddr()) || got.Local != proxyAt || got.Target != want.Target || len(got.Addrs) != len(want.Addrs) {
				t.Errorf("asked for %+v, want %+v", got, want)
			}
			c.Close()
			far.Close()
			e := r.next(Closed)
			if e.Via != "hq" || e.Proxy != "a proxy" {
				t.Errorf("via %q, proxy %q", e.Via, e.Proxy)
			}
			if len(r.network.Dialled()) > 0 {
				t.Error("the target was dialled from here")
			}
			if !near.Closed() {
				t.Error("the connection was not closed")
			}
		})
	}
}

// TestByNameNeedsAnUpstream: a name goes nowhere by a way that cannot look it up.
func TestByNameNeedsAnUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: granting(nil, BindOptions{PrimaryOptional: true})}, Listener{})
		proxytest.Refused4(t, r.asks(proxytest.Connect4a("inside.example", 80, "bob")), socks.Rejected4)
		r.next(Denied)
		proxytest.Refused4(t, r.asks(proxytest.Bind4a("inside.example", 80, "bob")), socks.Rejected4)
		r.next(BadRequest)
	})
}

// TestUpstreamRefuses: the reason that an upstream gives is the session's, and its
// own has a word too.
func TestUpstreamRefuses(t *testing.T) {
	for reason, code := range map[Reason]socks.Code5{
		UpstreamFailed: socks.GeneralFailure5, Refused: socks.Refused5, Denied: socks.NotAllowed5, Unreachable: socks.HostUnreachable5,
	} {
		synctest.Test(t, func(t *testing.T) {
			up := &passing{err: errors.Join(errors.New("why"), reason)}
			r := inMemory(t, &Server{Policy: granting(&Way{Via: "hq", Upstream: up}, BindOptions{PrimaryOptional: true})}, Listener{})
			for _, command := range []socks.Command{socks.Connect, socks.Bind} {
				c := r.asks(proxytest.Greeting5(socks.NoAuth))
				proxytest.Hear(t, c, "\x05\x00")
				proxytest.Say(t, c, proxytest.Ask5(command, farAt))
				proxytest.Refused5(t, c, code)
				r.next(reason)
			}
		})
	}
}

// TestUpstreamBind: the first reply says where the upstream waits, whatever the
// listener advertises, and the second who came; the proxy of the primary is named.
func TestUpstreamBind(t *testing.T) {
	const named = "inside.example"
	for _, test := range []struct {
		name          string
		connect, bind []byte
		peer          string // who comes
		want          Reason
	}{
		{"the right peer", proxytest.Connect4(farAt, "bob"), proxytest.Bind4(farAt, "bob"), "198.51.100.7:20", Closed},
		{"a stranger", proxytest.Connect4(farAt, "bob"), proxytest.Bind4(farAt, "bob"), "198.51.100.8:20", WrongPeer},
		{"by name", proxytest.Connect4a(named, 80, "bob"), proxytest.Bind4a(named, 80, "bob"), "198.51.100.8:20", Closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				away := proxytest.NewNetwork(netip.MustParseAddr("10.0.0.1"), 64<<10)
				waits := away.MustListen("203.0.113.1:4000")
				near, far := proxytest.Pipe(netip.MustParseAddrPort("10.0.0.1:1"), farAt, 64<<10)
				defer far.Close()
				up := &passing{conn: near, listener: waits}
				if test.name == "by name" {
					up.conn = nameless{near}
				}
				r := inMemory(t, &Server{Policy: granting(&Way{Via: "hq", Upstream: up}, BindOptions{WaitForRightPeer: true})},
					Listener{Advertise: netip.MustParseAddr("192.0.2.9")})
				proxytest.Granted4(t, r.asks(test.connect))
				c := r.asks(test.bind)
				if got := proxytest.Granted4(t, c); got != waits.AddrPort() {
					t.Errorf("the first reply says %v", got)
				}
				if got := up.last(); got.Proxy != "a proxy" {
					t.Errorf("asked for %+v, want the proxy of the primary", got)
				}
				r.bringsPeer(waits, test.peer, c, test.want)
				if e := r.next(test.want); e.Primary != "held" || e.Proxy != "another proxy" || e.Bound != waits.AddrPort() {
					t.Errorf("primary %q, proxy %q, bound %v", e.Primary, e.Proxy, e.Bound)
				}
				r.clients[0].Close()
				far.Close()
				r.next(Closed)
			})
		})
	}
}

// bringsPeer has a peer come to where a BIND waits, and wants it relayed, where that is
// the end that is wanted, or else refused.
func (r *rig) bringsPeer(waits *proxytest.Listener, from string, c *proxytest.Conn, want Reason) {
	r.Helper()
	peer, err := waits.Dial(netip.MustParseAddrPort(from))
	if err != nil {
		r.Fatal(err)
	}
	defer peer.Close()
	if want != Closed {
		proxytest.Refused4(r, c, socks.Rejected4)
		return
	}
	if got := proxytest.Granted4(r, c); got.String() != from {
		r.Errorf("the second reply says %v", got)
	}
	proxytest.Say(r, peer, []byte("hello"))
	proxytest.Hear(r, c, "hello")
	c.Close()
}

// nameless is a connection to a target of which only the name is known.
type nameless struct{ *proxytest.Conn }

func (nameless) RemoteAddr() net.Addr { return nil }
