//go:build unix

package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestMappingReloads: a new target holds for the next client, what is as it was
// goes on with all that is known of it, and a session stays as long as it is allowed.
func TestMappingReloads(t *testing.T) {
	first, second := proxytest.NewTarget(t, "127.0.0.1"), proxytest.NewTarget(t, "127.0.0.1")
	say := func(target netip.AddrPort, rule string) string {
		return fmt.Sprintf("listeners:\n  - {name: one, listen: 127.0.0.1:0, map: %q}\n"+
			"  - {name: two, listen: '127.0.0.2:0', map: {to: [127.0.0.1:1, %q], choose: round robin, check: off}}\nrules: [%s]\n",
			target, first.Addr(), rule)
	}
	const all = "{allow: all, to: loopback}"
	s := serveIn(t, say(first.Addr(), all))
	c := proxytest.Dial(t, s.at("one"))
	far := first.Next(t)
	targets := func() any { return s.inForce.rules.maps[mappingKey{"two", "127.0.0.2:0"}].targets }
	before := targets()

	s.reloads(say(second.Addr(), all))
	if targets() != before {
		t.Error("targets that stayed as they were are new ones")
	}
	next := proxytest.Dial(t, s.at("one"))
	nextFar := second.Next(t)
	proxytest.Say(t, c, []byte("still to the first"))
	proxytest.Hear(t, far, "still to the first")
	proxytest.Say(t, next, []byte("to the second"))
	proxytest.Hear(t, nextFar, "to the second")

	for range 4 { // the dead one does not matter
		proxytest.Dial(t, s.at("two")).Close()
		first.Next(t).Close()
	}
	s.logs("a target of a port mapping is down", 1)
	s.reloads(say(second.Addr(), "{deny: all}"))
	cut(t, "when no rule allows it any more", c)
	cut(t, "the same", next)
	proxytest.Ends(t, proxytest.Dial(t, s.at("one")))
}

// TestMappingFaults: what only shows when it is built is a fault of the settings.
func TestMappingFaults(t *testing.T) {
	s := serveIn(t, oneListener)
	s.puts("ca.pem", "no certificate\n")
	s.refuses("listeners: {name: one, listen: 127.0.0.1:0, map: {to: 'a:1', tls: {ca: ca.pem}}}", `the listener "one": ca `)
	s.refuses("listeners: {name: one, listen: 'udp/lo:5353', map: 'a:1'}", "write the address of lo") // which every Linux has
	s.refuses("listeners: {name: one, listen: 'nowhere0.100:0'}", `the listener "one" cannot open its address`)
}

// TestMappingNames: a client of DNS looks a name up through a mapping.
func TestMappingNames(t *testing.T) {
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		answerNames(c, netip.MustParseAddr("192.0.2.7"))
	}()
	t.Cleanup(func() { c.Close(); <-done })
	s := serveIn(t, fmt.Sprintf("listeners: {name: names, listen: udp/127.0.0.1:0, map: %q}\nrules: {allow: names, commands: udp, to: loopback}", c.LocalAddr()))
	at := strings.TrimPrefix(s.at("names"), "udp/")
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", at)
	}}
	for range 3 {
		found, err := r.LookupNetIP(t.Context(), "ip4", "www.no-such-host.example")
		if err != nil || len(found) != 1 || found[0] != netip.MustParseAddr("192.0.2.7") {
			t.Errorf("found %v, %v", found, err)
		}
	}
}

// answerNames answers every question with one address, until the socket is closed.
func answerNames(c net.PacketConn, with netip.Addr) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
		m.Additionals = nil
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: m.Questions[0].Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: with.As4()},
		}}
		if reply, err := m.Pack(); err == nil {
			_, _ = c.WriteTo(reply, from) // the client asks again
		}
	}
}

// TestUnixListener: a socket that a server left behind is replaced, one that
// serves is not, and SOCKS is spoken there too.
func TestUnixListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	settings := fmt.Sprintf("listeners: {name: lan, listen: 'unix:%s'}\nrules: {allow: this machine, from: loopback, to: any}\n", path)
	s := serveIn(t, settings)
	if at := s.at("lan"); at != "unix:"+path {
		t.Errorf("it listens on %s", at)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	proxytest.Say(t, c, append(proxytest.Connect4(proxytest.Echo(t, "127.0.0.1"), "bob"), "hello"...))
	proxytest.Granted4(t, c)
	proxytest.Hear(t, c, "hello")
	if _, err := Open(t.Context(), Source{File: s.file(), Admin: "off"}, os.Stderr); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("a second server: %v", err)
	}
}

// TestMappingGreets: only a listener that speaks something is one to try.
func TestMappingGreets(t *testing.T) {
	s := serveIn(t, "listeners: [{listen: 127.0.0.1:0, map: 'a:1'}, {listen: udp/127.0.0.1:0, map: 'a:1'}, {listen: localhost:0, protocols: http}]")
	var b strings.Builder
	s.Greet(&b, "1")
	said := b.String()
	if strings.Count(said, " (map)\n") != 2 || !strings.Contains(said, "listening on udp/127.0.0.1:") || !strings.Contains(said, "try it: curl --proxy http://127.0.0.1:") {
		t.Errorf("it says %s", said)
	}
}

// TestMappingExplained: a rehearsal takes a mapping for what it is, and what its log
// says fares as it did.
func TestMappingExplained(t *testing.T) {
	src := writeSettings(t, "listeners: {name: mail, listen: 192.168.1.1:25, map: 'mail.example:25'}\n"+
		"rules: [{allow: mail, protocols: map, from: private, to: 10.0.0.0/8, ports: 25}, {allow: socket, to: loopback}, {allow: names, commands: udp, to: 10.0.0.0/8, ports: 53}]\n")
	target := socks.FromIP(netip.MustParseAddrPort("10.0.0.25:25"))
	e, err := Explain(t.Context(), src, Question{From: netip.MustParseAddr("192.168.1.7"), Target: target})
	if err != nil || !e.Allowed || e.Rule != "mail" || e.Protocol != "map" {
		t.Errorf("%+v, %v", e, err)
	}
	for _, q := range []Question{
		{Command: socks.Bind, Target: target},
		{User: "alice", Proof: server.Password, Target: target},
		{User: "alice", Proof: server.Claimed, Target: target},
	} {
		q.From = netip.MustParseAddr("192.168.1.7")
		if e, err := Explain(t.Context(), src, q); err == nil {
			t.Errorf("%+v: %+v; want that it makes no sense", q, e)
		}
	}
	lines := replayLines(twice(
		"listener=mail protocol=map client=192.168.1.7:4000 target=mail.example:25 address=10.0.0.25:25 rule=mail",
		"listener=mail protocol=map client=127.0.0.1:0 target=127.0.0.1:0 socket=/s bound=x rule=socket",
		"listener=mail protocol=map command=udp client=192.168.1.7:4000 target=10.0.0.1:53 to=10.0.0.1:53 address=10.0.0.1:53 bound=192.168.1.1:53 rule=names",
	)...)
	r, err := ReplayLog(t.Context(), src, strings.NewReader(lines), false)
	if err != nil || r.Sessions != 6 || r.Same != 6 {
		t.Errorf("%+v, %v", r, err)
	}
}
