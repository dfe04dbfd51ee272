//go:build linux

package main_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPaperBalancer: behind a load balancer the rules see the client that it
// names, the log has both, and nobody else can name one.
func TestPaperBalancer(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", proxy_protocol: [127.0.0.1, private]}
rules: {allow: the office, from: [192.0.2.0/24, 127.0.0.9], to: any}
`})
	x := paperListen(t, nil, "127.0.0.1:0")
	request := paperAsk(paperCONNECT, x.addr, "bob")
	const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x02\xc6\x33\x64\x07\x9c\xba\x04\x38"
	for client, header := range map[string]string{
		"192.0.2.1:40122": "PROXY TCP4 192.0.2.1 198.51.100.7 40122 1080\r\n",
		"192.0.2.2:40122": v2,
	} {
		c := s.dial(t, "127.0.0.1")
		c.sends([]byte(header), request)
		c.granted()
		far := x.accept(t)
		c.says("12345")
		far.hears("12345")
		c.leaves()
		far.leaves()
		line := s.stderr.until(t, s.done, "the session of "+client, func(line string) bool {
			return strings.Contains(line, fmt.Sprintf(`"client":%q`, client))
		})
		if r, _ := paperRecord(line); !strings.Contains(line, fmt.Sprintf(`"through":%q`, c.local)) || r.Rule != "the office" || r.Reason != "closed" {
			t.Errorf("the log says %s", line)
		}
	}

	c := s.dial(t, "127.0.0.1")
	c.sends([]byte("PROXY TCP4 203.0.113.5 198.51.100.7 1 1080\r\n"), request)
	c.refused(paperRejected)
	for from, header := range map[string]string{"127.0.0.1": "", "127.0.0.9": v2} {
		c := s.dial(t, from)
		c.sends([]byte(header), request)
		c.isClosed()
		s.ended(t, c, "garbage")
	}
	c = s.dial(t, "127.0.0.9")
	c.sends(request)
	c.granted()
}

// TestPaperNameServer: names are asked of the servers in the settings, once.
func TestPaperNameServer(t *testing.T) {
	t.Parallel()
	at, asked := paperNameServer(t)
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
resolver: {servers: "` + at.String() + `", cache: 1h}
rules: {allow: everything, from: loopback, to: any}
`})
	x := paperListen(t, nil, "127.0.0.2:0")
	for range 3 {
		c := s.ask(t, paperAskName(paperCONNECT, "inside.corp.example", x.addr.Port(), "bob"))
		c.granted()
		far := x.accept(t)
		c.leaves()
		far.leaves()
	}
	if got := asked.Load(); got != 2 {
		t.Errorf("the name server was asked %d times, want 2: once for each family", got)
	}
}

// paperNameServer is one on a port of its own, for which every name is
// 127.0.0.2; asked counts the questions.
func paperNameServer(t *testing.T) (at netip.AddrPort, asked *atomic.Int32) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	asked = new(atomic.Int32)
	go func() {
		b := make([]byte, 1500)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			answer := paperDNSAnswer(b[:size], func(string) ([]netip.Addr, bool) {
				asked.Add(1)
				return []netip.Addr{netip.MustParseAddr("127.0.0.2")}, true
			})
			_, _ = pc.WriteTo(answer, from) // the program asks again
		}
	}()
	return netip.MustParseAddrPort(pc.LocalAddr().String()), asked
}
