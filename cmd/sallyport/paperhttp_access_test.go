//go:build linux

package main_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// paperHTTPTunnel is a CONNECT request for "host:port", as a client writes it.
func paperHTTPTunnel(host string, port uint16, fields ...string) []byte {
	at := paperHTTPHost(host) + ":" + strconv.Itoa(int(port))
	return []byte("CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
}

// paperHTTPGet is a request for http://host:port/ in absolute form.
func paperHTTPGet(host string, port uint16, fields ...string) []byte {
	at := paperHTTPHost(host) + ":" + strconv.Itoa(int(port))
	return []byte("GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
}

// paperHTTPHost puts an IPv6 address into its brackets.
func paperHTTPHost(host string) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return "[" + host + "]"
	}
	return host
}

func paperBasic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// paperVerdict is what an answer of HTTP says.
type paperVerdict struct {
	code   int
	reason string // in the field Sallyport-Reason
}

// answeredHTTP reads an answer and its body.
func (c *paperConn) answeredHTTP() paperVerdict {
	c.t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodGet})
	if err != nil {
		c.t.Fatalf("no answer of HTTP: %v", err)
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		c.t.Fatalf("the answer's body: %v", err)
	}
	return paperVerdict{r.StatusCode, r.Header.Get("Sallyport-Reason")}
}

// TestPaperHTTPGuard is TestPaperGuard for both ways in which HTTP names a
// target.
func TestPaperHTTPGuard(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	trap := &paperTrap{hit: map[string]int{}}
	trap.set(t, w.gateway, 80)
	trap.set(t, w.outside, 80)
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) { return nil, false })
	s := startPaper(t, paperSetup{net: w.gateway, hosts: paperGuardHosts, dns: "127.0.0.53", settings: `
log: {format: json}
timeouts: {connect: 2s}
rules: {allow: the internet, from: loopback}
`})
	denied := func(name string, request []byte) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.ask(t, request).answeredHTTP()
			if r.code < 400 || !slices.Contains([]string{"denied", "bad-request", "no-name"}, r.reason) {
				t.Errorf("%+v: want that nothing was tried", r)
			}
		})
	}
	for what, request := range map[string]func(string, uint16, ...string) []byte{"CONNECT": paperHTTPTunnel, "GET": paperHTTPGet} {
		for _, ip := range paperGuardedIPs() {
			denied(what+" IPv4 "+ip, request(ip, 80))
			denied(what+" mapped "+ip, request("::ffff:"+ip, 80))
		}
		for _, c := range slices.Concat(paperGuardedIPv6(), paperGuardedTexts()) {
			denied(what+" "+c.what+" "+c.host, request(c.host, 80))
		}
	}
	for _, host := range []string{paperPublic, "[" + paperPublic6 + "]", "good.test", "good6.test", "GOOD.TEST.", "::ffff:" + paperPublic} {
		t.Run("allowed: CONNECT "+host, func(t *testing.T) {
			t.Parallel()
			s.ask(t, paperHTTPTunnel(host, 80)).hears("HTTP/1.1 200 ")
		})
	}
	t.Cleanup(func() {
		trap.only(t, paperPublic, paperPublic6)
		if trap.hits(paperPublic) == 0 || trap.hits(paperPublic6) == 0 {
			t.Error("the trap catches nothing")
		}
	})
}

// TestPaperHTTPGuardLoops: by HTTP, too, the proxy does not connect to itself.
func TestPaperHTTPGuardLoops(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, listen: "-", settings: `
log: {format: json}
listeners:
  - {name: wide, listen: "0.0.0.0:1080"}
  - {name: narrow, listen: "127.0.0.9:1081"}
  - {name: six, listen: "[::1]:1082"}
rules: {allow: everything, from: [loopback, 198.51.100.0/24], to: any}
open_to_the_world: true
`})
	for what, request := range map[string]func(string, uint16, ...string) []byte{"CONNECT": paperHTTPTunnel, "GET": paperHTTPGet} {
		for _, own := range paperOwnSpellings() {
			t.Run(fmt.Sprintf("%s %s port %d", what, own.host, own.port), func(t *testing.T) {
				t.Parallel()
				client := w.gateway.dial(t, "127.0.0.1", paperAt("127.0.0.1", 1080))
				client.sends(request(own.host, own.port))
				r := client.answeredHTTP()
				if r != (paperVerdict{http.StatusForbidden, "loop"}) {
					t.Errorf("%+v, want 403 and loop", r)
				}
				s.ended(t, client, "loop")
			})
		}
	}
}

// paperDatagram is a datagram for a relay of UDP, as RFC 1928, section 7, has it:
// to a target that is written as in a request.
func paperDatagram(request []byte, payload string) []byte {
	return slices.Concat([]byte{0, 0, 0}, request[3:], []byte(payload))
}

// TestPaperUDPGuard: of all the datagrams that a client sends to addresses that
// are guarded, in every spelling, none leaves, and those for the public Internet
// behind them do.
func TestPaperUDPGuard(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) { return nil, false })
	trapped := make(chan string, 1000)
	for _, n := range []*paperNet{w.gateway, w.outside} {
		paperUDPTrap(t, n, 99, trapped)
	}
	s := startPaper(t, paperSetup{net: w.gateway, hosts: paperGuardHosts, dns: "127.0.0.53", settings: `
log: {format: json}
rules: {allow: the internet, from: loopback, commands: udp}
`})
	client := s.ask5(t, paper5Ask(3, paperAt("0.0.0.0", 0)))
	at := client.granted5()
	var from net.Conn
	var err error
	w.gateway.do(func() { from, err = net.Dial("udp", at.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	send := func(request []byte) {
		if _, err := from.Write(paperDatagram(request, "ping")); err != nil {
			t.Fatal(err)
		}
	}
	for _, ip := range paperGuardedIPs() {
		send(paper5Ask(0, paperAt(ip, 99)))
		send(paper5Ask(0, paper5Mapped(paperAt(ip, 99))))
		send(paper5AskName(0, ip, 99))
	}
	for _, c := range slices.Concat(paperGuardedIPv6(), paperGuardedTexts()) {
		if ip, err := netip.ParseAddr(c.host); err == nil {
			send(paper5Ask(0, netip.AddrPortFrom(ip.WithZone(""), 99)))
		}
		send(paper5AskName(0, c.host, 99))
	}
	limit := time.After(paperPatience)
	again := time.NewTicker(50 * time.Millisecond) // a datagram may be lost, and the relay be busy with names
	defer again.Stop()
	for seen := map[string]bool{}; !seen[paperPublic] || !seen[paperPublic6]; {
		select {
		case <-again.C:
			send(paper5Ask(0, paperAt(paperPublic, 99)))
			send(paper5Ask(0, paperAt(paperPublic6, 99)))
		case at := <-trapped:
			seen[at] = true
			if at != paperPublic && at != paperPublic6 {
				t.Errorf("a datagram came to %s", at)
			}
		case <-limit:
			t.Fatalf("the datagrams for the Internet did not arrive, only those for %v", seen)
		}
	}
}

// paperUDPTrap tells of every datagram that comes to the port, at whatever
// address inside n.
func paperUDPTrap(t *testing.T, n *paperNet, port int, trapped chan<- string) {
	t.Helper()
	for _, network := range []string{"udp4", "udp6"} {
		var pc *net.UDPConn
		var err error
		n.do(func() { pc, err = net.ListenUDP(network, &net.UDPAddr{Port: port}) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		if err := paperAskDestination(pc, network); err != nil {
			t.Fatal(err)
		}
		go func() {
			buf, oob := make([]byte, 2048), make([]byte, 128)
			for {
				_, extra, _, _, err := pc.ReadMsgUDP(buf, oob)
				if err != nil {
					return
				}
				trapped <- paperDestination(oob[:extra])
			}
		}()
	}
}

// TestPaperMatrix puts every combination of source, destination, port, user and
// protocol to one set of rules, and compares what happens with the plainest
// reading of them.
func TestPaperMatrix(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	targets := []netip.AddrPort{}
	for _, ip := range []string{"127.0.1.1", "127.0.1.2"} {
		for _, port := range []int{2001, 2002} {
			targets = append(targets, paperEcho(t, n, fmt.Sprintf("%s:%d", ip, port)))
		}
	}
	users := paper5Users(t, "alice:wonder land", "bob:builds it")
	s := startPaper(t, paperSetup{net: n, settings: fmt.Sprintf(`
log: {format: json}
users: {file: %q}
rules:
  - {deny: never there, from: 127.0.2.0/24, to: 127.0.1.2, ports: 2002}
  - {allow: alice on one port, from: loopback, users: alice, proof: [password, claimed], to: loopback, ports: 2001}
  - {deny: not bob, from: loopback, users: bob, to: 127.0.1.1}
  - {allow: known people, from: 127.0.2.0/24, users: any, proof: [password, claimed], to: 127.0.1.0/24}
  - {allow: anybody near, from: 127.0.3.1, to: 127.0.1.1, ports: [2002-2003]}
`, users)})
	for _, from := range []string{"127.0.2.7", "127.0.3.1", "127.0.4.1"} {
		for _, to := range targets {
			for user, password := range map[string]string{"": "", "alice": "wonder land", "bob": "builds it"} {
				want := paperMatrixAllows(from, to, user)
				for protocol, granted := range paperMatrixTries(user, password) {
					t.Run(fmt.Sprintf("%s from %s to %s as %q", protocol, from, to, user), func(t *testing.T) {
						t.Parallel()
						client := s.dial(t, from)
						if got := granted(client, to); got != want {
							t.Errorf("granted: %v, want %v", got, want)
						}
					})
				}
			}
		}
	}
}

// paperMatrixAllows reads the rules of TestPaperMatrix.
func paperMatrixAllows(from string, to netip.AddrPort, user string) bool {
	near, first := from == "127.0.3.1", to.Addr().String() == "127.0.1.1"
	inside := strings.HasPrefix(from, "127.0.2.")
	switch {
	case inside && !first && to.Port() == 2002:
		return false
	case user == "alice" && to.Port() == 2001:
		return true
	case user == "bob" && first:
		return false
	case inside && user != "":
		return true
	}
	return near && first && to.Port() == 2002
}

// paperMatrixTries asks for a target by each protocol, as a user or as nobody,
// and tells whether it was granted.
func paperMatrixTries(user, password string) map[string]func(c *paperConn, to netip.AddrPort) bool {
	var fields []string
	methods, login := []byte{0}, []byte(nil)
	if user != "" {
		fields, methods, login = []string{paperBasic(user, password)}, []byte{0, 2}, paper5Login(user, password)
	}
	return map[string]func(c *paperConn, to netip.AddrPort) bool{
		"SOCKS 4": func(c *paperConn, to netip.AddrPort) bool {
			c.sends(paperAsk(paperCONNECT, to, user))
			code, _ := c.replied()
			return code == paperGranted
		},
		"SOCKS 4a": func(c *paperConn, to netip.AddrPort) bool {
			c.sends(paperAskName(paperCONNECT, to.Addr().String(), to.Port(), user))
			code, _ := c.replied()
			return code == paperGranted
		},
		"SOCKS 5": func(c *paperConn, to netip.AddrPort) bool {
			c.sends(paper5Greet(methods...))
			switch choice := string(c.reads(2)); {
			case choice == paper5ChoseLogin && login != nil:
				c.sends(login)
				c.hears(paper5LoggedIn)
			case choice == paper5ChoseNothing:
				return false
			case choice != paper5ChoseNone:
				c.t.Fatalf("the method % x", choice)
			}
			c.sends(paper5Ask(paperCONNECT, to))
			code, _ := c.replied5()
			return code == paper5Succeeded
		},
		"HTTP": func(c *paperConn, to netip.AddrPort) bool {
			c.sends(paperHTTPTunnel(to.Addr().String(), to.Port(), fields...))
			return string(c.reads(12)) == "HTTP/1.1 200"
		},
	}
}

// TestPaperHTTPLimits: a request of HTTP that does not come, comes slowly, or
// asks for a target that is silent, comes to its end.
func TestPaperHTTPLimits(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, settings: paperShortLimits})
	for name, opening := range map[string]string{
		"a method and no more":      "CONNECT ",
		"a line and no more":        "GET http://" + paperPublic + "/ HTTP/1.1\r\n",
		"all but the empty line":    "GET http://" + paperPublic + "/ HTTP/1.1\r\nHost: " + paperPublic + "\r\n",
		"half of the last line end": "GET http://" + paperPublic + "/ HTTP/1.1\r\nHost: " + paperPublic + "\r\n\r",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, []byte(opening))
			if r := client.answeredHTTP(); r.code != http.StatusRequestTimeout {
				t.Errorf("%+v, want 408", r)
			}
			client.isClosed()
			s.ended(t, client, "handshake-slow")
		})
	}
	for name, request := range map[string][]byte{
		"a tunnel to who is silent":         paperHTTPTunnel(paperSilent, 80),
		"a tunnel to who is silent in IPv6": paperHTTPTunnel(paperSilent6, 80),
		"a request to who is silent":        paperHTTPGet(paperSilent, 80),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, request)
			r := client.answeredHTTP()
			if r != (paperVerdict{http.StatusGatewayTimeout, "timed-out"}) {
				t.Errorf("%+v, want 504 and timed-out", r)
			}
			s.ended(t, client, "timed-out")
		})
	}
}
