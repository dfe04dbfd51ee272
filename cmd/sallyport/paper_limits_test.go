//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

const paperShortLimits = `
log: {format: json}
timeouts: {handshake: 500ms, connect: 500ms}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`

func TestPaperLimitHandshake(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperShortLimits})
	paperRun(t, s, []paperCase{
		{"not a byte: closed", func(t *testing.T, s *paperServer) {
			client := s.dial(t, "")
			client.isClosed()
			s.ended(t, client, "handshake-slow")
		}},
		{"half a request: closed", func(t *testing.T, s *paperServer) {
			client := s.ask(t, []byte{4, 1, 0, 80, 127})
			client.isClosed()
			s.ended(t, client, "handshake-slow")
		}},
		{"no NUL behind the userid: closed", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			request := paperAsk(paperCONNECT, x.addr, "bob")
			client := s.ask(t, request[:len(request)-1])
			client.isClosed()
			s.ended(t, client, "handshake-slow")
			x.untouched(t)
		}},
		{"no NUL behind the host: closed", func(t *testing.T, s *paperServer) {
			x := paperListen(t, nil, "127.0.0.1:0")
			request := paperAskName(paperCONNECT, "127.0.0.1", x.addr.Port(), "bob")
			client := s.ask(t, request[:len(request)-1])
			client.isClosed()
			s.ended(t, client, "handshake-slow")
			x.untouched(t)
		}},
		{"a byte now and then does not buy time", func(t *testing.T, s *paperServer) {
			client := s.ask(t, []byte{4, 1, 0, 80, 127, 0, 0, 1})
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for range 200 { // ten seconds' worth of userid, and still within its 255 bytes
				<-tick.C
				if _, err := client.Write([]byte("u")); err != nil {
					break
				}
			}
			client.isClosed()
			s.ended(t, client, "handshake-slow")
		}},
		{"a request in time lives on behind the limit", func(t *testing.T, s *paperServer) {
			slow := s.dial(t, "")
			client := s.ask(t, paperAsk(paperCONNECT, paperEcho(t, nil, "127.0.0.1:0"), "bob"))
			client.granted()
			slow.isClosed() // so its time is over
			client.echoes()
		}},
	})
}

func TestPaperLimitConnect(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, settings: paperShortLimits, hosts: `
127.0.0.1 localhost
198.19.0.1 silent.test
198.19.0.2 silent.test
`})
	for name, request := range map[string][]byte{
		"a target that is silent: 91":                 paperAsk(paperCONNECT, paperAt(paperSilent, 80), "bob"),
		"4a: a target whose addresses all are silent": paperAskName(paperCONNECT, "silent.test", 80, "bob"),
		"4a: a target that is silent in IPv6":         paperAskName(paperCONNECT, paperSilent6, 80, "bob"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, request)
			client.refused(paperRejected)
			s.ended(t, client, "timed-out")
		})
	}
}

// While a connection is being made, its client may go away.
func TestPaperLimitVanish(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, settings: `
log: {format: json}
timeouts: {connect: 2s}
rules: {allow: everything, from: loopback, to: any}
`})
	before := s.descriptors(t)
	clients := make([]*paperConn, 40)
	for i := range clients {
		clients[i] = s.ask(t, paperAsk(paperCONNECT, paperAt(paperSilent, 80), "bob"))
	}
	for i, client := range clients {
		if i%2 == 0 {
			client.leaves()
		} else {
			client.resets()
		}
	}
	for _, client := range clients {
		s.session(t, client)
	}
	paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
}

func TestPaperLimitBind(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
timeouts: {bind: 700ms}
rules: 
  - {allow: everything, from: 127.0.0.1, to: any, bind: {primary: optional}}
  - {allow: patient, from: 127.0.0.2, to: any, bind: {primary: optional, wait_for_right_peer: true}}
`})
	paperRun(t, s, []paperCase{
		{"nobody comes: 91, and the port is freed", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "127.0.0.1", "127.0.0.5", "bob")
			client.refused(paperRejected)
			s.stopsListening(t, at.Port())
			s.ended(t, client, "timed-out")
		}},
		{"strangers do not buy time", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "127.0.0.2", "127.0.0.5", "bob")
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for range 200 {
				<-tick.C
				c, err := s.net.tryDial("127.0.0.6", at)
				if err != nil {
					break
				}
				c.Close()
			}
			client.refused(paperRejected)
			s.ended(t, client, "timed-out")
		}},
		{"bytes of the client do not buy time", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "127.0.0.1", "127.0.0.5", "bob")
			client.sends(paperBytes(10_000))
			client.refused(paperRejected)
			s.stopsListening(t, at.Port())
		}},
		{"a peer in time lives on behind the limit", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "127.0.0.1", "127.0.0.5", "bob")
			peer := s.net.dial(t, "127.0.0.5", at)
			client.granted()
			late, _ := s.bind(t, "127.0.0.1", "127.0.0.5", "bob")
			late.refused(paperRejected) // so the time of both is over
			client.says("still there")
			peer.hears("still there")
		}},
	})
}

func TestPaperLimitIdle(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
timeouts: {idle: 2s, half_closed: 1500ms}
rules: {allow: everything, from: loopback, to: any}
`})
	// drip sends a byte now and then, for longer than the limits.
	drip := func(t *testing.T, from, to *paperConn) {
		t.Helper()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range 25 {
			<-tick.C
			from.says("x")
			to.hears("x")
		}
	}
	paperRun(t, s, []paperCase{
		{"both silent: both are closed", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.isClosed()
			far.isClosed()
			s.ended(t, client, "idle")
		}},
		{"only the client speaks: not idle", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			drip(t, client, far)
			far.says("y")
			client.hears("y")
		}},
		{"only the target speaks: not idle", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			drip(t, far, client)
			client.says("y")
			far.hears("y")
		}},
		{"the client has ended and the target is silent: closed", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.stops()
			far.ends()
			client.isClosed()
			s.ended(t, client, "half-closed")
		}},
		{"the target has ended and the client is silent: closed", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			far.stops()
			client.ends()
			far.isClosed()
			s.ended(t, client, "half-closed")
		}},
		{"the client has ended and the target speaks on: not closed", func(t *testing.T, s *paperServer) {
			client, far := s.pair(t)
			client.stops()
			far.ends()
			drip(t, far, client)
			far.leaves()
			client.ends()
			s.ended(t, client, "closed")
		}},
	})
}

func TestPaperLimitHalfOpen(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
timeouts: {handshake: 120s}
rules: {allow: everything, from: loopback, to: any}
`})
	echo := paperEcho(t, nil, "127.0.0.1:0")
	before := s.descriptors(t)
	openings := []string{"\x04\x01\x00", "", "\x05\x02\x00", "\x05\x01\x00\x05\x01", "GET http://x/ HTT", "CONNECT x:1 HTTP/1.1\r\nHost: x"}
	for _, c := range []struct {
		name    string
		sources int
		from    string
	}{
		{"of one source", 1, "127.0.8.1"},
		{"of its own source", 1, "127.0.7.1"},
		{"of 250 sources", 250, "127.0.8.1"},
	} {
		t.Run("500 half-open handshakes "+c.name+" do not hold up a client", func(t *testing.T) {
			half := make([]*paperConn, 500)
			for i := range half {
				half[i] = s.dial(t, fmt.Sprintf("127.0.7.%d", 1+i%c.sources))
				half[i].says(openings[i%len(openings)])
			}
			for _, request := range []func(*paperConn){
				func(c *paperConn) { c.sends(paperAsk(paperCONNECT, echo, "bob")); c.granted() },
				func(c *paperConn) {
					c.sends(paper5Open(paper5Ask(paperCONNECT, echo)))
					c.hears(paper5ChoseNone)
					c.granted5()
				},
				func(c *paperConn) {
					c.sends(paperHTTPTunnel(echo.Addr().String(), echo.Port()))
					c.hears("HTTP/1.1 200 Connection established\r\n\r\n")
				},
			} {
				good := s.dial(t, c.from)
				request(good)
				good.echoes()
				good.leaves()
			}
			for _, c := range half {
				c.leaves()
			}
			paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
		})
	}
}

const paperFewDescriptors = `
log: {format: json}
timeouts: {handshake: 120s}
rules: {allow: everything, from: loopback, to: any}
`

// complaints are the lines of the log that are no sessions and no small talk.
func (s *paperServer) complaints() []string {
	return slices.DeleteFunc(slices.Clone(s.stderr.all()), func(line string) bool {
		var r struct{ Level, Msg string }
		err := json.Unmarshal([]byte(line), &r)
		return err == nil && (r.Msg == "session" || r.Level != "WARN" && r.Level != "ERROR")
	})
}

// serves reports whether a new client gets an echo.
func (s *paperServer) serves(t *testing.T, echo netip.AddrPort) bool {
	t.Helper()
	c := s.ask(t, paperAsk(paperCONNECT, echo, "bob"))
	defer c.Close()
	reply := make([]byte, 8)
	_, err := io.ReadFull(c, reply)
	return err == nil && reply[1] == paperGranted
}

func TestPaperLimitDescriptors(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	echo := paperEcho(t, nil, "127.0.0.1:0")
	request := paperAsk(paperCONNECT, echo, "bob")
	for _, c := range []struct {
		name   string
		bytes  []byte
		files  int
		yields bool // the oldest of the flood make room for the newest
	}{
		{"used up by sessions", request, 64, false},
		{"used up by sessions, 100", request, 100, false},
		{"used up by handshakes", request[:3], 64, true},
		{"used up by clients who say nothing", nil, 64, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startPaper(t, paperSetup{files: c.files, settings: paperFewDescriptors})
			live := s.ask(t, request)
			live.granted()
			flood := make([]*paperConn, 200)
			for i := range flood {
				flood[i] = s.dial(t, fmt.Sprintf("127.0.9.%d", 1+i))
				_, _ = flood[i].Write(c.bytes) // it may be one too many
			}
			if c.yields { // whether they are ever used up is a matter of who is faster
				paperEventually(t, "a new client is served beside the flood", func() bool { return s.serves(t, echo) })
			} else {
				paperEventually(t, "the log says that there are no descriptors left", func() bool { return len(s.complaints()) > 0 })
			}
			for range 100 {
				live.echoes()
			}
			if said := s.complaints(); len(said) > 1 {
				t.Errorf("the log says %d times that there are no descriptors left: %q", len(said), said)
			}
			for _, c := range flood {
				c.leaves()
			}
			paperEventually(t, "a new client is served again", func() bool { return s.serves(t, echo) })
			live.echoes()
		})
	}
}

func TestPaperLimitBackPressure(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	s := startPaper(t, paperSetup{settings: paperOpen})
	before := s.memory(t)
	client, far := s.join(t, "", paperListen(t, nil, "127.0.0.1:0"), "bob")
	waiting, _ := s.bind(t, "", "127.0.0.1", "bob")
	flood := make([]byte, 1<<20)
	for name, sender := range map[string]*paperConn{
		"a target that does not read":        client,
		"a client that does not read":        far,
		"a BIND whose peer has not come yet": waiting,
	} {
		t.Run("a flood behind "+name+" is held back", func(t *testing.T) {
			var sent int
			for sent < 256<<20 {
				if err := sender.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				n, err := sender.Write(flood)
				sent += n
				if err != nil && os.IsTimeout(err) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if sent >= 256<<20 {
				t.Errorf("%d bytes were taken that nobody reads", sent)
			}
			if grown := s.memory(t) - before; grown > 64<<20 {
				t.Errorf("the program grew by %d bytes", grown)
			}
		})
	}
}

func TestPaperShutdown(t *testing.T) {
	t.Parallel()
	terminate := func(t *testing.T, s *paperServer) {
		t.Helper()
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	ends := func(t *testing.T, s *paperServer) {
		t.Helper()
		if code, said := s.exits(t); code != 0 {
			t.Errorf("exit code %d: %s", code, said)
		}
	}
	t.Run("with nothing to do", func(t *testing.T) {
		t.Parallel()
		s := startPaper(t, paperSetup{settings: paperOpen})
		terminate(t, s)
		ends(t, s)
	})
	t.Run("a live session goes on to its end, and nobody new comes in", func(t *testing.T) {
		t.Parallel()
		s := startPaper(t, paperSetup{settings: paperOpen})
		client := s.ask(t, paperAsk(paperCONNECT, paperEcho(t, nil, "127.0.0.1:0"), "bob"))
		client.granted()
		terminate(t, s)
		s.stopsListening(t, s.addr().Port())
		client.echoes()
		client.leaves()
		ends(t, s)
		s.ended(t, client, "closed")
	})
	t.Run("a session that does not end is cut when the time to drain is over", func(t *testing.T) {
		t.Parallel()
		s := startPaper(t, paperSetup{settings: paperOpen + "timeouts: {drain: 300ms}\n"})
		client, far := s.join(t, "", paperListen(t, nil, "127.0.0.1:0"), "bob")
		terminate(t, s)
		client.isClosed()
		far.isClosed()
		ends(t, s)
		s.ended(t, client, "shutdown")
	})
}

// What comes and goes leaves nothing behind.
func TestPaperLimitNothingLeft(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	echo, deaf := paperEcho(t, nil, "127.0.0.1:0"), paperDeaf(t, nil)
	warm := s.ask(t, paperAsk(paperCONNECT, echo, ""))
	warm.granted()
	warm.leaves()
	s.ended(t, warm, "closed")
	before := s.descriptors(t)
	steps := map[string]func(t *testing.T, c *paperConn){
		"connected, no byte": func(*testing.T, *paperConn) {},
		"half a request":     func(_ *testing.T, c *paperConn) { c.sends([]byte{4, 1, 0}) },
		"a request":          func(_ *testing.T, c *paperConn) { c.sends(paperAsk(paperCONNECT, echo, "")) },
		"granted": func(_ *testing.T, c *paperConn) {
			c.sends(paperAsk(paperCONNECT, echo, ""))
			c.granted()
		},
		"refused": func(_ *testing.T, c *paperConn) {
			c.sends(paperAsk(paperCONNECT, deaf, ""))
			c.refused(paperRejected)
		},
		"in the midst of a flood": func(_ *testing.T, c *paperConn) {
			c.sends(paperAsk(paperCONNECT, echo, ""), paperBytes(100_000))
		},
		"waiting in BIND": func(_ *testing.T, c *paperConn) {
			c.sends(paperAsk(paperBIND, paperAt("127.0.0.1", 21), ""))
			c.granted()
		},
		"in BIND with its peer": func(t *testing.T, c *paperConn) {
			c.sends(paperAsk(paperBIND, paperAt("127.0.0.1", 21), ""))
			peer := s.net.dial(t, "127.0.0.1", c.granted())
			c.granted()
			peer.leaves()
		},
	}
	for name, step := range steps {
		t.Run(name+", then gone", func(t *testing.T) {
			for i := range 40 {
				c := s.dial(t, "")
				step(t, c)
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
