//go:build unix

package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// traffic counts what the server does with its clients' connections until it
// asks the policy: reads that bring bytes, and writes, each of which is a round
// trip for a client that waits.
type traffic struct{ reads, writes atomic.Int32 }

func (c *traffic) String() string {
	return fmt.Sprintf("%d reads, %d writes", c.reads.Load(), c.writes.Load())
}

type countedListener struct {
	net.Listener
	traffic *traffic
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{c.(proxytest.Stream), l.traffic}, nil
}

type counted struct {
	proxytest.Stream
	traffic *traffic
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if n > 0 {
		c.traffic.reads.Add(1)
	}
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	c.traffic.writes.Add(1)
	return c.Stream.Write(b)
}

// trafficOf says how a server came to know what a client wants. The socket may
// be wrapped once more; with terms the client speaks TLS.
func trafficOf(t *testing.T, l Listener, terms *tls.Config, opening []byte, wrap func(net.Listener) net.Listener) (said string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		passed := new(traffic)
		asked := make(chan string, 1)
		s := &Server{Authenticator: door{login: LoginOptional}, Policy: deciding(func(context.Context, *Request) (Grant, error) {
			asked <- passed.String()
			return Grant{}, Denied
		})}
		r := newRig(t, s)
		r.network = proxytest.NewNetwork(netip.MustParseAddr("127.0.0.1"), 64<<10)
		r.in = r.network.MustListen(proxyAt.String())
		s.Outbound = r.network
		r.serve(wrap(countedListener{r.in, passed}), l)
		var c net.Conn = r.client()
		if terms != nil {
			secure := tls.Client(c, terms)
			if err := secure.Handshake(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // what the client says next is read by itself
			c = secure
		}
		proxytest.Say(t, c, opening)
		said = <-asked
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return said
}

// TestDetectionCostsNothing: where every protocol is spoken on one port, a
// client that says all at once is understood after as many reads and answers as
// where only its own is. That is one read, and what the protocol itself answers.
func TestDetectionCostsNothing(t *testing.T) {
	ca := newAuthority(t)
	plainly := func(l net.Listener) net.Listener { return l }
	get := proxytest.Protocol{Name: "http, GET", Opening: func(to netip.AddrPort) []byte {
		return fmt.Appendf(nil, "GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	}}
	for _, c := range []struct {
		proxytest.Protocol
		own  Protocol
		want string
	}{
		{proxytest.SOCKS4("bob"), SOCKS4, "1 reads, 0 writes"},
		{proxytest.SOCKS4a("bob"), SOCKS4a, "1 reads, 0 writes"},
		{proxytest.SOCKS5("", ""), SOCKS5, "1 reads, 1 writes"},
		{proxytest.SOCKS5("fred", "secret"), SOCKS5, "1 reads, 2 writes"},
		{proxytest.HTTP(""), HTTP, "1 reads, 0 writes"},
		{get, HTTP, "1 reads, 0 writes"},
	} {
		opening := c.Opening(targetAt)
		for name, l := range map[string]Listener{
			"every protocol, and TLS": {TLS: ca.server(t)},
			"its own only":            {Protocols: []Protocol{c.own}},
		} {
			if got := trafficOf(t, l, nil, opening, plainly); got != c.want {
				t.Errorf("%s, where it is spoken with %s: %s, want %s", c.Name, name, got, c.want)
			}
		}
		// Over TLS the other server is one that knows of nothing but TLS: it is crypto/tls that accepts.
		only := trafficOf(t, Listener{Protocols: []Protocol{c.own}}, ca.client(), opening, func(l net.Listener) net.Listener {
			return tls.NewListener(l, ca.server(t))
		})
		mixed := trafficOf(t, Listener{TLS: ca.server(t)}, ca.client(), opening, plainly)
		if mixed != only {
			t.Errorf("%s over TLS: %s, and %s where nothing but TLS is spoken", c.Name, mixed, only)
		}
	}
}
