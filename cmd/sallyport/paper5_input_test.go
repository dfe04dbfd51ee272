//go:build linux

package main_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// paper5Handshake is all that a client says, and what it is told.
type paper5Handshake struct {
	name  string
	s     *paperServer
	bytes []byte
	said  string // before the reply
}

// paper5Handshakes lead to the target: with and without a login, by address and
// by name. The servers give up on a handshake soon enough to wait for it.
func paper5Handshakes(t *testing.T, to netip.AddrPort, timeouts string) []paper5Handshake {
	t.Helper()
	plain := startPaper(t, paperSetup{settings: paperOpen + timeouts})
	staff := startPaper5(t, paper5Staff+timeouts)
	login := slices.Concat(paper5Greet(paper5Password), paper5Login("fred", "correct horse"))
	return []paper5Handshake{
		{"an address", plain, paper5Open(paper5Ask(paperCONNECT, to)), paper5ChoseNone},
		{"a name", plain, paper5Open(paper5AskName(paperCONNECT, "localhost", to.Port())), paper5ChoseNone},
		{"a login and an address", staff, append(login, paper5Ask(paperCONNECT, to)...), paper5ChoseLogin + paper5LoggedIn},
	}
}

func TestPaper5InputCut(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for _, h := range paper5Handshakes(t, echo, "") {
		t.Run(h.name+": in two pieces, cut at every byte", func(t *testing.T) {
			t.Parallel()
			for i := 1; i < len(h.bytes); i++ {
				client := h.s.dial(t, "")
				client.sends(h.bytes[:i])
				client.sends(h.bytes[i:], []byte("behind"))
				client.hears(h.said)
				client.granted5()
				client.hears("behind")
			}
		})
		t.Run(h.name+": byte by byte", func(t *testing.T) {
			t.Parallel()
			client := h.s.dial(t, "")
			for i := range h.bytes {
				client.sends(h.bytes[i : i+1])
			}
			client.hears(h.said)
			client.granted5()
			client.echoes()
		})
		t.Run(h.name+": cut off at every byte by a FIN", func(t *testing.T) {
			t.Parallel()
			for i := range h.bytes {
				client := h.s.ask(t, h.bytes[:i])
				client.stops()
				client.wasTold(h.said)
				h.s.ended(t, client, "client-gone")
			}
		})
		t.Run(h.name+": cut off at every byte by a reset", func(t *testing.T) {
			t.Parallel()
			for i := range h.bytes {
				client := h.s.ask(t, h.bytes[:i])
				client.resets()
				h.s.session(t, client)
			}
		})
	}
}

func TestPaper5InputSilence(t *testing.T) {
	t.Parallel()
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for _, h := range paper5Handshakes(t, echo, "timeouts: {handshake: 1s}\n") {
		t.Run(h.name+": cut off at every byte by silence", func(t *testing.T) {
			t.Parallel()
			var clients []*paperConn
			for i := range h.bytes {
				clients = append(clients, h.s.ask(t, h.bytes[:i]))
			}
			for _, client := range clients {
				client.wasTold(h.said)
				h.s.ended(t, client, "handshake-slow")
			}
		})
	}
}

// wasTold checks that nothing but some first bytes of the text was said before
// the connection's end.
func (c *paperConn) wasTold(text string) {
	c.t.Helper()
	said, _ := io.ReadAll(c) // the record tells how it ended
	if !strings.HasPrefix(text, string(said)) {
		c.t.Fatalf("% x was said, want no more than % x", said, text)
	}
}

func TestPaper5InputCommands(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	x := paperListen(t, nil, "127.0.0.1:0")
	for _, command := range []byte{0, 4, 'Z', 0x81, 0xf0, 255} {
		t.Run(fmt.Sprintf("command %d: 7", command), func(t *testing.T) {
			t.Parallel()
			for _, request := range [][]byte{
				paper5Ask(command, x.addr),
				paper5Ask(command, paperAt("::1", x.addr.Port())),
				paper5AskName(command, "127.0.0.1", x.addr.Port()),
			} {
				client := s.ask5(t, request)
				client.refused5(paper5NoSuchAsk)
				s.ended(t, client, "unsupported")
			}
		})
	}
	for _, family := range []byte{0, 2, 5, 0x83, 255} {
		t.Run(fmt.Sprintf("address type %d: 8", family), func(t *testing.T) {
			t.Parallel()
			request := paper5Ask(paperCONNECT, x.addr)
			request[3] = family
			client := s.ask5(t, request)
			client.refused5(paper5NoSuchFamily)
			s.ended(t, client, "bad-request")
		})
	}
	for name, request := range map[string]string{
		"the reserved byte is 1":   "\x05\x01\x01\x01\x7f\x00\x00\x01\x00\x50",
		"a request of SOCKS 4":     "\x04\x01\x00\x50\x7f\x00\x00\x01bob\x00",
		"a login out of its place": "\x01\x04fred\x01x",
	} {
		t.Run(name+": 1", func(t *testing.T) {
			t.Parallel()
			client := s.ask5(t, []byte(request))
			client.refused5(paper5Failure)
			s.ended(t, client, "bad-request")
		})
	}
	t.Cleanup(func() { x.untouched(t) })
}

// What a listener does not serve it does not answer.
func TestPaper5InputNotServed(t *testing.T) {
	t.Parallel()
	settings := func(protocols string) string {
		return fmt.Sprintf(`
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", protocols: %s}
rules: {allow: everything, from: loopback, to: any}
`, protocols)
	}
	x := paperListen(t, nil, "127.0.0.1:0")
	five, four := paper5Open(paper5Ask(paperCONNECT, x.addr)), paperAsk(paperCONNECT, x.addr, "bob")
	for _, c := range []struct {
		protocols string
		bytes     []byte
	}{
		{"[socks4, socks4a]", five},
		{"[http]", five},
		{"[http]", four},
		{"[socks5]", four},
	} {
		t.Run(fmt.Sprintf("%s, and %d comes: closed without a byte", c.protocols, c.bytes[0]), func(t *testing.T) {
			t.Parallel()
			s := startPaper(t, paperSetup{settings: settings(c.protocols)})
			client := s.ask(t, c.bytes)
			client.isClosed()
			s.ended(t, client, "garbage")
		})
	}
	t.Cleanup(func() { x.untouched(t) })
}

func TestPaper5InputAtRandom(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: "log: {format: json}\ntimeouts: {handshake: 500ms}\nrules: []\n"})
	before := s.descriptors(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 5))
	clients := make([]*paperConn, 300)
	for i := range clients {
		b := make([]byte, 1+rnd.IntN(600))
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		b[0] = 5
		if i%2 == 0 {
			b = append(paper5Open([]byte{5, byte(rnd.IntN(5)), 0, byte(rnd.IntN(6))}), b...)
		}
		clients[i] = s.dial(t, "")
		_, _ = clients[i].Write(b) // it may be closed meanwhile
		if i%3 == 0 {
			clients[i].stops()
		}
	}
	for i, c := range clients {
		said, _ := io.ReadAll(c) // until it ends, in whatever way
		if len(said) > 12 || len(said) == 12 && said[3] == paper5Succeeded || len(said) > 0 && said[0] != 5 {
			t.Errorf("seed %d: client %d was told % x", seed, i, said)
		}
		c.leaves()
	}
	paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
}

// What has no end is given up early, not collected.
func TestPaper5InputWithoutEnd(t *testing.T) {
	t.Parallel()
	s := startPaper5(t, paper5Staff)
	before := s.memory(t)
	for name, head := range map[string]string{
		"a login":   "\x05\x01\x02\x01\xff",
		"a request": "\x05\x01\x02" + string(paper5Login("fred", "correct horse")) + "\x05\x01\x00\x03\xff",
	} {
		t.Run(name+" of 128 MiB in 4 connections: refused or reset, and no memory", func(t *testing.T) {
			for i := range 4 {
				client := s.dial(t, fmt.Sprintf("127.2.%d.1", i))
				client.says(head)
				sent := make(chan int64, 1)
				go func() {
					n, _ := io.Copy(client, io.LimitReader(paperLetters{}, 32<<20)) // it ends when the server has had enough
					sent <- n
				}()
				_, _ = io.ReadAll(client) // the record tells
				if n := <-sent; n == 32<<20 {
					t.Errorf("all %d bytes were taken", n)
				}
				if r := s.session(t, client); r.Reason != "bad-login" && r.Reason != "bad-request" {
					t.Errorf("the log says %+v", r)
				}
			}
			if grown := s.memory(t) - before; grown > 64<<20 {
				t.Errorf("the program grew by %d bytes", grown)
			}
		})
	}
}

func TestPaper5LimitHandshake(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperShortLimits})
	paperRun(t, s, []paperCase{
		{"a byte now and then does not buy time", func(t *testing.T, s *paperServer) {
			client := s.ask(t, []byte{5, 255})
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for range 200 { // ten seconds' worth of methods, and still within their 255
				<-tick.C
				if _, err := client.Write([]byte{1}); err != nil {
					break
				}
			}
			client.isClosed()
			s.ended(t, client, "handshake-slow")
		}},
		{"a request in time lives on behind the limit", func(t *testing.T, s *paperServer) {
			slow := s.dial(t, "")
			client := s.ask5(t, paper5Ask(paperCONNECT, paperEcho(t, nil, "127.0.0.1:0")))
			client.granted5()
			slow.isClosed() // so its time is over
			client.echoes()
		}},
	})
}

func TestPaper5LimitBind(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen + "timeouts: {bind: 700ms}\n"})
	paperRun(t, s, []paperCase{
		{"nobody comes: 6, and the port is freed", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "127.0.0.5")
			client.refused5(paper5Expired)
			s.stopsListening(t, at.Port())
			s.ended(t, client, "timed-out")
		}},
		{"bytes of the client do not buy time", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "127.0.0.5")
			client.sends(paperBytes(10_000))
			client.refused5(paper5Expired)
			s.stopsListening(t, at.Port())
		}},
	})
}

// What comes and goes leaves nothing behind.
func TestPaper5LimitNothingLeft(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	echo, deaf := paperEcho(t, nil, "127.0.0.1:0"), paperDeaf(t, nil)
	before := s.descriptors(t)
	for name, bytes := range map[string][]byte{
		"half a greeting":          {5},
		"a greeting":               paper5Greet(paper5NoAuth),
		"a request":                paper5Open(paper5Ask(paperCONNECT, echo)),
		"a request and a flood":    append(paper5Open(paper5Ask(paperCONNECT, echo)), paperBytes(100_000)...),
		"a request that fails":     paper5Open(paper5Ask(paperCONNECT, deaf)),
		"BIND":                     paper5Open(paper5Ask(paperBIND, paperAt("127.0.0.1", 21))),
		"a method that is unknown": paper5Greet(9),
	} {
		t.Run(name+", then gone", func(t *testing.T) {
			for i := range 40 {
				c := s.ask(t, bytes)
				if i%2 == 0 {
					c.leaves()
				} else {
					c.resets()
				}
			}
			paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
		})
	}
}
