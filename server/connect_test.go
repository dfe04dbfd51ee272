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

// dialling is an Outbound whose way of connecting is a function.
type dialling func(ctx context.Context, address string) (net.Conn, error)

func (d dialling) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	return d(ctx, address)
}

func (d dialling) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}

// TestNoReplyBeforeTheTargetAnswers: 90 is the target's word, not a hope.
func TestNoReplyBeforeTheTargetAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := proxytest.Pipe(proxyAt, targetAt, 64<<10)
		defer far.Close()
		answers := make(chan struct{})
		r := inMemory(t, &Server{Policy: deciding(anything), Outbound: dialling(func(context.Context, string) (net.Conn, error) {
			<-answers
			return near, nil
		})}, Listener{})
		c := r.asks(append(proxytest.Connect4(targetAt, "bob"), "at once"...))
		<-time.After(119 * time.Second)
		if n := c.Unread(); n > 0 {
			t.Fatalf("%d bytes of reply before the target answered", n)
		}
		close(answers)
		if bound := proxytest.Granted4(t, c); bound != proxyAt {
			t.Errorf("the reply carries %v, want %v", bound, proxyAt)
		}
		proxytest.Hear(t, far, "at once")
	})
}

// TestReplyToConnectCarriesOurAddress, as the target sees it, or zeros where
// that is to be hidden.
func TestReplyToConnectCarriesOurAddress(t *testing.T) {
	for _, hide := range []bool{false, true} {
		r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{HideAddress: hide})
		target := proxytest.NewTarget(t, "127.0.0.2")
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, proxytest.Connect4(target.Addr(), "bob"))
		got, want := proxytest.Granted4(t, c), addrPort(target.Next(t).RemoteAddr())
		if hide {
			want = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
		if got != want {
			t.Errorf("hidden: %v: the reply carries %v, want %v", hide, got, want)
		}
	}
}

// TestReplyToConnectOverIPv6 cannot carry the address, but the port.
func TestReplyToConnectOverIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := proxytest.Pipe(netip.MustParseAddrPort("[2001:db8::1]:4711"), netip.MustParseAddrPort("[2001:db8::2]:80"), 100)
		defer far.Close()
		r := inMemory(t, &Server{Policy: deciding(anything), Outbound: dialling(func(_ context.Context, address string) (net.Conn, error) {
			if address != "[2001:db8::2]:80" {
				t.Errorf("dialled %s", address)
			}
			return near, nil
		})}, Listener{})
		c := r.asks(proxytest.Connect4a("2001:db8::2", 80, "bob"))
		if got, want := proxytest.Granted4(t, c), netip.MustParseAddrPort("0.0.0.0:4711"); got != want {
			t.Errorf("the reply carries %v, want %v", got, want)
		}
	})
}

// TestRefusalsOfConnect: what a policy or a dial says, what the client is told,
// and by which word the session is remembered.
func TestRefusalsOfConnect(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy Policy
		dial   error
		code   socks.Code4
		want   Reason
	}{
		{"no policy", nil, nil, 91, Denied},
		{"a policy that forgets its reason", refusing(errors.New("?")), nil, 91, Failed},
		{"denied", refusing(fmt.Errorf("%w: by a rule", Denied)), nil, 91, Denied},
		{"no identd", refusing(fmt.Errorf("%w: it did not answer", NoIdentd)), nil, 92, NoIdentd},
		{"other user", refusing(fmt.Errorf("wrapped: %w", OtherUser)), nil, 93, OtherUser},
		{"no name", refusing(&net.DNSError{IsNotFound: true}), nil, 91, NoName},
		{"granted nothing", deciding(func(context.Context, *Request) (Grant, error) { return Grant{}, nil }), nil, 91, Denied},
		{"refused", deciding(anything), syscall.ECONNREFUSED, 91, Refused},
		{"reset at once", deciding(anything), syscall.ECONNRESET, 91, Refused},
		{"no route to the host", deciding(anything), syscall.EHOSTUNREACH, 91, Unreachable},
		{"no route to the network", deciding(anything), syscall.ENETUNREACH, 91, Unreachable},
		{"forbidden by the system", deciding(anything), syscall.EACCES, 91, Unreachable},
		{"timed out by the system", deciding(anything), syscall.ETIMEDOUT, 91, TimedOut},
		{"out of descriptors", deciding(anything), syscall.EMFILE, 91, Failed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: test.policy, Outbound: dialling(func(_ context.Context, address string) (net.Conn, error) {
					if test.dial == nil {
						t.Errorf("a refused request dialled %s", address)
					}
					return nil, &net.OpError{Op: "dial", Err: test.dial}
				})}, Listener{})
				c := r.asks(append(proxytest.Connect4(targetAt, "bob"), "x"...))
				if about := proxytest.Refused4(t, c, test.code); about.Port() != 0 || !about.Addr().IsUnspecified() {
					t.Errorf("the reply carries %v", about)
				}
				c.Close()
				r.next(test.want)
			})
		})
	}
}

// TestConnectLimit: two minutes, as in the paper, for deciding and connecting
// together.
func TestConnectLimit(t *testing.T) {
	for name, hangs := range map[string]struct {
		policy Policy
		limit  time.Duration
	}{
		"target":             {deciding(anything), 0},
		"target, configured": {deciding(anything), 7 * time.Second},
		"policy": {deciding(func(ctx context.Context, _ *Request) (Grant, error) {
			<-ctx.Done()
			return Grant{}, ctx.Err()
		}), 0},
		"first one, then the other": {deciding(func(ctx context.Context, r *Request) (Grant, error) {
			<-time.After(time.Minute)
			return anything(ctx, r)
		}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: hangs.policy, Timeouts: Timeouts{Connect: hangs.limit}}, Listener{})
				r.network.Silence(targetAt.Addr(), true)
				start, c := time.Now(), r.asks(proxytest.Connect4(targetAt, "bob"))
				proxytest.Refused4(t, c, socks.Rejected4)
				if took, want := time.Since(start), orElse(hangs.limit, 2*time.Minute); took != want {
					t.Errorf("answered after %v, want %v", took, want)
				}
				c.Close()
				r.next(TimedOut)
			})
		})
	}
}

// TestClientLeavesWhileConnecting: a reset ends the waiting at once, whatever
// waits; a FIN does not, the client may have said all it has to say.
func TestClientLeavesWhileConnecting(t *testing.T) {
	stuck := deciding(func(ctx context.Context, _ *Request) (Grant, error) {
		<-ctx.Done()
		return Grant{}, ctx.Err()
	})
	for name, policy := range map[string]Policy{"policy": stuck, "target": deciding(anything)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: policy}, Listener{})
				r.network.Silence(targetAt.Addr(), true)
				start, c := time.Now(), r.asks(proxytest.Connect4(targetAt, "bob"))
				time.AfterFunc(3*time.Second, func() { proxytest.Reset(c) })
				r.next(ClientReset)
				if took := time.Since(start); took != 3*time.Second {
					t.Errorf("ended after %v, want 3 s", took)
				}

				start, c = time.Now(), r.asks(proxytest.Connect4(targetAt, "bob"))
				_ = c.CloseWrite()
				proxytest.Refused4(t, c, socks.Rejected4)
				if took := time.Since(start); took != 2*time.Minute {
					t.Errorf("a client that has half-closed was answered after %v, want 2 min", took)
				}
				r.next(TimedOut)
			})
		})
	}
}

// TestClientLeavesAsTheTargetAnswers: the reset counts, though the dial came to
// its end. The target hears nothing of a client that is gone.
func TestClientLeavesAsTheTargetAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := proxytest.Pipe(proxyAt, targetAt, 100)
		r := inMemory(t, &Server{Policy: deciding(anything), Outbound: dialling(func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return near, nil
		})}, Listener{})
		c := r.asks(append(proxytest.Connect4(targetAt, "bob"), "said in vain"...))
		synctest.Wait()
		proxytest.Reset(c)
		r.next(ClientReset)
		proxytest.Ends(t, far)
	})
}

// TestHalfClosedClientIsConnected: all that it said arrives, and the answer too.
func TestHalfClosedClientIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := proxytest.Pipe(proxyAt, targetAt, 64<<10)
		r := inMemory(t, &Server{Policy: deciding(anything), Outbound: dialling(func(context.Context, string) (net.Conn, error) {
			<-time.After(time.Minute)
			return near, nil
		})}, Listener{})
		c := r.asks(append(proxytest.Connect4(targetAt, "bob"), "GET / "...))
		proxytest.Say(t, c, []byte("HTTP/1.0"))
		_ = c.CloseWrite()
		proxytest.Granted4(t, c)
		if got, err := proxytest.End(far); string(got) != "GET / HTTP/1.0" || err != nil {
			t.Errorf("the target got %q, %v", got, err)
		}
		proxytest.Say(t, far, []byte("200"))
		far.Close()
		if got, err := proxytest.End(c); string(got) != "200" || err != nil {
			t.Errorf("the client got %q, %v", got, err)
		}
		if e := r.next(Closed); e.Up() != 14 || e.Down() != 3 {
			t.Errorf("counted %d up, %d down", e.Up(), e.Down())
		}
	})
}

// TestWhatIsSentWhileConnecting is kept to 64 KiB, then held back, and nothing
// of it is lost or out of order.
func TestWhatIsSentWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := proxytest.Pipe(proxyAt, targetAt, 1<<20)
		answers := make(chan struct{})
		r := inMemory(t, &Server{Policy: deciding(anything), Outbound: dialling(func(context.Context, string) (net.Conn, error) {
			<-answers
			return near, nil
		})}, Listener{})
		payload := bytes.Repeat([]byte("0123456789abcdef-"), 30<<10)
		c := r.asks(proxytest.Connect4(targetAt, "bob"))
		go func() {
			_, _ = c.Write(payload) // what does not arrive is missed below
			_ = c.CloseWrite()
		}()
		synctest.Wait()
		if kept := r.taken(c); kept > 66<<10 {
			t.Errorf("%d bytes were taken with nobody to send them to", kept)
		}
		close(answers)
		got, err := proxytest.End(far)
		if err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes of %d arrived, or others, and %v", len(got), len(payload), err)
		}
		far.Close()
		proxytest.Granted4(t, c)
	})
}

// TestOnlyJudgedAddressesAreDialled, not what the client named.
func TestOnlyJudgedAddressesAreDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := deciding(func(context.Context, *Request) (Grant, error) {
			return Grant{Rule: "web", Addrs: []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.2")}}, nil
		})
		r := inMemory(t, &Server{Policy: policy}, Listener{Name: "lan"})
		target := r.network.MustListen(targetAt.String())
		c := r.asks(proxytest.Connect4a("www.example.com", 80, "bob"))
		far := r.next4(target)
		proxytest.Granted4(t, c)
		c.Close()
		far.Close()
		e := r.next(Closed)
		if want := (socks.Addr{Name: "www.example.com", Port: 80}); e.Target != want || e.Address != targetAt || e.Rule != "web" || e.Listener != "lan" {
			t.Errorf("recorded target %v, address %v, rule %q, listener %q", e.Target, e.Address, e.Rule, e.Listener)
		}
		if got := r.network.Dialled(); !slices.Equal(got, []netip.AddrPort{targetAt}) {
			t.Errorf("dialled %v, want %v", got, targetAt)
		}
	})
}

// TestThePolicyIsToldAll that a rule can ask for, and what it finds is recorded.
func TestThePolicyIsToldAll(t *testing.T) {
	r := newRig(t, &Server{})
	var got Request
	r.server.Policy = deciding(func(_ context.Context, q *Request) (Grant, error) {
		got = *q
		return Grant{Rule: "no", Identity: Identity{Name: "bob", Proof: Ident}}, Denied
	})
	socket := listenTCP(t, "[::]:0") // to which an IPv4 client comes in mapped form
	r.serve(socket, Listener{Name: "lan"})
	at := netip.AddrPortFrom(clientAt, addrPort(socket.Addr()).Port())
	c := proxytest.DialFrom(t, "127.0.0.7", at.String())
	proxytest.Say(t, c, proxytest.Bind4(targetAt, "bob"))
	proxytest.Refused4(t, c, socks.Rejected4)
	e := r.next(Denied)
	if got.Client != addrPort(c.LocalAddr()) || got.Local != at || got.Listener != "lan" {
		t.Errorf("client %v, local %v, listener %q", got.Client, got.Local, got.Listener)
	}
	if got.Protocol != SOCKS4 || got.Command != socks.Bind || got.Identity != (Identity{Name: "bob", Proof: Claimed}) || got.Target != socks.FromIP(targetAt) {
		t.Errorf("%s %v for %v by %v", got.Protocol, got.Command, got.Target, got.Identity)
	}
	if e.Identity.Proof != Ident || e.Rule != "no" || e.Client != got.Client || e.ID != 1 || e.Address.IsValid() {
		t.Errorf("recorded %+v", e.Session)
	}
}

// TestClientThatTakesNoReply is not waited for, whichever reply it is.
func TestClientThatTakesNoReply(t *testing.T) {
	for name, test := range map[string]struct {
		request []byte
		policy  Policy
		replies int // that it takes
		want    Reason
	}{
		"of CONNECT":        {proxytest.Connect4(targetAt, "bob"), deciding(anything), 0, ClientGone},
		"of a refusal":      {proxytest.Connect4(targetAt, "bob"), nil, 0, Denied},
		"the first of BIND": {proxytest.Bind4(targetAt, "bob"), freely, 0, ClientGone},
		"the second":        {proxytest.Bind4(targetAt, "bob"), freely, 1, ClientGone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemoryOf(t, 4, &Server{Policy: test.policy}, Listener{})
				target := r.network.MustListen(targetAt.String())
				c := r.asks(test.request)
				if test.replies > 0 {
					r.comes("127.0.0.2:20", proxytest.Granted4(t, c))
				}
				start := time.Now()
				r.next(test.want)
				if took := time.Since(start); took == 0 || took > 5*time.Second {
					t.Errorf("given up after %v", took)
				}
				if target.Waiting() > 0 {
					proxytest.Ends(t, r.next4(target))
				}
				r.hasNoSocket()
			})
		})
	}
}
