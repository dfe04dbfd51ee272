//go:build linux

package main_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// paper5Associate is the command.
const paper5Associate = 3

// paperSocket is a UDP socket at the address.
func paperSocket(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(paperAt(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func paperOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// paperSend sends the parts as one datagram.
func paperSend(t *testing.T, c *net.UDPConn, to netip.AddrPort, parts ...[]byte) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(slices.Concat(parts...), to); err != nil {
		t.Fatal(err)
	}
}

// paperReceive checks the next datagram and returns its sender.
func paperReceive(t *testing.T, c *net.UDPConn, want string) netip.AddrPort {
	t.Helper()
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("received %q, %v; want %q", b[:n], err, want)
	}
	return from
}

// paper5Head is the head of a datagram for the target.
func paper5Head(fragment byte, to netip.AddrPort) []byte {
	head := paper5Ask(0, to)
	head[0], head[1], head[2] = 0, 0, fragment
	return head
}

// paperAssociation is an association through which something went already.
type paperAssociation struct {
	client, target *net.UDPConn
	at             netip.AddrPort // of the proxy
	out            netip.AddrPort // from where it sends to the target
}

// paper5Bad says what must not arrive, but for the last.
func paper5Bad() map[string]func(t *testing.T, e paperAssociation) {
	return map[string]func(t *testing.T, e paperAssociation){
		"nothing": func(*testing.T, paperAssociation) {},
		"a stranger of another address": func(t *testing.T, e paperAssociation) {
			paperSend(t, paperSocket(t, "127.0.0.9"), e.at, paper5Head(0, paperOf(e.target)), []byte("strange"))
		},
		"a stranger of another port": func(t *testing.T, e paperAssociation) {
			paperSend(t, paperSocket(t, "127.0.0.1"), e.at, paper5Head(0, paperOf(e.target)), []byte("strange"))
		},
		"a stranger at the outer side": func(t *testing.T, e paperAssociation) {
			paperSend(t, paperSocket(t, "127.0.0.9"), e.out, []byte("strange"))
			paperSend(t, paperSocket(t, paperOf(e.target).Addr().String()), e.out, []byte("strange"))
		},
		"reserved bytes": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, []byte{1, 0}, paper5Head(0, paperOf(e.target))[2:], []byte("bad"))
		},
		"an unknown address type": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, []byte{0, 0, 0, 9}, paper5Head(0, paperOf(e.target))[4:], []byte("bad"))
		},
		"half a head": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, paper5Head(0, paperOf(e.target))[:7])
		},
		"a second fragment without a first": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, paper5Head(2, paperOf(e.target)), []byte("bad"))
		},
		"a last fragment alone": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, paper5Head(0x82, paperOf(e.target)), []byte("bad"))
		},
		"a first fragment without a last": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, paper5Head(1, paperOf(e.target)), []byte("bad"))
		},
		"a fragment left out": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, paper5Head(1, paperOf(e.target)), []byte("b"))
			paperSend(t, e.client, e.at, paper5Head(0x83, paperOf(e.target)), []byte("ad"))
		},
		"fragments that are whole": func(t *testing.T, e paperAssociation) {
			paperSend(t, e.client, e.at, paper5Head(1, paperOf(e.target)), []byte("in "))
			paperSend(t, e.client, e.at, paper5Head(2, paperOf(e.target)), []byte("three "))
			paperSend(t, e.client, e.at, paper5Head(0x83, paperOf(e.target)), []byte("pieces"))
			paperReceive(t, e.target, "in three pieces")
		},
	}
}

// TestPaper5UDP: each case sends what must not arrive, and then "good", which
// must be the first that does: the datagrams of a socket keep their order.
func TestPaper5UDP(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: "log: {format: json}\nrules: {allow: everything, from: loopback, to: any, commands: udp}\n"})
	for name, bad := range paper5Bad() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			control := s.ask5(t, paper5Ask(paper5Associate, paperAt("0.0.0.0", 0)))
			e := paperAssociation{client: paperSocket(t, "127.0.0.1"), target: paperSocket(t, "127.0.0.2"), at: control.granted5()}
			paperSend(t, e.client, e.at, paper5Head(0, paperOf(e.target)), []byte("first"))
			e.out = paperReceive(t, e.target, "first")
			bad(t, e)
			paperSend(t, e.client, e.at, paper5Head(0, paperOf(e.target)), []byte("good"))
			paperReceive(t, e.target, "good")
			paperSend(t, e.target, e.out, []byte("answer"))
			paperReceive(t, e.client, string(paper5Head(0, paperOf(e.target)))+"answer")
			control.leaves()
			s.ended(t, control, "closed")
		})
	}
}
