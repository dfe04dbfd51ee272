//go:build linux

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"syscall"
	"testing"
)

// bind asks for a BIND and returns the client and where the peer may connect.
func (s *paperServer) bind(t *testing.T, from, peer, user string) (*paperConn, netip.AddrPort) {
	t.Helper()
	client := s.dial(t, from)
	client.sends(paperAsk(paperBIND, paperAt(peer, 21), user))
	return client, client.granted()
}

// stopsListening waits until the program does not listen at the port any more.
// It looks and does not knock: who knocked could be taken for the peer.
func (s *paperServer) stopsListening(t *testing.T, port uint16) {
	t.Helper()
	listens := regexp.MustCompile(fmt.Sprintf(`(?m)^ *\d+: [0-9A-F]+:%04X [0-9A-F]+:0000 0A `, port))
	paperEventually(t, fmt.Sprintf("nobody listens at port %d", port), func() bool {
		for _, table := range []string{"tcp", "tcp6"} {
			sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", s.cmd.Process.Pid, table))
			if err == nil && listens.Match(sockets) {
				return false
			}
		}
		return true
	})
	if c, err := s.net.tryDial("", paperAt("127.0.0.1", port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting to port %d: %v; want that it is refused", port, err)
		if err == nil {
			c.Close()
		}
	}
}

func TestPaperBindReplies(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"the first reply says where, and somebody listens there already", func(t *testing.T, s *paperServer) {
			for range 10 {
				client, at := s.bind(t, "", "127.0.0.1", "bob")
				if at.Addr() != netip.MustParseAddr("127.0.0.1") || at.Port() < 1024 {
					t.Errorf("the first reply says %s", at)
				}
				s.net.dial(t, "127.0.0.1", at)
				client.granted()
			}
		}},
		{"the second reply carries the peer's address and port", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.5", "bob")
			peer := s.net.dial(t, "127.0.0.5", at)
			if got := client.granted().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
		}},
		{"bytes go both ways after the second reply, and the log counts them", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted()
			client.says("to the peer")
			peer.hears("to the peer")
			peer.says("to the client, later")
			client.hears("to the client, later")
			client.leaves()
			peer.ends()
			peer.leaves()
			if r := s.session(t, client); r.Up != 11 || r.Down != 20 || r.Command != "bind" || r.Reason != "closed" {
				t.Errorf("the log says %+v", r)
			}
		}},
		{"what the peer says first comes behind the second reply", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			s.net.dial(t, "127.0.0.1", at).says("220 ready")
			client.granted()
			client.hears("220 ready")
		}},
		{"4a: an address as host", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAskName(paperBIND, "127.0.0.6", 21, "bob"))
			peer := s.net.dial(t, "127.0.0.6", client.granted())
			if got := client.granted().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
		}},
	})
}

func TestPaperBindEnds(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"the peer's FIN and the client's go on", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted()
			peer.stops()
			client.ends()
			client.says("after the end")
			peer.hears("after the end")
			client.leaves()
			peer.ends()
		}},
		{"the peer's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted()
			peer.resets()
			client.isReset()
			s.ended(t, client, "target-reset")
		}},
		{"the client's reset arrives as a reset", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted()
			client.resets()
			peer.isReset()
			s.ended(t, client, "client-reset")
		}},
	})
}

func TestPaperBindKeptBytes(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	kept := func(n int) func(t *testing.T, s *paperServer) {
		return func(t *testing.T, s *paperServer) {
			data := paperBytes(n)
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			sent := make(chan error, 1)
			go func() {
				_, err := client.Write(data) // may have to wait for the peer
				sent <- err
			}()
			if n <= 64<<10 {
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				sent <- nil
			}
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted()
			if !bytes.Equal(peer.reads(n), data) {
				t.Error("other bytes arrived than were sent")
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			peer.says("received")
			client.hears("received")
		}
	}
	paperRun(t, s, []paperCase{
		{"one byte sent while BIND waits", kept(1)},
		{"64 KiB sent while BIND waits", kept(64 << 10)},
		{"16 MiB sent while BIND waits: held back, none lost", kept(16 << 20)},
		{"bytes right behind the request", func(t *testing.T, s *paperServer) {
			data := paperBytes(5000)
			client := s.ask(t, slices.Concat(paperAsk(paperBIND, paperAt("127.0.0.1", 21), "bob"), data))
			peer := s.net.dial(t, "127.0.0.1", client.granted())
			client.granted()
			if !bytes.Equal(peer.reads(len(data)), data) {
				t.Error("other bytes arrived than were sent")
			}
		}},
	})
}

func TestPaperBindPeers(t *testing.T) {
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
		{"a wrong peer: 91 with its address, and both connections close", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.5", "bob")
			stranger := s.net.dial(t, "127.0.0.6", at)
			code, addr := client.replied()
			if code != paperRejected || addr.String() != stranger.local {
				t.Errorf("second reply %d %s, want 91 %s", code, addr, stranger.local)
			}
			client.ends()
			stranger.isClosed()
			s.ended(t, client, "wrong-peer")
			s.stopsListening(t, at.Port())
		}},
		{"a wrong peer that sends: its bytes go nowhere", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.5", "bob")
			stranger := s.net.dial(t, "127.0.0.6", at)
			stranger.says("let me in")
			client.refused(paperRejected)
			stranger.isClosed()
		}},
		{"DSTIP 0.0.0.0: 91", func(t *testing.T, s *paperServer) {
			s.ask(t, paperAsk(paperBIND, paperAt("0.0.0.0", 21), "bob")).refused(paperRejected)
		}},
		{"DSTIP 0.0.0.0 where any peer may come", func(t *testing.T, _ *paperServer) {
			client, at := anybody.bind(t, "", "0.0.0.0", "bob")
			peer := anybody.net.dial(t, "127.0.0.44", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()))
			if got := client.granted().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
		}},
		{"wait_for_right_peer: strangers are closed, the right peer is served", func(t *testing.T, _ *paperServer) {
			client, at := patient.bind(t, "", "127.0.0.5", "bob")
			for range 3 {
				patient.net.dial(t, "127.0.0.6", at).isClosed()
			}
			peer := patient.net.dial(t, "127.0.0.5", at)
			if got := client.granted().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
			patient.stopsListening(t, at.Port())
			peer.says("hello")
			client.hears("hello")
		}},
	})
}

func TestPaperBindFreed(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	paperRun(t, s, []paperCase{
		{"a second connection to the port is refused", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			peer := s.net.dial(t, "127.0.0.1", at)
			client.granted()
			s.stopsListening(t, at.Port())
			client.says("first")
			peer.hears("first")
		}},
		{"the port is closed when the client closes", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			client.leaves()
			s.stopsListening(t, at.Port())
			s.ended(t, client, "client-gone")
		}},
		{"the port is closed when the client resets", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			client.resets()
			s.stopsListening(t, at.Port())
		}},
		{"the port is closed when the client closes with bytes kept", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", "127.0.0.1", "bob")
			client.sends(paperBytes(1000))
			client.leaves()
			s.stopsListening(t, at.Port())
		}},
	})
}

func TestPaperBindPrimary(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: {allow: everything, from: loopback, to: any}
`})
	x := paperListen(t, nil, "127.0.0.5:0")
	refused := func(t *testing.T, from, peer, user string) {
		t.Helper()
		client := s.dial(t, from)
		client.sends(paperAsk(paperBIND, paperAt(peer, x.addr.Port()), user))
		client.refused(paperRejected)
		s.ended(t, client, "no-primary")
	}
	// One after the other: each looks at what the same client holds.
	t.Run("no connection to the peer: 91", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.5", "bob") })
	primary, far := s.join(t, "127.0.0.2", x, "bob")
	t.Run("while the client holds one: 90", func(t *testing.T) {
		client, at := s.bind(t, "127.0.0.2", "127.0.0.5", "bob")
		peer := s.net.dial(t, "127.0.0.5", at)
		client.granted()
		peer.says("data")
		client.hears("data")
	})
	t.Run("4a: while the client holds one: 90", func(t *testing.T) {
		client := s.dial(t, "127.0.0.2")
		client.sends(paperAskName(paperBIND, "127.0.0.5", 20, "bob"))
		s.net.dial(t, "127.0.0.5", client.granted())
		client.granted()
	})
	t.Run("the log says that there was one", func(t *testing.T) {
		client, _ := s.bind(t, "127.0.0.2", "127.0.0.5", "bob")
		client.leaves()
		if got := s.session(t, client).Primary; got != "held" {
			t.Errorf("the log's primary is %q", got)
		}
	})
	t.Run("another userid: 91", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.5", "alice") })
	t.Run("no userid: 91", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.5", "") })
	t.Run("another source: 91", func(t *testing.T) { refused(t, "127.0.0.3", "127.0.0.5", "bob") })
	t.Run("another peer: 91", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.6", "bob") })
	primary.leaves()
	far.ends()
	far.leaves()
	s.ended(t, primary, "closed")
	t.Run("when it has ended: 91", func(t *testing.T) { refused(t, "127.0.0.2", "127.0.0.5", "bob") })

	t.Run("a BIND is no primary connection: 91", func(t *testing.T) {
		primary, _ := s.join(t, "127.0.0.4", x, "bob")
		client, at := s.bind(t, "127.0.0.4", "127.0.0.5", "bob")
		s.net.dial(t, "127.0.0.5", at)
		client.granted()
		primary.resets()
		s.ended(t, primary, "client-reset")
		refused(t, "127.0.0.4", "127.0.0.5", "bob")
	})
}

// The sequence of the paper's section 2, as an FTP client in active mode goes
// through it.
func TestPaperBindSequence(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: {allow: everything, from: loopback, to: any}
`})
	control, server := s.join(t, "", paperListen(t, nil, "127.0.0.5:0"), "bob")
	file := paperBytes(1 << 20)
	for range 3 {
		data, at := s.bind(t, "", "127.0.0.5", "bob")
		command := "PORT " + at.String() + "\r\n"
		control.says(command)
		server.hears(command)
		from := s.net.dial(t, "127.0.0.5", at)
		data.granted()
		go func() {
			defer from.Close()
			_, _ = from.Write(file) // the client sees what is missing
		}()
		if !bytes.Equal(data.reads(len(file)), file) {
			t.Fatal("another file arrived than was sent")
		}
		data.ends()
		server.says("226 done\r\n")
		control.hears("226 done\r\n")
	}
}

func TestPaperBindAddress(t *testing.T) {
	t.Parallel()
	paperSlow(t) // the ports have to be its own
	s := startPaper(t, paperSetup{net: newPaperNet(t), settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", advertise: 203.0.113.7, bind_ports: 21000-21001}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`})
	// One after the other: they share the two ports.
	t.Run("advertise: the first reply says that address", func(t *testing.T) {
		client, at := s.bind(t, "", "127.0.0.1", "bob")
		if at.Addr() != netip.MustParseAddr("203.0.113.7") {
			t.Errorf("the first reply says %s", at)
		}
		peer := s.net.dial(t, "127.0.0.1", paperAt("127.0.0.1", at.Port()))
		if got := client.granted().String(); got != peer.local {
			t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
		}
		client.resets()
		peer.isReset()
	})
	t.Run("bind_ports: ports of the range, 91 when all are taken, and free again", func(t *testing.T) {
		one, at := s.bind(t, "", "127.0.0.1", "bob")
		_, other := s.bind(t, "", "127.0.0.1", "bob")
		if ports := []uint16{at.Port(), other.Port()}; min(ports[0], ports[1]) != 21000 || max(ports[0], ports[1]) != 21001 {
			t.Errorf("the ports are %v, want 21000 and 21001", ports)
		}
		third := s.ask(t, paperAsk(paperBIND, paperAt("127.0.0.1", 21), "bob"))
		third.refused(paperRejected)
		s.ended(t, third, "no-port")
		one.leaves()
		s.ended(t, one, "client-gone")
		if _, again := s.bind(t, "", "127.0.0.1", "bob"); again.Port() != at.Port() {
			t.Errorf("port %d was freed, port %d is used", at.Port(), again.Port())
		}
	})
}

func TestPaperBindRange(t *testing.T) {
	t.Parallel()
	paperSlow(t) // the ports have to be its own
	s := startPaper(t, paperSetup{net: newPaperNet(t), settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", bind_ports: 23000-23999}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`})
	var ports []int
	for range 8 {
		_, at := s.bind(t, "", "127.0.0.1", "bob")
		ports = append(ports, int(at.Port()))
	}
	inRow := 0
	for i, port := range ports {
		if port < 23000 || port > 23999 {
			t.Errorf("port %d is out of the range", port)
		}
		if i > 0 && port == ports[i-1]+1 {
			inRow++
		}
	}
	if inRow == len(ports)-1 {
		t.Errorf("the next port can be guessed: %v", ports)
	}
}

func TestPaperBindDenied(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules:
  - {allow: connect, from: loopback, to: any, commands: connect}
  - {allow: bind, from: loopback, to: 127.0.0.6, commands: bind, bind: {primary: optional}}
`})
	client := s.ask(t, paperAsk(paperBIND, paperAt("127.0.0.5", 21), "bob"))
	client.refused(paperRejected)
	s.ended(t, client, "denied")
	_, at := s.bind(t, "", "127.0.0.6", "bob")
	s.net.dial(t, "127.0.0.6", at)
}

func TestPaperBindBeyondLoopback(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, settings: paperOpen, hosts: `
127.0.0.1 localhost
127.0.0.5 pair.test
127.0.0.6 pair.test
`})
	paperRun(t, s, []paperCase{
		{"the first reply says the local address that routes to the peer", func(t *testing.T, s *paperServer) {
			client, at := s.bind(t, "", paperPublic, "bob")
			if at.Addr() != netip.MustParseAddr(paperGateway) {
				t.Errorf("the first reply says %s, want an address the peer can reach, %s", at, paperGateway)
			}
			peer := w.outside.dial(t, paperPublic, at)
			if got := client.granted().String(); got != peer.local {
				t.Errorf("the second reply says %s, the peer is %s", got, peer.local)
			}
		}},
		{"4a: each address of the name is an allowed peer", func(t *testing.T, s *paperServer) {
			for _, from := range []string{"127.0.0.5", "127.0.0.6"} {
				client := s.ask(t, paperAskName(paperBIND, "pair.test", 21, "bob"))
				s.net.dial(t, from, client.granted())
				client.granted()
			}
		}},
		{"4a: any other address is a wrong peer", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAskName(paperBIND, "pair.test", 21, "bob"))
			s.net.dial(t, "127.0.0.7", client.granted())
			client.refused(paperRejected)
			s.ended(t, client, "wrong-peer")
		}},
	})
}
