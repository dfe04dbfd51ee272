package server

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// TestWrongPeerEndsBind: the second reply is 91 with the stranger's address, and
// both connections close, as in the paper.
func TestWrongPeerEndsBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: freely}, Listener{})
		c, at := r.waits()
		proxytest.Say(t, c, []byte("not for strangers"))
		stranger := r.comes("127.0.0.66:4711", at)
		if about := proxytest.Refused4(t, c, socks.Rejected4); about.String() != "127.0.0.66:4711" {
			t.Errorf("the second reply says %v, want the stranger's address", about)
		}
		if rest, _ := proxytest.End(stranger); len(rest) > 0 {
			t.Errorf("the stranger was told %q", rest)
		}
		r.next(WrongPeer)
		r.hasNoSocket()
	})
}

// TestWrongPeerOnLoopback is the same on real sockets, where the stranger has
// something to say.
func TestWrongPeerOnLoopback(t *testing.T) {
	r := onLoopback(t, &Server{Policy: freely}, Listener{})
	c := proxytest.Dial(t, r.address)
	proxytest.Say(t, c, proxytest.Bind4(targetAt, "bob"))
	at := proxytest.Granted4(t, c)
	stranger := proxytest.DialFrom(t, "127.0.0.66", at.String())
	proxytest.Say(t, stranger, []byte("let me in"))
	if about := proxytest.Refused4(t, c, socks.Rejected4); about != addrPort(stranger.LocalAddr()) {
		t.Errorf("the second reply says %v, want %v", about, stranger.LocalAddr())
	}
	if rest, err := proxytest.End(stranger); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stranger got %q, %v", rest, err)
	}
	r.next(WrongPeer)
}

// TestWaitForRightPeer closes strangers and waits on, but not for longer.
func TestWaitForRightPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: binding(BindOptions{PrimaryOptional: true, WaitForRightPeer: true})}, Listener{})
		c, at := r.waits()
		for range 3 {
			proxytest.Ends(t, r.comes("127.0.0.66:4711", at))
		}
		if n := c.Unread(); n > 0 {
			t.Fatalf("%d bytes for a stranger", n)
		}
		peer := r.comes("127.0.0.2:20", at)
		if got := proxytest.Granted4(t, c); got.String() != "127.0.0.2:20" {
			t.Errorf("the second reply says %v", got)
		}
		r.hasNoSocket()
		proxytest.Say(t, peer, []byte("hello"))
		proxytest.Hear(t, c, "hello")

		start := time.Now()
		c, at = r.waits()
		for range 2 {
			<-time.After(50 * time.Second)
			proxytest.Ends(t, r.comes("127.0.0.66:4711", at))
		}
		if about := proxytest.Refused4(t, c, socks.Rejected4); about.Addr().String() == "127.0.0.66" {
			t.Errorf("the second reply says %v: that is not why", about)
		}
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("given up after %v, want 2 min", took)
		}
		r.next(TimedOut)
	})
}

// TestAnyPeer may come where the rule says so.
func TestAnyPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: binding(BindOptions{AnyPeer: true})}, Listener{})
		c := r.asks(proxytest.Bind4(netip.MustParseAddrPort("0.0.0.0:21"), "bob"))
		at := proxytest.Granted4(t, c)
		peer := r.comes("198.51.100.7:4711", at)
		if got := proxytest.Granted4(t, c); got.String() != "198.51.100.7:4711" {
			t.Errorf("the second reply says %v", got)
		}
		proxytest.Say(t, peer, []byte("hello"))
		proxytest.Hear(t, c, "hello")
		r.hasNoSocket()
	})
}

// TestBindForAName: each of its addresses is a peer that may come, and no other.
func TestBindForAName(t *testing.T) {
	both := addrs("127.0.0.2", "127.0.0.3")
	policy := deciding(func(context.Context, *Request) (Grant, error) {
		return Grant{Addrs: both, Bind: BindOptions{PrimaryOptional: true}}, nil
	})
	for peer, code := range map[string]socks.Code4{"127.0.0.2": 90, "127.0.0.3": 90, "127.0.0.4": 91} {
		synctest.Test(t, func(t *testing.T) {
			r := inMemory(t, &Server{Policy: policy}, Listener{})
			c := r.asks(proxytest.Bind4a("ftp.example", 21, "bob"))
			at := proxytest.Granted4(t, c)
			r.comes(peer+":20", at)
			if got := proxytest.ReadReply4(t, c); got.Code != code || got.IP.String() != peer || got.Port != 20 {
				t.Errorf("%s: the second reply says %d, %v:%d; want %d", peer, got.Code, got.IP, got.Port, code)
			}
		})
	}
}

// TestPrimary: by default a BIND is granted only beside a relay of the same
// client, by address and userid, to the same host.
func TestPrimary(t *testing.T) {
	other := netip.MustParseAddr("127.0.0.9")
	for _, test := range []struct {
		name    string
		request []byte
		from    netip.Addr
		want    string
	}{
		{"the same", proxytest.Bind4(targetAt, "bob"), clientAt, "held"},
		{"other port of the host", proxytest.Bind4(netip.AddrPortFrom(targetAt.Addr(), 0), "bob"), clientAt, "held"},
		{"by a name", proxytest.Bind4a("ftp.example", 80, "bob"), clientAt, "held"},
		{"by an address as text", proxytest.Bind4a("127.0.0.2", 80, "bob"), clientAt, "held"},
		{"other userid", proxytest.Bind4(targetAt, "eve"), clientAt, "missing"},
		{"other case", proxytest.Bind4(targetAt, "Bob"), clientAt, "missing"},
		{"no userid", proxytest.Bind4(targetAt, ""), clientAt, "missing"},
		{"other client", proxytest.Bind4(targetAt, "bob"), other, "missing"},
		{"other host", proxytest.Bind4(netip.MustParseAddrPort("127.0.0.3:80"), "bob"), clientAt, "missing"},
		{"other name", proxytest.Bind4a("www.example", 80, "bob"), clientAt, "missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: resolving(map[string][]netip.Addr{
					"ftp.example": addrs("127.0.0.5", "127.0.0.2"), "www.example": addrs("127.0.0.5"),
				})}, Listener{})
				r.relayed(r.network.MustListen(targetAt.String()))
				c := r.asks(test.request, test.from)
				if test.want == "missing" {
					proxytest.Refused4(t, c, socks.Rejected4)
					if e := r.next(NoPrimary); e.Primary != "missing" {
						t.Errorf("recorded %q", e.Primary)
					}
					r.hasNoSocket()
					return
				}
				proxytest.Granted4(t, c)
				c.Close()
				if e := r.next(ClientGone); e.Primary != test.want {
					t.Errorf("recorded %q, want %q", e.Primary, test.want)
				}
			})
		})
	}
}

// TestPrimaryMustBeOpen: neither one that is still being connected, nor one that
// has ended, is a primary connection; of two one is enough.
func TestPrimaryMustBeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: binding(BindOptions{})}, Listener{})
		try := func(want socks.Code4) {
			t.Helper()
			c := r.asks(proxytest.Bind4(targetAt, "bob"))
			if got := proxytest.ReadReply4(t, c); got.Code != want {
				t.Errorf("BIND: %d, want %d", got.Code, want)
			}
			c.Close()
			<-r.ends
		}
		target := r.network.MustListen(targetAt.String())
		r.network.Silence(targetAt.Addr(), true)
		connecting := r.asks(proxytest.Connect4(targetAt, "bob"))
		synctest.Wait()
		try(91)
		proxytest.Reset(connecting)
		r.next(ClientReset)
		r.network.Silence(targetAt.Addr(), false)

		one, farOne := r.relayed(target)
		two, farTwo := r.relayed(target)
		try(90)
		one.Close()
		farOne.Close()
		r.next(Closed)
		try(90)
		two.Close() // and the other half goes on
		synctest.Wait()
		try(90)
		farTwo.Close()
		r.next(Closed)
		try(91)
		if n := len(r.server.state.primaries.open); n > 0 {
			t.Errorf("%d primaries are remembered with no relay open", n)
		}
	})
}

// TestPeerResets: how the peer ends is how the client's connection ends.
func TestPeerResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: freely}, Listener{})
		c, at := r.waits()
		peer := r.comes("127.0.0.2:20", at)
		proxytest.Granted4(t, c)
		proxytest.Reset(peer)
		if _, err := proxytest.End(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
		r.next(TargetReset)
	})
}
