//go:build linux

package main_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestPaper5BindReplies(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	for _, host := range []string{"127.0.0.1", "127.0.0.5", "::1"} {
		t.Run(host+": the first reply says where, the second who came, and bytes go both ways", func(t *testing.T) {
			t.Parallel()
			client, at := s.bind5(t, "", host)
			if local := at.Addr(); !local.IsLoopback() || local.Is4() != netip.MustParseAddr(host).Is4() || at.Port() < 1024 {
				t.Errorf("the first reply says %s", at)
			}
			peer := s.net.dial(t, host, at)
			if got := client.granted5().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
			s.stopsListening(t, at.Port())
			client.says("to the peer")
			peer.hears("to the peer")
			peer.says("to the client, later")
			client.hears("to the client, later")
			client.leaves()
			peer.ends()
			peer.leaves()
			if r := s.session(t, client); r.Protocol != "socks5" || r.Command != "bind" || r.Up != 11 || r.Down != 20 || r.Reason != "closed" {
				t.Errorf("the log says %+v", r)
			}
		})
	}
}

func TestPaper5BindEnds(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"what the peer says first comes behind the second reply", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "127.0.0.1")
			s.net.dial(t, "127.0.0.1", at).says("220 ready")
			client.granted5()
			client.hears("220 ready")
		}},
		{"an address as a name", func(t *testing.T, s *paperServer) {
			client := s.ask5(t, paper5AskName(paperBIND, "127.0.0.6", 21))
			peer := s.net.dial(t, "127.0.0.6", client.granted5())
			if got := client.granted5().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
		}},
		{"a mapped address", func(t *testing.T, s *paperServer) {
			client := s.ask5(t, paper5Ask(paperBIND, paperAt("::ffff:127.0.0.6", 21)))
			s.net.dial(t, "127.0.0.6", client.granted5())
			client.granted5()
		}},
		{"the peer's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "127.0.0.1")
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted5()
			peer.resets()
			client.isReset()
			s.ended(t, client, "target-reset")
		}},
		{"the port is closed when the client closes", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "127.0.0.1")
			client.leaves()
			s.stopsListening(t, at.Port())
			s.ended(t, client, "client-gone")
		}},
		{"the port is closed when the client resets", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "::1")
			client.resets()
			s.stopsListening(t, at.Port())
			s.ended(t, client, "client-reset")
		}},
	})
}

func TestPaper5BindKeptBytes(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	for _, n := range []int{1, 64 << 10, 4 << 20} {
		t.Run(fmt.Sprintf("%d bytes behind the request", n), func(t *testing.T) {
			t.Parallel()
			data := paperBytes(n)
			client := s.dial(t, "")
			sent := make(chan error, 1)
			go func() {
				_, err := client.Write(slices.Concat(paper5Open(paper5Ask(paperBIND, paperAt("127.0.0.1", 21))), data))
				sent <- err // it may have to wait for the peer
			}()
			client.hears(paper5ChoseNone)
			peer := s.net.dial(t, "127.0.0.1", client.granted5())
			client.granted5()
			if !bytes.Equal(peer.reads(n), data) {
				t.Error("other bytes arrived than were sent")
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPaper5BindPeers(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	patient := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: {allow: patient, from: loopback, to: any, bind: {primary: optional, wait_for_right_peer: true}}
`})
	anybody := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: {allow: anybody, from: loopback, to: any, bind: {primary: optional, any_peer: true}}
`})
	paperRun(t, s, []paperCase{
		{"a wrong peer: 2 with its address, and both connections close", func(t *testing.T, s *paperServer) {
			client, at := s.bind5(t, "", "127.0.0.5")
			stranger := s.net.dial(t, "127.0.0.6", at)
			stranger.says("let me in")
			code, addr := client.replied5()
			if code != paper5NotAllowed || addr.String() != stranger.local {
				t.Errorf("second reply %d %s, want 2 %s", code, addr, stranger.local)
			}
			client.ends()
			stranger.isClosed()
			s.ended(t, client, "wrong-peer")
			s.stopsListening(t, at.Port())
		}},
		{"0.0.0.0: 2", func(t *testing.T, s *paperServer) {
			s.ask5(t, paper5Ask(paperBIND, paperAt("0.0.0.0", 21))).refused5(paper5NotAllowed)
		}},
		{":: : 2", func(t *testing.T, s *paperServer) {
			s.ask5(t, paper5Ask(paperBIND, paperAt("::", 21))).refused5(paper5NotAllowed)
		}},
		{"0.0.0.0 where any peer may come", func(t *testing.T, _ *paperServer) {
			client, at := anybody.bind5(t, "", "0.0.0.0")
			peer := anybody.net.dial(t, "127.0.0.44", paperAt("127.0.0.1", at.Port()))
			if got := client.granted5().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
		}},
		{"wait_for_right_peer: strangers are closed, the right peer is served", func(t *testing.T, _ *paperServer) {
			client, at := patient.bind5(t, "", "127.0.0.5")
			for range 3 {
				patient.net.dial(t, "127.0.0.6", at).isClosed()
			}
			peer := patient.net.dial(t, "127.0.0.5", at)
			if got := client.granted5().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
			peer.says("hello")
			client.hears("hello")
		}},
	})
}

func TestPaper5BindPrimary(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: "log: {format: json}\nrules: {allow: everything, from: loopback, to: any}\n"})
	x := paperListen(t, nil, "127.0.0.5:0")
	refused := func(t *testing.T, from, peer string) {
		t.Helper()
		client := s.greet5(t, from)
		client.sends(paper5Ask(paperBIND, paperAt(peer, x.addr.Port())))
		client.refused5(paper5NotAllowed)
		s.ended(t, client, "no-primary")
	}
	// One after the other: each looks at what the same client holds.
	t.Run("no connection to the peer: 2", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.5") })
	primary, far := s.join5(t, "127.0.0.2", x)
	t.Run("while the client holds one: 0", func(t *testing.T) {
		client, at := s.bind5(t, "127.0.0.2", "127.0.0.5")
		peer := s.net.dial(t, "127.0.0.5", at)
		client.granted5()
		peer.leaves()
		client.leaves()
		if got := s.session(t, client).Primary; got != "held" {
			t.Errorf("the log's primary is %q", got)
		}
	})
	t.Run("another source: 2", func(t *testing.T) { refused(t, "127.0.0.3", "127.0.0.5") })
	t.Run("another peer: 2", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.6") })
	primary.leaves()
	far.ends()
	far.leaves()
	s.ended(t, primary, "closed")
	t.Run("when it has ended: 2", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.5") })
}

func TestPaper5BindAddress(t *testing.T) {
	t.Parallel()
	paperSlow(t) // the ports have to be its own
	s := startPaper(t, paperSetup{net: newPaperNet(t), settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", advertise: 203.0.113.7, bind_ports: 21000-21001}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`})
	client, at := s.bind5(t, "", "127.0.0.1")
	other, second := s.bind5(t, "", "127.0.0.1")
	if at.Addr() != netip.MustParseAddr("203.0.113.7") || min(at.Port(), second.Port()) != 21000 || max(at.Port(), second.Port()) != 21001 {
		t.Errorf("the first replies say %s and %s", at, second)
	}
	third := s.ask5(t, paper5Ask(paperBIND, paperAt("127.0.0.1", 21)))
	third.refused5(paper5Failure)
	s.ended(t, third, "no-port")
	peer := s.net.dial(t, "127.0.0.1", paperAt("127.0.0.1", at.Port()))
	if got := client.granted5().String(); got != peer.local {
		t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
	}
	other.leaves()
}
