//go:build linux

package main_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// paperCase is a case that shares a server with others.
type paperCase struct {
	name string
	run  func(t *testing.T, s *paperServer)
}

// paperRun runs the cases side by side.
func paperRun(t *testing.T, s *paperServer, cases []paperCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, s)
		})
	}
}

func TestPaperConnectReply(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"90 after the target answered, and it begins with 0", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.says("ping")
			far.hears("ping")
			far.says("pong")
			client.hears("pong")
		}},
		{"it carries the local address of the outgoing connection", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.3:0")
			client := s.ask(t, paperAsk(paperCONNECT, x.addr, "bob"))
			if got, want := client.granted().String(), x.accept(t).remote; got != want {
				t.Errorf("the reply says %s, the target sees %s", got, want)
			}
		}},
		{"4a: it carries the local address too", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.ask(t, paperAskName(paperCONNECT, "localhost", x.addr.Port(), "bob"))
			if got, want := client.granted().String(), x.accept(t).remote; got != want {
				t.Errorf("the reply says %s, the target sees %s", got, want)
			}
		}},
		{"what the target says first comes behind the reply", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.ask(t, paperAsk(paperCONNECT, x.addr, ""))
			x.accept(t).says("220 ready\r\n")
			client.granted()
			client.hears("220 ready\r\n")
		}},
	})
}

func TestPaperConnectRefused(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"a target that refuses: 91", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAsk(paperCONNECT, paperDeaf(t, nil), "bob"))
			client.refused(paperRejected)
			s.ended(t, client, "refused")
		}},
		{"4a: a target that refuses: 91", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAskName(paperCONNECT, "localhost", paperDeaf(t, nil).Port(), "bob"))
			client.refused(paperRejected)
			s.ended(t, client, "refused")
		}},
		{"port 0: 91", func(t *testing.T, s *paperServer) {
			s.ask(t, paperAsk(paperCONNECT, paperAt("127.0.0.1", 0), "bob")).refused(paperRejected)
		}},
		{"4a: port 0: 91", func(t *testing.T, s *paperServer) {
			s.ask(t, paperAskName(paperCONNECT, "localhost", 0, "bob")).refused(paperRejected)
		}},
		{"DSTIP 0.0.0.0: 91, without waiting for a host name", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			s.ask(t, paperAsk(paperCONNECT, paperAt("0.0.0.0", x.addr.Port()), "bob")).refused(paperRejected)
			x.untouched(t)
		}},
		{"4a: host 0.0.0.0: 91", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			s.ask(t, paperAskName(paperCONNECT, "0.0.0.0", x.addr.Port(), "bob")).refused(paperRejected)
			x.untouched(t)
		}},
		{"4a: host ::, the same address in IPv6: 91", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			s.ask(t, paperAskName(paperCONNECT, "::", x.addr.Port(), "bob")).refused(paperRejected)
			x.untouched(t)
		}},
	})
}

func TestPaperConnectHideAddress(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", hide_address: true}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`})
	paperRun(t, s, []paperCase{
		{"CONNECT: the reply carries zeros", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			if got := s.ask(t, paperAsk(paperCONNECT, x.addr, "bob")).granted(); got != paperAt("0.0.0.0", 0) {
				t.Errorf("the reply says %s", got)
			}
		}},
		{"BIND: the first reply still says where to connect", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAsk(paperBIND, paperAt("127.0.0.1", 21), "bob"))
			s.net.dial(t, "127.0.0.1", client.granted())
			client.granted()
		}},
	})
}

func TestPaperConnectBytes(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"one byte right behind the request reaches the target", paperBehind(1, false)},
		{"64 KiB right behind the request reach the target", paperBehind(64<<10, false)},
		{"4a: bytes right behind the request reach the target", paperBehind(1000, true)},
		{"a second request on the connection is data for the target", func(t *testing.T, s *paperServer) {
			x, other := paperListen(t, nil, "127.0.0.1:0"), paperListen(t, nil, "127.0.0.1:0")
			second := paperAsk(paperCONNECT, other.addr, "bob")
			client := s.ask(t, append(paperAsk(paperCONNECT, x.addr, "bob"), second...))
			client.granted()
			x.accept(t).hears(string(second))
			other.untouched(t)
		}},
		{"NUL bytes behind the request belong to the target", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.ask(t, append(paperAsk(paperCONNECT, x.addr, ""), 0, 0, 4, 0))
			client.granted()
			x.accept(t).hears("\x00\x00\x04\x00")
		}},
		{"8 MiB each way at once, byte for byte", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			paperExchange(t, client, far, 8<<20)
			s.ended(t, client, "closed")
			if r := s.session(t, client); r.Up != 8<<20 || r.Down != 8<<20+1 {
				t.Errorf("the log counts %d up and %d down", r.Up, r.Down)
			}
		}},
		{"a target that speaks and closes at once loses nothing", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			want := paperBytes(300_000)
			far.sends(want)
			far.leaves()
			if got := client.reads(len(want)); !bytes.Equal(got, want) {
				t.Error("other bytes arrived than were sent")
			}
			client.ends()
		}},
		{"64 clients at once, each with its own target", func(t *testing.T, s *paperServer) {
			echo := paperEcho(t, nil, "127.0.0.1:0")
			clients := make([]*paperConn, 64)
			for i := range clients {
				clients[i] = s.ask(t, paperAsk(paperCONNECT, echo, "bob"))
			}
			for _, c := range clients {
				c.granted()
				c.echoes()
			}
		}},
	})
}

// paperBehind sends n bytes in the same piece as the request.
func paperBehind(n int, name bool) func(t *testing.T, s *paperServer) {
	return func(t *testing.T, s *paperServer) {
		x := paperListen(t, nil, "127.0.0.1:0")
		request := paperAsk(paperCONNECT, x.addr, "bob")
		if name {
			request = paperAskName(paperCONNECT, "127.0.0.1", x.addr.Port(), "bob")
		}
		data := paperBytes(n)
		client := s.ask(t, slices.Concat(request, data))
		client.granted()
		if !bytes.Equal(x.accept(t).reads(n), data) {
			t.Error("other bytes arrived than were sent")
		}
	}
}

// paperExchange sends n bytes each way at once, and n+1 down, and closes both
// directions; every byte must arrive, and then the end.
func paperExchange(t *testing.T, a, b *paperConn, n int) {
	t.Helper()
	up, down := paperBytes(n), paperBytes(n+1)
	var sending sync.WaitGroup
	send := func(c *paperConn, data []byte) {
		if _, err := c.Write(data); err != nil {
			t.Errorf("send: %v", err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	}
	sending.Go(func() { send(a, up) })
	sending.Go(func() { send(b, down) })
	var received sync.WaitGroup
	receive := func(c *paperConn, want []byte) {
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("of %d bytes %d arrived, or others; %v", len(want), len(got), err)
		}
	}
	received.Go(func() { receive(b, up) })
	received.Go(func() { receive(a, down) })
	sending.Wait()
	received.Wait()
}

// pair connects a client with a target of its own.
func (s *paperServer) pair(t *testing.T) (client, far *paperConn) {
	t.Helper()
	return s.join(t, "", paperListen(t, s.net, "127.0.0.1:0"), "bob")
}

func TestPaperConnectEnds(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"the client's FIN goes on to the target, and the target may still speak", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.says("question")
			client.stops()
			far.hears("question")
			far.ends()
			far.says("answer")
			client.hears("answer")
			far.leaves()
			client.ends()
			s.ended(t, client, "closed")
		}},
		{"the target's FIN goes on to the client, and the client may still speak", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			far.stops()
			client.ends()
			client.says("last words")
			far.hears("last words")
			client.leaves()
			far.ends()
			s.ended(t, client, "closed")
		}},
		{"a FIN in the same segment as the request's last bytes", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.ask(t, append(paperAsk(paperCONNECT, x.addr, "bob"), "data"...))
			client.stops()
			far := x.accept(t)
			far.hears("data")
			far.ends()
			far.says("still here")
			client.granted()
			client.hears("still here")
		}},
	})
}

func TestPaperConnectResets(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"the client's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.resets()
			far.isReset()
			s.ended(t, client, "client-reset")
		}},
		{"the target's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			far.resets()
			client.isReset()
			s.ended(t, client, "target-reset")
		}},
		{"a reset after the other direction's FIN is a reset all the same", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.stops()
			far.ends()
			far.resets()
			client.isReset()
			s.ended(t, client, "target-reset")
		}},
		{"a target that closes while the client sends on: the client learns of it", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.says("unread")
			far.leaves() // with a byte unread, or a byte to come: the kernel resets
			if _, err := io.Copy(client, paperZeros{}); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the client sends on and on; it ended with %v", err)
			}
		}},
	})
}

// paperZeros never ends.
type paperZeros struct{}

func (paperZeros) Read(b []byte) (int, error) { return len(b), nil }

// A refusal must reach a client that has sent more than its request: a close
// with unread bytes would turn into a reset that overtakes the reply.
func TestPaperRefusalIsNeverLost(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: []
`})
	x := paperListen(t, nil, "127.0.0.1:0")
	paperRun(t, s, []paperCase{
		{"no rule: 91 and FIN", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAsk(paperCONNECT, x.addr, "bob"))
			client.refused(paperRejected)
			s.ended(t, client, "denied")
		}},
		{"64 KiB behind the request", func(t *testing.T, s *paperServer) {
			s.ask(t, slices.Concat(paperAsk(paperCONNECT, x.addr, "bob"), paperBytes(64<<10))).refused(paperRejected)
		}},
		{"bytes that come after the reply", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAsk(paperCONNECT, x.addr, "bob"))
			if code, _ := client.replied(); code != paperRejected {
				t.Errorf("reply %d, want 91", code)
			}
			client.sends(paperBytes(32 << 10))
			client.ends()
		}},
		{"DSTIP 0.0.1.0 is an address: answered without waiting for a host", func(t *testing.T, s *paperServer) {
			s.ask(t, paperAsk(paperCONNECT, paperAt("0.0.1.0", 80), "bob")).refused(paperRejected)
		}},
		{"BIND: 91 and FIN, with bytes behind it", func(t *testing.T, s *paperServer) {
			s.ask(t, slices.Concat(paperAsk(paperBIND, x.addr, "bob"), paperBytes(16<<10))).refused(paperRejected)
		}},
	})
	t.Cleanup(func() { x.untouched(t) })
}

func TestPaperUserID(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	wide := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", userid_max: 1024}
rules: {allow: everything, from: loopback, to: any}
`})
	every := make([]byte, 255)
	for i := range every {
		every[i] = byte(i + 1)
	}
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for _, c := range []struct {
		name string
		s    *paperServer
		user string
		code byte
	}{
		{"none", s, "", paperGranted},
		{"one byte", s, "u", paperGranted},
		{"every byte but NUL", s, string(every), paperGranted},
		{"255 bytes", s, paperLong(255), paperGranted},
		{"256 bytes", s, paperLong(256), paperRejected},
		{"1,024 bytes", s, paperLong(1024), paperRejected},
		{"64 KiB", s, paperLong(64 << 10), paperRejected},
		{"1,024 bytes where 1,024 are allowed", wide, paperLong(1024), paperGranted},
		{"1,025 bytes where 1,024 are allowed", wide, paperLong(1025), paperRejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, request := range [][]byte{
				paperAsk(paperCONNECT, echo, c.user),
				paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), c.user),
			} {
				client := c.s.ask(t, request)
				client.answered(c.code)
				if c.code == paperGranted {
					client.echoes()
				} else {
					c.s.ended(t, client, "bad-request")
				}
			}
		})
	}
}

func TestPaper4a(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	echo := paperEcho(t, nil, "127.0.0.1:0")
	ask := func(t *testing.T, ip, host string) *paperConn {
		t.Helper()
		request := paperAsk(paperCONNECT, paperAt(ip, echo.Port()), "bob")
		return s.ask(t, append(append(request, host...), 0))
	}
	for _, c := range []struct {
		name, ip, host string
		code           byte
	}{
		{"DSTIP 0.0.0.1", "0.0.0.1", "localhost", paperGranted},
		{"DSTIP 0.0.0.255", "0.0.0.255", "localhost", paperGranted},
		{"a host in capitals", "0.0.0.1", "LocalHost", paperGranted},
		{"a host with a trailing dot", "0.0.0.1", "localhost.", paperGranted},
		{"an IPv4 address as host", "0.0.0.1", "127.0.0.1", paperGranted},
		{"no host: 91", "0.0.0.1", "", paperRejected},
		{"255 bytes, which no name server can know: 91", "0.0.0.1", strings.Repeat("abcd.", 51), paperRejected},
		{"256 bytes: 91", "0.0.0.1", paperLong(256), paperRejected},
		{"64 KiB: 91", "0.0.0.1", paperLong(64 << 10), paperRejected},
		{"a space in the name: 91", "0.0.0.1", "local host", paperRejected},
		{"a control byte in the name: 91", "0.0.0.1", "localhost\n", paperRejected},
		{"a port in the name: 91", "0.0.0.1", "localhost:80", paperRejected},
		{"a byte over 127 in the name: 91", "0.0.0.1", "localh\xf6st", paperRejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := ask(t, c.ip, c.host)
			client.answered(c.code)
			if c.code == paperGranted {
				client.echoes()
			}
		})
	}
}

const paperNamesHosts = `
127.0.0.1 localhost
::1 six.test
127.0.0.7 second.test
127.0.0.8 second.test
198.19.0.1 slow.test
127.0.0.8 slow.test
2001:db8:dead::1 slow6.test
127.0.0.8 slow6.test
127.0.0.7 neither.test
::1 neither.test
203.0.113.1 nowhere.test
`

func TestPaperNames(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, settings: paperOpen, hosts: paperNamesHosts})
	v4, v6 := paperEcho(t, w.gateway, "127.0.0.8:0"), paperEcho(t, w.gateway, "[::1]:0")
	for _, c := range []struct {
		name, host string
		port       uint16
	}{
		{"an IPv6 address as host", "::1", v6.Port()},
		{"the first address refuses, the second serves", "second.test", v4.Port()},
		{"the first address is silent, the second serves", "slow.test", v4.Port()},
		{"the IPv6 address is silent, the IPv4 one serves", "slow6.test", v4.Port()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, paperAskName(paperCONNECT, c.host, c.port, "bob"))
			client.granted()
			client.echoes()
		})
	}
	t.Run("only an IPv6 address: connected, and the reply says 0.0.0.0 and the port", func(t *testing.T) {
		t.Parallel()
		x := paperListen(t, w.gateway, "[::1]:0")
		client := s.ask(t, paperAskName(paperCONNECT, "six.test", x.addr.Port(), "bob"))
		want := netip.MustParseAddrPort(x.accept(t).remote).Port()
		if got := client.granted(); got != paperAt("0.0.0.0", want) {
			t.Errorf("the reply says %s, want 0.0.0.0:%d", got, want)
		}
	})
}

func TestPaperNamesRefused(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) { return nil, false })
	s := startPaper(t, paperSetup{net: w.gateway, settings: paperOpen, dns: "127.0.0.53", hosts: paperNamesHosts})
	for _, c := range []struct {
		name    string
		request []byte
		reason  string
	}{
		{"every address refuses: 91", paperAskName(paperCONNECT, "neither.test", 9, "bob"), "refused"},
		{"no route to the target: 91", paperAsk(paperCONNECT, paperAt(paperUnreachable, 80), "bob"), "unreachable"},
		{"4a: no route to the target: 91", paperAskName(paperCONNECT, "nowhere.test", 80, "bob"), "unreachable"},
		{"an unknown name: 91", paperAskName(paperCONNECT, "unknown.test", 80, "bob"), "no-name"},
		{"BIND for an unknown name: 91", paperAskName(paperBIND, "unknown.test", 80, "bob"), "no-name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, c.request)
			client.refused(paperRejected)
			s.ended(t, client, c.reason)
		})
	}
}

// Clients may come over IPv6, and over IPv4 to a socket of both families.
func TestPaperConnectFamilies(t *testing.T) {
	t.Parallel()
	rules := `
log: {format: json}
rules:
  - {allow: six, from: "::1", to: any, bind: {primary: optional}}
  - {allow: four, from: 127.0.0.0/24, to: any}
`
	echo := paperEcho(t, nil, "127.0.0.1:0")
	six := startPaper(t, paperSetup{settings: rules, listen: "[::1]:0"})
	both := startPaper(t, paperSetup{settings: rules, listen: "[::]:0"})
	for _, c := range []struct {
		name string
		s    *paperServer
		from string
		code byte
		rule string
	}{
		{"a client over IPv6", six, "::1", paperGranted, "six"},
		{"a client over IPv6, where both are heard", both, "::1", paperGranted, "six"},
		{"a client over IPv4, where both are heard, is known by its IPv4 address", both, "127.0.0.1", paperGranted, "four"},
		{"an IPv4 address that no rule lists, where both are heard", both, "127.0.1.1", paperRejected, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := c.s.net.dial(t, c.from, paperAt(c.from, c.s.addr().Port()))
			client.sends(paperAsk(paperCONNECT, echo, ""))
			client.answered(c.code)
			client.leaves()
			if r := c.s.session(t, client); r.Rule != c.rule {
				t.Errorf("the log says %+v", r)
			}
		})
	}
	t.Run("BIND over IPv6", func(t *testing.T) {
		t.Parallel()
		client := six.ask(t, paperAsk(paperBIND, paperAt("127.0.0.5", 21), ""))
		peer := six.net.dial(t, "127.0.0.5", client.granted())
		client.granted()
		peer.says("hello")
		client.hears("hello")
	})
}
