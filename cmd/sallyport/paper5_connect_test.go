//go:build linux

package main_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPaper5ConnectReply(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	for _, host := range []string{"127.0.0.3", "::1"} {
		for name, request := range map[string]func(to netip.AddrPort) []byte{
			"by its address":         func(to netip.AddrPort) []byte { return paper5Ask(paperCONNECT, to) },
			"by its address's text":  func(to netip.AddrPort) []byte { return paper5AskName(paperCONNECT, to.Addr().String(), to.Port()) },
			"by its mapped address":  func(to netip.AddrPort) []byte { return paper5Ask(paperCONNECT, paper5Mapped(to)) },
			"in one piece with more": func(to netip.AddrPort) []byte { return append(paper5Ask(paperCONNECT, to), "more"...) },
		} {
			t.Run(host+" "+name+": the reply carries the local address of the outgoing connection", func(t *testing.T) {
				t.Parallel()
				x := paperListen(t, nil, netip.AddrPortFrom(netip.MustParseAddr(host), 0).String())
				client := s.ask5(t, request(x.addr))
				if got, want := client.granted5().String(), x.accept(t).remote; got != want {
					t.Errorf("the reply says %s, the target sees %s", got, want)
				}
			})
		}
	}
	paperRun(t, s, []paperCase{
		{"what the target says first comes behind the reply", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.ask5(t, paper5Ask(paperCONNECT, x.addr))
			x.accept(t).says("220 ready\r\n")
			client.granted5()
			client.hears("220 ready\r\n")
		}},
		{"by name, in odd case and with a dot", func(t *testing.T, s *paperServer) {
			echo := paperEcho(t, nil, "127.0.0.1:0")
			for _, host := range []string{"localhost", "LocalHost", "localhost."} {
				client := s.ask5(t, paper5AskName(paperCONNECT, host, echo.Port()))
				client.granted5()
				client.echoes()
				client.leaves()
				if r := s.session(t, client); r.Protocol != "socks5" || r.Command != "connect" || r.Target != fmt.Sprintf("localhost:%d", echo.Port()) || r.User != "" {
					t.Errorf("the log says %+v", r)
				}
			}
		}},
	})
}

// paper5Mapped writes an IPv4 address as IPv6.
func paper5Mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

func TestPaper5ConnectHideAddress(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen + "hide_address: true\n"})
	client := s.ask5(t, paper5Ask(paperCONNECT, paperEcho(t, nil, "[::1]:0")))
	if at := client.granted5(); !at.Addr().IsUnspecified() || at.Port() != 0 {
		t.Errorf("the reply says %s", at)
	}
	client.echoes()
}

// Each failure has the code of the RFC that says what it was.
func TestPaper5ConnectRefused(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	x := paperListen(t, nil, "127.0.0.1:0")
	port := x.addr.Port()
	for _, c := range []struct {
		name    string
		request []byte
		codes   []byte
		reason  string
	}{
		{"a target that refuses: 5", paper5Ask(paperCONNECT, paperDeaf(t, nil)), []byte{paper5Refused}, "refused"},
		{"the same by name: 5", paper5AskName(paperCONNECT, "localhost", paperDeaf(t, nil).Port()), []byte{paper5Refused}, "refused"},
		{"port 0", paper5Ask(paperCONNECT, paperAt("127.0.0.1", 0)), []byte{paper5Failure}, "bad-request"},
		{"0.0.0.0", paper5Ask(paperCONNECT, paperAt("0.0.0.0", port)), []byte{paper5Failure}, "bad-request"},
		{"::", paper5Ask(paperCONNECT, paperAt("::", port)), []byte{paper5Failure}, "bad-request"},
		{"0.0.0.0, mapped", paper5Ask(paperCONNECT, paperAt("::ffff:0.0.0.0", port)), []byte{paper5Failure}, "bad-request"},
		{"no name", paper5AskName(paperCONNECT, "", port), []byte{paper5Failure, paper5NoHost}, "bad-request"},
		{"a name with NUL is not cut at it", paper5AskName(paperCONNECT, "localhost\x00.example", port), []byte{paper5Failure, paper5NoHost}, "bad-request"},
		{"a name that ends in NUL", paper5AskName(paperCONNECT, "localhost\x00", port), []byte{paper5Failure, paper5NoHost}, "bad-request"},
		{"a name with a newline", paper5AskName(paperCONNECT, "localhost\n", port), []byte{paper5Failure, paper5NoHost}, "bad-request"},
		{"a name with a port", paper5AskName(paperCONNECT, "localhost:80", port), []byte{paper5Failure, paper5NoHost}, "bad-request"},
		{"255 bytes", paper5AskName(paperCONNECT, strings.Repeat("abcd.", 51), port), []byte{paper5Failure, paper5NoHost}, "bad-request"},
		{"our own address: 2", paper5Ask(paperCONNECT, s.addr()), []byte{paper5NotAllowed}, "loop"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := s.ask5(t, c.request)
			client.refused5(c.codes...)
			s.ended(t, client, c.reason)
		})
	}
	t.Cleanup(func() { x.untouched(t) })
}

func TestPaper5ConnectUnreachable(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) { return nil, false })
	world := startPaper(t, paperSetup{net: w.gateway, settings: paperOpen + "timeouts: {connect: 500ms}\n", dns: "127.0.0.53", hosts: paperNamesHosts})
	island := startPaper(t, paperSetup{net: newPaperNet(t), settings: paperOpen})
	for _, c := range []struct {
		name    string
		s       *paperServer
		request []byte
		code    byte
		reason  string
	}{
		{"no network: 3", island, paper5Ask(paperCONNECT, paperAt(paperPublic, 80)), paper5NoNetwork, "unreachable"},
		{"no network, IPv6: 3", island, paper5Ask(paperCONNECT, paperAt(paperPublic6, 80)), paper5NoNetwork, "unreachable"},
		{"no host: 4", world, paper5Ask(paperCONNECT, paperAt(paperUnreachable, 80)), paper5NoHost, "unreachable"},
		{"an unknown name: 4", world, paper5AskName(paperCONNECT, "unknown.test", 80), paper5NoHost, "no-name"},
		{"BIND for an unknown name: 4", world, paper5AskName(paperBIND, "unknown.test", 80), paper5NoHost, "no-name"},
		{"a target that is silent: 6", world, paper5Ask(paperCONNECT, paperAt(paperSilent, 80)), paper5Expired, "timed-out"},
		{"a target that is silent, IPv6: 6", world, paper5Ask(paperCONNECT, paperAt(paperSilent6, 80)), paper5Expired, "timed-out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := c.s.ask5(t, c.request)
			client.refused5(c.code)
			c.s.ended(t, client, c.reason)
		})
	}
	t.Run("a name with addresses of both families: the one that serves", func(t *testing.T) {
		t.Parallel()
		echo := paperEcho(t, w.gateway, "127.0.0.8:0")
		client := world.ask5(t, paper5AskName(paperCONNECT, "slow6.test", echo.Port()))
		client.granted5()
		client.echoes()
	})
}

func TestPaper5ConnectBytes(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	behind := func(n int, name bool) func(t *testing.T, s *paperServer) {
		return func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			request, data := paper5Ask(paperCONNECT, x.addr), paperBytes(n)
			if name {
				request = paper5AskName(paperCONNECT, "127.0.0.1", x.addr.Port())
			}
			client := s.ask(t, slices.Concat(paper5Open(request), data))
			client.hears(paper5ChoseNone)
			client.granted5()
			if !bytes.Equal(x.accept(t).reads(n), data) {
				t.Error("other bytes arrived than were sent")
			}
		}
	}
	paperRun(t, s, []paperCase{
		{"greeting, request and one byte in one piece", behind(1, false)},
		{"greeting, request and 64 KiB in one piece", behind(64<<10, false)},
		{"by name: greeting, request and 1,000 bytes in one piece", behind(1000, true)},
		{"a second request on the connection is data for the target", func(t *testing.T, s *paperServer) {
			x, other := paperListen(t, nil, "127.0.0.1:0"), paperListen(t, nil, "127.0.0.1:0")
			second := string(paper5Open(paper5Ask(paperCONNECT, other.addr)))
			client := s.ask5(t, append(paper5Ask(paperCONNECT, x.addr), second...))
			client.granted5()
			x.accept(t).hears(second)
			other.untouched(t)
		}},
		{"8 MiB each way at once, byte for byte", func(t *testing.T, s *paperServer) {
			client, far := s.pair5(t)
			paperExchange(t, client, far, 8<<20)
			if r := s.session(t, client); r.Up != 8<<20 || r.Down != 8<<20+1 || r.Reason != "closed" {
				t.Errorf("the log says %+v", r)
			}
		}},
		{"a target that speaks and closes at once loses nothing", func(t *testing.T, s *paperServer) {
			client, far := s.pair5(t)
			want := paperBytes(300_000)
			far.sends(want)
			far.leaves()
			if got := client.reads(len(want)); !bytes.Equal(got, want) {
				t.Error("other bytes arrived than were sent")
			}
			client.ends()
		}},
		{"64 clients at once, each with its own session", func(t *testing.T, s *paperServer) {
			echo := paperEcho(t, nil, "127.0.0.1:0")
			clients := make([]*paperConn, 64)
			for i := range clients {
				clients[i] = s.ask5(t, paper5Ask(paperCONNECT, echo))
			}
			for _, c := range clients {
				c.granted5()
				c.echoes()
			}
		}},
	})
}

func TestPaper5ConnectEnds(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"the client's FIN goes on to the target, and the target may still speak", func(t *testing.T, s *paperServer) {
			client, far := s.pair5(t)
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
			client, far := s.pair5(t)
			far.stops()
			client.ends()
			client.says("last words")
			far.hears("last words")
			client.leaves()
			far.ends()
			s.ended(t, client, "closed")
		}},
		{"greeting, request, data and FIN at once", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.ask(t, append(paper5Open(paper5Ask(paperCONNECT, x.addr)), "data"...))
			client.stops()
			far := x.accept(t)
			far.hears("data")
			far.ends()
			far.says("still here")
			client.hears(paper5ChoseNone)
			client.granted5()
			client.hears("still here")
		}},
		{"the client's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, far := s.pair5(t)
			client.resets()
			far.isReset()
			s.ended(t, client, "client-reset")
		}},
		{"the target's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, far := s.pair5(t)
			far.resets()
			client.isReset()
			s.ended(t, client, "target-reset")
		}},
	})
}

// A refusal must reach a client that has sent more than its request.
func TestPaper5RefusalIsNeverLost(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: "log: {format: json}\nrules: []\n"})
	x := paperListen(t, nil, "127.0.0.1:0")
	for name, request := range map[string][]byte{
		"CONNECT":           paper5Ask(paperCONNECT, x.addr),
		"CONNECT by name":   paper5AskName(paperCONNECT, "localhost", x.addr.Port()),
		"BIND":              paper5Ask(paperBIND, x.addr),
		"CONNECT over IPv6": paper5Ask(paperCONNECT, paperAt("::1", x.addr.Port())),
	} {
		for _, more := range []int{0, 1, 64 << 10} {
			t.Run(fmt.Sprintf("%s, and %d bytes: 2", name, more), func(t *testing.T) {
				t.Parallel()
				client := s.ask(t, slices.Concat(paper5Open(request), paperBytes(more)))
				client.hears(paper5ChoseNone)
				client.refused5(paper5NotAllowed)
				s.ended(t, client, "denied")
			})
		}
	}
	t.Cleanup(func() { x.untouched(t) })
}
