package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// freely grants every BIND, with no primary connection.
var freely = binding(BindOptions{PrimaryOptional: true})

// waits is a client in memory whose BIND for targetAt has its first reply, and
// where it waits.
func (r *rig) waits(host ...netip.Addr) (*proxytest.Conn, netip.AddrPort) {
	r.Helper()
	c := r.asks(proxytest.Bind4(targetAt, "bob"), host...)
	return c, proxytest.Granted4(r, c)
}

// comes lets a peer connect in memory; its connection is closed when the test ends.
func (r *rig) comes(from string, to netip.AddrPort) *proxytest.Conn {
	r.Helper()
	c, err := r.network.DialFrom(netip.MustParseAddrPort(from), to)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return c
}

// hasNoSocket fails the test if a BIND's socket is open.
func (r *rig) hasNoSocket() {
	r.Helper()
	if open := r.network.Listening(proxyAt, targetAt); len(open) > 0 {
		r.Errorf("still listening: %v", open)
	}
}

// TestBindSequence is the paper's, on real sockets: a primary connection, BIND,
// the call of the application server, and what follows.
func TestBindSequence(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	server := proxytest.NewTarget(t, "127.0.0.2")
	primary := proxytest.Dial(t, r.address)
	proxytest.Say(t, primary, proxytest.Connect4(server.Addr(), "bob"))
	proxytest.Granted4(t, primary)

	c := proxytest.Dial(t, r.address)
	proxytest.Say(t, c, proxytest.Bind4(server.Addr(), "bob"))
	at := proxytest.Granted4(t, c)
	if at.Addr() != clientAt || at.Port() == 0 {
		t.Fatalf("the first reply says %v; want the address that routes to the server, and a port", at)
	}
	peer := proxytest.DialFrom(t, "127.0.0.2", at.String())
	if got := proxytest.Granted4(t, c); got != addrPort(peer.LocalAddr()) {
		t.Errorf("the second reply says %v, want the peer's %v", got, peer.LocalAddr())
	}
	if second, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a second connection to the port: %v, %v; want refused", second, err)
	}
	listenTCP(t, at.String()) // the port is free

	proxytest.Say(t, c, []byte("up"))
	proxytest.Hear(t, peer, "up")
	proxytest.Say(t, peer, []byte("down"))
	_ = peer.CloseWrite()
	proxytest.Hear(t, c, "down")
	proxytest.Ends(t, c)
	proxytest.Say(t, c, []byte("still up"))
	c.Close()
	proxytest.Hear(t, peer, "still up")
	proxytest.Ends(t, peer)
	e := r.next(Closed)
	if e.Primary != "held" || e.Address != addrPort(peer.LocalAddr()) || e.Bound != at || e.Up() != 10 || e.Down() != 4 {
		t.Errorf("recorded: primary %q, address %v, bound %v (want %v), %d up, %d down", e.Primary, e.Address, e.Bound, at, e.Up(), e.Down())
	}
}

// TestBindListensBeforeItAnswers: whoever has the first reply can be called.
func TestBindListensBeforeItAnswers(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			network := proxytest.NewNetwork(clientAt, 100)
			goOn := make(chan struct{})
			r := inMemory(t, &Server{Policy: freely, Outbound: listening(func(ctx context.Context, address string) (net.Listener, error) {
				<-goOn
				if fails {
					return nil, syscall.EADDRINUSE
				}
				return network.Listen(ctx, "tcp", address)
			})}, Listener{})
			c := r.asks(proxytest.Bind4(targetAt, "bob"))
			synctest.Wait()
			if n := c.Unread(); n > 0 {
				t.Fatalf("%d bytes of reply before it listens", n)
			}
			close(goOn)
			if fails {
				proxytest.Refused4(t, c, socks.Rejected4)
				r.next(NoPort)
				return
			}
			if at := proxytest.Granted4(t, c); len(network.Listening()) != 1 || network.Listening()[0] != at {
				t.Errorf("told %v, listening on %v", at, network.Listening())
			}
		})
	}
}

// listening is an Outbound whose way of listening is a function.
type listening func(ctx context.Context, address string) (net.Listener, error)

func (l listening) Listen(ctx context.Context, _, address string) (net.Listener, error) {
	return l(ctx, address)
}

func (l listening) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// TestBindAddress: where the socket is opened, and what the first reply says.
func TestBindAddress(t *testing.T) {
	far := netip.MustParseAddr("203.0.113.7")
	type addressCase struct {
		name      string
		peer      string
		advertise netip.Addr
		socket    string
		reply     string
	}
	tests := []addressCase{
		{"the address that routes to the peer", "127.0.0.2", netip.Addr{}, "127.0.0.1", "127.0.0.1"},
		{"advertised", "127.0.0.2", far, "127.0.0.1", "203.0.113.7"},
		{"any peer", "0.0.0.0", netip.Addr{}, "0.0.0.0", "0.0.0.0"},
		{"any peer, advertised", "0.0.0.0", far, "0.0.0.0", "203.0.113.7"},
		{"IPv6, which the reply cannot say", "::1", netip.Addr{}, "::1", "0.0.0.0"},
		{"IPv6, advertised", "::1", far, "::1", "203.0.113.7"},
	}
	own, _ := LocalAddrs()
	for _, a := range own {
		if a.Is4() {
			tests = append(tests, addressCase{"our " + a.String(), a.String(), netip.Addr{}, a.String(), a.String()})
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policy := binding(BindOptions{PrimaryOptional: true, AnyPeer: true})
				r := inMemory(t, &Server{Policy: policy}, Listener{Advertise: test.advertise})
				c := r.asks(proxytest.Bind4a(test.peer, 21, "bob"))
				at, open := proxytest.Granted4(t, c), r.network.Listening(proxyAt)
				if len(open) != 1 || open[0].Addr().String() != test.socket || at.Addr().String() != test.reply || at.Port() != open[0].Port() {
					t.Errorf("told %v, listening on %v; want %s and %s", at, open, test.reply, test.socket)
				}
				c.Close()
				if e := r.next(ClientGone); e.Primary != "optional" {
					t.Errorf("primary %q, want optional", e.Primary)
				}
			})
		})
	}
}

// TestBindPorts: of a configured range, from a random one on, each tried once.
func TestBindPorts(t *testing.T) {
	for _, ports := range []PortRange{{40000, 40031}, {65530, 65535}, {2000, 2000}} {
		t.Run(fmt.Sprint(ports), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tried []uint16
				r := inMemory(t, &Server{Policy: freely, Outbound: listening(func(_ context.Context, address string) (net.Listener, error) {
					tried = append(tried, netip.MustParseAddrPort(address).Port())
					return nil, syscall.EADDRINUSE
				})}, Listener{BindPorts: ports})
				starts := make(map[uint16]bool)
				var all []uint16
				for p := int(ports.First); p <= int(ports.Last); p++ {
					all = append(all, uint16(p))
				}
				for range 100 {
					tried = nil
					c := r.asks(proxytest.Bind4(targetAt, "bob"))
					proxytest.Refused4(t, c, socks.Rejected4)
					c.Close()
					r.next(NoPort)
					starts[tried[0]] = true
					slices.Sort(tried)
					if !slices.Equal(tried, all) {
						t.Fatalf("tried %v, want each of %v once", tried, ports)
					}
				}
				if len(all) > 1 && len(starts) < 3 {
					t.Errorf("100 searches began at %d different ports: that can be guessed", len(starts))
				}
			})
		})
	}
}

// TestBindPortsAreUsedUpAndFreed on a range of two.
func TestBindPortsAreUsedUpAndFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: freely}, Listener{BindPorts: PortRange{40000, 40001}})
		one, at := r.waits()
		_, other := r.waits()
		if min(at.Port(), other.Port()) != 40000 || max(at.Port(), other.Port()) != 40001 {
			t.Errorf("ports %d and %d, want those of the range", at.Port(), other.Port())
		}
		third := r.asks(proxytest.Bind4(targetAt, "bob"))
		proxytest.Refused4(t, third, socks.Rejected4)
		r.next(NoPort)
		one.Close()
		r.next(ClientGone)
		if _, again := r.waits(); again != at {
			t.Errorf("%v, want %v, which is free again", again, at)
		}
	})
}

// TestWhatIsSentWhileBindWaits is kept to 64 KiB, then held back, and delivered
// in order behind the second reply.
func TestWhatIsSentWhileBindWaits(t *testing.T) {
	for _, size := range []int{1, 1000, 64 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			r := inMemory(t, &Server{Policy: freely}, Listener{})
			payload := bytes.Repeat([]byte("0123456789abcdef-"), size/17+1)
			request := proxytest.Bind4(targetAt, "bob")
			c := r.asks(append(bytes.Clone(request), payload[:10]...))
			at := proxytest.Granted4(t, c)
			go func() {
				_, _ = c.Write(payload[10:]) // what does not arrive is missed below
			}()
			synctest.Wait()
			kept := r.taken(c) - len(request)
			if kept > 64<<10+handshakeBuffer || kept < min(len(payload), 64<<10) {
				t.Errorf("%d of %d bytes were taken, want up to 64 KiB", kept, len(payload))
			}
			if n := c.Unread(); n > 0 {
				t.Errorf("%d bytes came before the peer did", n)
			}
			peer := r.comes("127.0.0.2:20", at)
			proxytest.Hear(t, peer, string(payload))
			proxytest.Granted4(t, c)
		})
	}
}

// TestClientGoneEndsBind: the listening socket is closed at once, with nothing
// said to anybody.
func TestClientGoneEndsBind(t *testing.T) {
	for name, test := range map[string]struct {
		leave func(*proxytest.Conn)
		want  Reason
	}{
		"FIN": {func(c *proxytest.Conn) { c.Close() }, ClientGone},
		"RST": {func(c *proxytest.Conn) { proxytest.Reset(c) }, ClientReset},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: freely}, Listener{})
				for _, said := range []int{0, 1000, 60 << 10} {
					c, _ := r.waits()
					proxytest.Say(t, c, make([]byte, said))
					<-time.After(time.Minute)
					left := time.Now()
					test.leave(c)
					r.next(test.want)
					if took := time.Since(left); took > 0 {
						t.Errorf("having said %d bytes: noticed after %v", said, took)
					}
					r.hasNoSocket()
				}
			})
		})
	}
}

// TestBindLimit: two minutes, as in the paper, from the first reply on.
func TestBindLimit(t *testing.T) {
	for _, limit := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
				<-time.After(time.Minute) // deciding has a limit of its own
				return freely(ctx, r)
			})
			r := inMemory(t, &Server{Policy: policy, Timeouts: Timeouts{Bind: limit}}, Listener{})
			c, at := r.waits()
			start := time.Now()
			if about := proxytest.Refused4(t, c, socks.Rejected4); about.Addr() == at.Addr() {
				t.Errorf("the second reply says %v", about)
			}
			if took := time.Since(start); took != orElse(limit, 2*time.Minute) {
				t.Errorf("given up after %v", took)
			}
			r.next(TimedOut)
			r.hasNoSocket()
		})
	}
}

// TestDecidingOnBindIsBounded, and a client that leaves ends it.
func TestDecidingOnBindIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(func(ctx context.Context, _ *Request) (Grant, error) {
			<-ctx.Done()
			return Grant{}, ctx.Err()
		})}, Listener{})
		start, c := time.Now(), r.asks(proxytest.Bind4(targetAt, "bob"))
		proxytest.Refused4(t, c, socks.Rejected4)
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("refused after %v, want 2 min", took)
		}
		r.next(TimedOut)
		start, c = time.Now(), r.asks(proxytest.Bind4(targetAt, "bob"))
		c.Close()
		r.next(ClientGone)
		if took := time.Since(start); took > 0 {
			t.Errorf("noticed after %v", took)
		}
	})
}

// TestBindCaps: of what waits there is a limit, per source and in sum, and a
// place is free as soon as the waiting is over.
func TestBindCaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, elsewhere := netip.MustParseAddr("127.0.0.8"), netip.MustParseAddr("127.0.0.9")
		r := inMemory(t, &Server{Policy: freely, Limits: Limits{Binds: 3, BindsPerSource: 2}}, Listener{})
		refused := func(host netip.Addr) {
			t.Helper()
			proxytest.Refused4(t, r.asks(proxytest.Bind4(targetAt, "bob"), host), socks.Rejected4)
			r.next(Busy)
		}
		one, at := r.waits()
		two, _ := r.waits()
		refused(clientAt)
		r.waits(there)
		refused(elsewhere)
		if n := len(r.network.Listening(proxyAt)); n != 3 {
			t.Errorf("%d sockets are open, want 3", n)
		}

		r.comes("127.0.0.2:20", at) // waits no more
		proxytest.Granted4(t, one)
		r.waits(elsewhere)
		refused(elsewhere)
		two.Close()
		r.next(ClientGone)
		r.waits()
	})
}

// TestRefusalsOfBind come instead of the first reply, and open no socket.
func TestRefusalsOfBind(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy Policy
		peer   string
		code   socks.Code4
		want   Reason
	}{
		{"no policy", nil, "127.0.0.2", 91, Denied},
		{"denied", refusing(Denied), "127.0.0.2", 91, Denied},
		{"no identd", refusing(NoIdentd), "127.0.0.2", 92, NoIdentd},
		{"other user", refusing(OtherUser), "127.0.0.2", 93, OtherUser},
		{"any peer, which the rule does not say", freely, "0.0.0.0", 91, Denied},
		{"any IPv6 peer, likewise", freely, "::", 91, Denied},
		{"no primary", binding(BindOptions{}), "127.0.0.2", 91, NoPrimary},
		{"no primary, strangers or not", binding(BindOptions{AnyPeer: true, WaitForRightPeer: true}), "127.0.0.2", 91, NoPrimary},
		{"granted nobody", deciding(func(context.Context, *Request) (Grant, error) {
			return Grant{Bind: BindOptions{PrimaryOptional: true, AnyPeer: true}}, nil
		}), "127.0.0.2", 91, BadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: test.policy, Outbound: listening(func(_ context.Context, address string) (net.Listener, error) {
					t.Errorf("a refused BIND opens %s", address)
					return nil, Failed
				})}, Listener{})
				c := r.asks(proxytest.Bind4a(test.peer, 21, "bob"))
				if about := proxytest.Refused4(t, c, test.code); about.Port() != 0 {
					t.Errorf("the reply says %v", about)
				}
				r.next(test.want)
			})
		})
	}
}

// TestClientLeavesDuringThePortSearch: the rest of the range is left alone.
func TestClientLeavesDuringThePortSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried, leave := 0, make(chan struct{})
		r := inMemory(t, &Server{Policy: freely, Outbound: listening(func(ctx context.Context, _ string) (net.Listener, error) {
			if tried++; tried == 3 {
				close(leave)
				<-ctx.Done()
			}
			return nil, syscall.EADDRINUSE
		})}, Listener{BindPorts: PortRange{40000, 40999}})
		c := r.asks(proxytest.Bind4(targetAt, "bob"))
		<-leave
		c.Close()
		r.next(ClientGone)
		if tried != 3 {
			t.Errorf("%d ports were tried, want 3", tried)
		}
	})
}
