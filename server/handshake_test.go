package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// TestHandshakeLimitIsAbsolute: a client that sends a byte now and then, so that
// no single read is slow, has no more time than one that says nothing.
func TestHandshakeLimitIsAbsolute(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration
	}{
		{"silent", time.Hour},
		{"trickling", 9 * time.Second},
		{"trickling fast", time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{MaxUserID: 1024})
				start, c := time.Now(), r.client()
				stop := trickle(c, head(1, 80, 127, 0, 0, 2)+strings.Repeat("u", 1024), test.every)
				defer stop()
				e := r.next(HandshakeSlow)
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("ended after %v, want the 10 s that are the default", took)
				}
				if rest, _ := proxytest.End(c); len(rest) > 0 {
					t.Errorf("% x was said, want silence", rest)
				}
				if e.Protocol != SOCKS4 || e.Command != 0 || e.Client.Addr() != clientAt {
					t.Errorf("recorded %q from %v", e.Protocol, e.Client)
				}
			})
		})
	}
}

// trickle sends a byte of what at once and then one in every such time.
func trickle(c io.Writer, what string, every time.Duration) (stop func()) {
	tick := time.NewTicker(every)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for _, b := range []byte(what) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	return func() {
		tick.Stop()
		close(done)
		<-ended
	}
}

// TestHandshakeLimitIsForTheHandshake: once there is a request, its limit and
// its deadline are gone.
func TestHandshakeLimitIsForTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything), Timeouts: Timeouts{Handshake: time.Second}}, Listener{})
		client, far := r.relayed(r.network.MustListen(targetAt.String()))
		time.AfterFunc(time.Hour, func() { _, _ = far.Write([]byte("late")) })
		proxytest.Hear(t, client, "late")
	})
}

func TestGarbageGetsSilence(t *testing.T) {
	for _, garbage := range []string{"\x00", "\x03\x01", "\x06", "\xff\xff\xff", "\x16\x03\x01\x02\x00", "\n"} {
		synctest.Test(t, func(t *testing.T) {
			r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
			start, c := time.Now(), r.asks([]byte(garbage))
			r.next(Garbage)
			if rest, err := proxytest.End(c); len(rest) > 0 || time.Since(start) > 0 {
				t.Errorf("%q: % x, %v after %v; want nothing, at once", garbage, rest, err, time.Since(start))
			}
		})
	}
}

// TestEndsOfAHandshake: by the client, with no request and no answer.
func TestEndsOfAHandshake(t *testing.T) {
	for _, test := range []struct {
		name  string
		leave func(*proxytest.Conn)
		want  Reason
	}{
		{"FIN", func(c *proxytest.Conn) { c.Close() }, ClientGone},
		{"half-close", func(c *proxytest.Conn) { _ = c.CloseWrite() }, ClientGone},
		{"RST", func(c *proxytest.Conn) { proxytest.Reset(c) }, ClientReset},
	} {
		request := proxytest.Connect4(targetAt, "bob")
		for n := range request {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
				start, c := time.Now(), r.asks(request[:n])
				synctest.Wait()
				test.leave(c)
				r.next(test.want)
				if time.Since(start) > 0 || len(r.network.Dialled()) > 0 {
					t.Errorf("%s after %d bytes: ended after %v, dialled %v", test.name, n, time.Since(start), r.network.Dialled())
				}
			})
		}
	}
}

// TestBadRequestsGetTheWholeReply: 8 bytes with 91, then FIN, whatever the
// client had still to say.
func TestBadRequestsGetTheWholeReply(t *testing.T) {
	for name, request := range map[string]string{
		"userid too long":        head(1, 80, 127, 0, 0, 2) + strings.Repeat("u", 256),
		"userid of 64 KiB":       head(1, 80, 127, 0, 0, 2) + strings.Repeat("u", 64<<10),
		"no host":                head4a(1, 80, "u", ""),
		"host of 64 KiB":         head(1, 80, 0, 0, 0, 1) + "\x00" + strings.Repeat("h", 64<<10),
		"host that is no name":   head4a(1, 80, "u", "a b"),
		"port 0":                 head(1, 0, 127, 0, 0, 2) + "u\x00",
		"0.0.0.0":                head(1, 80, 0, 0, 0, 0) + "u\x00",
		"multicast":              head(1, 80, 224, 0, 0, 1) + "u\x00",
		"multicast, all of it":   head(1, 80, 239, 255, 255, 255) + "u\x00",
		"broadcast":              head(1, 80, 255, 255, 255, 255) + "u\x00",
		"this network":           head(1, 80, 0, 1, 2, 3) + "u\x00",
		"IPv6 multicast":         head4a(1, 80, "u", "ff02::1"),
		"IPv6 unspecified":       head4a(1, 80, "u", "::"),
		"a mapped broadcast":     head4a(1, 80, "u", "::ffff:255.255.255.255"),
		"BIND for multicast":     head(2, 80, 224, 0, 0, 1) + "u\x00",
		"BIND for broadcast":     head(2, 80, 255, 255, 255, 255) + "u\x00",
		"BIND for this network":  head(2, 80, 0, 1, 2, 3) + "u\x00",
		"4a BIND with no host":   head4a(2, 80, "u", ""),
		"4a port 0, by its name": head4a(1, 0, "u", "127.0.0.2"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: binding(BindOptions{PrimaryOptional: true})}, Listener{})
				c := r.asks([]byte(request + "and what follows"))
				if about := proxytest.Refused4(t, c, socks.Rejected4); about != netip.AddrPortFrom(netip.IPv4Unspecified(), 0) {
					t.Errorf("the reply carries %v", about)
				}
				c.Close()
				r.next(BadRequest)
				if d := r.network.Dialled(); len(d) > 0 {
					t.Errorf("dialled %v", d)
				}
			})
		})
	}
}

func TestUnknownCommands(t *testing.T) {
	for _, command := range []byte{0, 3, 4, 90, 255} {
		synctest.Test(t, func(t *testing.T) {
			policy := deciding(func(context.Context, *Request) (Grant, error) {
				t.Errorf("command %d: the policy was asked", command)
				return Grant{}, Denied
			})
			r := inMemory(t, &Server{Policy: policy}, Listener{})
			c := r.asks([]byte(head(command, 80, 127, 0, 0, 2) + "u\x00"))
			proxytest.Refused4(t, c, socks.Rejected4)
			c.Close()
			r.next(Unsupported)
		})
	}
}

// TestRefusalIsNeverLost: the client sends on and on and reads only afterwards.
// In memory, a close over unread bytes would be a reset that takes the reply
// with it.
func TestRefusalIsNeverLost(t *testing.T) {
	for name, server := range map[string]*Server{
		"refused request":  {Policy: refusing(Denied)},
		"refused in bytes": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				request := proxytest.Connect4(targetAt, "bob")
				if server.Policy == nil {
					request = proxytest.Connect4a("", 80, "bob")
				}
				r := inMemory(t, server, Listener{})
				c := r.asks(request)
				for range 20 {
					if _, err := c.Write(bytes.Repeat([]byte("x"), 10<<10)); err != nil {
						t.Fatal(err)
					}
				}
				proxytest.Refused4(t, c, socks.Rejected4)
				c.Close()
				<-r.ends
			})
		})
	}
}

// TestLingerIsBounded: a refused client that does not leave, or never stops to
// send, is rid of in bounded time and memory, however fast it sends.
func TestLingerIsBounded(t *testing.T) {
	for name, every := range map[string]time.Duration{"trickle": 100 * time.Millisecond, "flood": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{}, Listener{})
				start, c := time.Now(), r.asks(proxytest.Connect4(targetAt, "bob"))
				sent, err := io.Copy(c, io.LimitReader(&endless{every}, 100<<20))
				if took := time.Since(start); err == nil || sent > 1<<20 || took > 5*time.Second {
					t.Errorf("%d bytes in %v, then %v; want a bounded end", sent, took, err)
				}
				r.next(Denied)
			})
		})
	}
}

// endless yields bytes, and takes its time for each read.
type endless struct{ every time.Duration }

func (e *endless) Read(b []byte) (int, error) {
	if e.every == 0 {
		return len(b), nil
	}
	<-time.After(e.every)
	return 1, nil
}

// TestHandshakeCaps: one handshake too many, in sum or of one source, ends the
// oldest, without a word, and is served itself.
func TestHandshakeCaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := clientAt, netip.MustParseAddr("127.0.0.9")
		s := &Server{Policy: deciding(anything), Limits: Limits{Handshakes: 5, HandshakesPerSource: 3}}
		r := inMemory(t, s, Listener{})
		target := r.network.MustListen(targetAt.String())
		var waiting []*proxytest.Conn
		enter := func(host netip.Addr) {
			waiting = append(waiting, r.client(host))
			synctest.Wait()
		}
		for _, host := range []netip.Addr{there, here, here, here} {
			enter(host)
		}
		isEvicted := func(which int, why string) {
			t.Helper()
			r.next(Busy)
			if rest, _ := proxytest.End(waiting[which]); len(rest) > 0 {
				t.Errorf("%s: % x was said", why, rest)
			}
		}
		enter(here)
		isEvicted(1, "of one source")
		enter(netip.MustParseAddr("127.0.0.7"))
		enter(netip.MustParseAddr("127.0.0.8"))
		isEvicted(0, "in sum")
		waiting[2].Close()
		r.next(ClientGone)
		enter(netip.MustParseAddr("127.0.0.6")) // in the place that has become free
		if len(r.ends) > 0 {
			t.Error("a handshake was ended for one that had a place")
		}
		last := waiting[len(waiting)-1]
		proxytest.Say(t, last, proxytest.Connect4(target.AddrPort(), ""))
		r.next4(target)
		proxytest.Granted4(t, last)
		if _, far := r.relayed(target); far == nil { // the place of the handshake that is over
			t.Error("no session")
		}
	})
}

func TestHandshakeCapIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Limits: Limits{HandshakesPerSource: 2}}, Listener{})
		for _, host := range []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"} {
			r.client(netip.MustParseAddr(host))
		}
		synctest.Wait()
		if len(r.ends) > 0 {
			t.Fatal("a handshake within the limits was closed")
		}
		r.client(netip.MustParseAddr("2001:db8::ffff:ffff"))
		r.next(Busy)
	})
}

// TestHandshakeEndNames what a connection can say at its end.
func TestHandshakeEndNames(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Reason
	}{
		{io.EOF, ClientGone},
		{syscall.ECONNRESET, ClientReset},
		{errors.New("something else"), Failed},
	} {
		if got := ReasonOf(handshakeEnd(test.err)); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
