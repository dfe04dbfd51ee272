//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
)

// viaSettings send everything through the proxies.
func viaSettings(t *testing.T, proxies ...string) string {
	t.Helper()
	list, err := json.Marshal(proxies)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
log: {format: json}
upstreams: {next: {proxies: %s, check: 1s}}
rules: {allow: everything, from: loopback, to: any, via: next}
`, list)
}

// viaEnd lets this machine go anywhere, and asks for a primary as the paper does.
const viaEnd = `
log: {format: json}
rules: {allow: everything, from: loopback, to: any}
`

// startVia runs a server whose sessions all leave through the proxies.
func startVia(t *testing.T, proxies ...string) *paperServer {
	t.Helper()
	return startPaper(t, paperSetup{settings: viaSettings(t, proxies...)})
}

func (s *paperServer) url(scheme string) string { return scheme + "://" + s.addr().String() }

// viaFront connects a client with the target by a protocol.
type viaFront func(t *testing.T, s *paperServer, x *paperTarget) (client, far *paperConn)

func viaFronts() map[string]viaFront {
	return map[string]viaFront{
		"socks4": func(t *testing.T, s *paperServer, x *paperTarget) (client, far *paperConn) {
			t.Helper()
			return s.join(t, "", x, "bob")
		},
		"socks5": func(t *testing.T, s *paperServer, x *paperTarget) (client, far *paperConn) {
			t.Helper()
			return s.join5(t, "", x)
		},
		"http": func(t *testing.T, s *paperServer, x *paperTarget) (client, far *paperConn) {
			t.Helper()
			client = s.dial(t, "")
			client.says(fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", x.addr))
			client.hears("HTTP/1.1 200 Connection established\r\n\r\n")
			return client, x.accept(t)
		},
	}
}

// TestViaThreeDeep: a server behind a server behind a server, by each protocol.
// Bytes, FIN and RST arrive as what they are, and a forwarded request as well.
func TestViaThreeDeep(t *testing.T) {
	t.Parallel()
	last := startPaper(t, paperSetup{settings: viaEnd})
	schemes := []string{"socks4", "socks4a", "socks5", "socks5h", "http"}
	for i, first := range schemes {
		second := schemes[(i+2)%len(schemes)]
		t.Run(first+" and "+second, func(t *testing.T) {
			t.Parallel()
			s := startVia(t, startVia(t, last.url(second)).url(first))
			for _, front := range viaFronts() {
				viaEnds(t, s, front)
			}
			viaForwards(t, s)
			viaRefusals(t, s)
		})
	}
}

// viaEnds checks how bytes and ends arrive.
func viaEnds(t *testing.T, s *paperServer, front viaFront) {
	t.Helper()
	x := paperListen(t, nil, "127.0.0.1:0")
	c, far := front(t, s, x)
	paperExchange(t, c, far, 100_000)
	c, far = front(t, s, x)
	c.says("question")
	c.stops()
	far.hears("question")
	far.ends()
	far.says("answer")
	c.hears("answer")
	far.leaves()
	c.ends()
	line := s.stderr.until(t, s.done, "the session of "+c.local, func(line string) bool {
		r, ok := paperRecord(line)
		return ok && r.Client == c.local
	})
	if r, _ := paperRecord(line); r.Reason != "closed" || r.Address != x.addr.String() || !strings.Contains(line, `"via":"next","proxy":"`) {
		t.Errorf("the log says %s", line)
	}

	c, far = front(t, s, x)
	c.resets()
	far.isReset()
	c, far = front(t, s, x)
	far.resets()
	c.isReset()
	s.ended(t, c, "target-reset")
}

// viaForwards has two requests forwarded on one connection, which the target
// keeps open.
func viaForwards(t *testing.T, s *paperServer) {
	t.Helper()
	x := paperListen(t, nil, "127.0.0.1:0")
	c := s.dial(t, "")
	var far *paperConn
	for range 2 {
		c.says(fmt.Sprintf("GET http://%s/page HTTP/1.1\r\nHost: %[1]s\r\n\r\n", x.addr))
		if far == nil {
			far = x.accept(t)
		}
		far.hears("GET /page HTTP/1.1\r\n")
		for rest := ""; !strings.HasSuffix(rest, "\r\n\r\n"); {
			rest += string(far.reads(1))
		}
		far.says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		for head := ""; !strings.HasSuffix(head, "\r\n\r\n"); {
			head += string(c.reads(1))
		}
	}
}

// viaRefusals: the client is told what the last proxy found, as far as the
// protocols in between have words for it.
func viaRefusals(t *testing.T, s *paperServer) {
	t.Helper()
	c := s.ask5(t, paper5Ask(paperCONNECT, paperDeaf(t, nil)))
	if code, _ := c.replied5(); code != 5 && code != 1 {
		t.Errorf("reply %d, want 5, or 1 where a protocol in between knows no better", code)
	}
	if got := s.session(t, c).Reason; got != "refused" && got != "upstream" {
		t.Errorf("the log's reason is %q", got)
	}
}

// TestViaBind: both replies of a BIND go all the way, and it is asked of the proxy
// that carries the primary connection, whichever is next.
func TestViaBind(t *testing.T) {
	t.Parallel()
	last := []*paperServer{startPaper(t, paperSetup{settings: viaEnd}), startPaper(t, paperSetup{settings: viaEnd})}
	for _, scheme := range []string{"socks4", "socks5h"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			mid := startPaper(t, paperSetup{settings: strings.Replace(
				viaSettings(t, last[0].url(scheme), last[1].url(scheme)), "check:", "choose: round robin, check:", 1)})
			s := startVia(t, mid.url("socks5"))
			x := paperListen(t, nil, "127.0.0.9:0")
			for range 3 { // of which each goes to another proxy
				primary, _ := s.join5(t, "", x)
				waiting := s.greet5(t, "")
				waiting.sends(paper5Ask(paperBIND, x.addr))
				at := waiting.granted5()
				peer := s.net.dial(t, "127.0.0.9", at)
				if got := waiting.granted5().String(); got != peer.local {
					t.Fatalf("the second reply says %s, want the peer %s", got, peer.local)
				}
				paperExchange(t, waiting, peer, 1000)
				peer.leaves()
				waiting.ends()
				primary.leaves()
			}
			// Without a primary, and for a peer of another address.
			c := s.greet5(t, "")
			c.sends(paper5Ask(paperBIND, paperAt("127.0.0.8", 21)))
			c.refused5(2)
			s.ended(t, c, "no-primary")
			s.join5(t, "", x)
			waiting, at := s.bind5(t, "", "127.0.0.9")
			s.net.dial(t, "127.0.0.7", at)
			code, _ := waiting.replied5()
			if code == paper5Succeeded {
				t.Error("a stranger was accepted as the peer")
			}
		})
	}
}

// TestViaUDP: datagrams go three deep and come back with who has sent them.
func TestViaUDP(t *testing.T) {
	t.Parallel()
	last := startPaper(t, paperSetup{settings: viaEnd})
	s := startVia(t, startVia(t, last.url("socks5")).url("socks5h"))
	viaPings(t, s)

	// HTTP has no datagrams: they are refused, and so noted.
	s = startVia(t, last.url("http"))
	d, err := client.New(s.url("socks5"))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := d.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(paperAt("127.0.0.3", 9))); err != nil {
		t.Fatal(err)
	}
	// The decision is made by another goroutine: the end of the association waits for it.
	paperEventually(t, "the refusal is noted", func() bool {
		pc.Close()
		for _, line := range s.stderr.all() {
			if strings.Contains(line, `"command":"udp"`) {
				return true
			}
		}
		return false
	})
}

// viaPings sends to two targets through the server and wants the echo of each.
func viaPings(t *testing.T, s *paperServer) {
	t.Helper()
	d, err := client.New(s.url("socks5"))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := d.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if err := pc.SetDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	for i, ip := range []string{"127.0.0.3:0", "127.0.0.4:0"} {
		echo, err := net.ListenPacket("udp", ip)
		if err != nil {
			t.Fatal(err)
		}
		defer echo.Close()
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := echo.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = echo.WriteTo(b[:n], from)
			}
		}()
		sent := fmt.Sprintf("ping %d", i)
		if _, err := pc.WriteTo([]byte(sent), echo.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, from, err := pc.ReadFrom(b)
		if err != nil || string(b[:n]) != sent || from.String() != echo.LocalAddr().String() {
			t.Fatalf("%q from %v, %v; want %q from %v", b[:n], from, err, sent, echo.LocalAddr())
		}
	}
}

// TestViaFailover: the client does not notice that the first proxy is dead, or
// turns us away; it is told when all are; and a proxy that is back is used again.
func TestViaFailover(t *testing.T) {
	t.Parallel()
	users := paper5Users(t, "alice:wonder-1234")
	locked := startPaper(t, paperSetup{settings: fmt.Sprintf(`
log: {format: json}
users: {file: %q}
rules: {allow: alice, to: any, users: alice, proof: password}
`, users)})
	last := startPaper(t, paperSetup{settings: viaEnd})
	deaf := paperDeaf(t, nil)
	wrong := "socks5://alice:l00king-glass@" + locked.addr().String()
	x := paperListen(t, nil, "127.0.0.1:0")

	s := startVia(t, "socks5://"+deaf.String(), wrong, last.url("http"))
	for range 3 {
		c, far := s.join5(t, "", x)
		paperExchange(t, c, far, 100)
		c.leaves()
		far.ends()
	}
	for _, proxy := range []string{"socks5://" + deaf.String(), locked.url("socks5")} {
		s.stderr.until(t, s.done, "that "+proxy+" is down", func(line string) bool {
			return strings.Contains(line, "an upstream proxy is down") && strings.Contains(line, proxy)
		})
	}
	if n := strings.Count(strings.Join(s.stderr.all(), "\n"), "an upstream proxy is down"); n != 2 {
		t.Errorf("%d lines say that a proxy is down, want 2", n)
	}

	back := netip.MustParseAddrPort(paperListenAndClose(t))
	s = startVia(t, "socks5://"+back.String(), wrong)
	c := s.ask5(t, paper5Ask(paperCONNECT, x.addr))
	c.refused5(1)
	s.ended(t, c, "upstream")
	if all := strings.Join(s.stderr.all(), "\n"); strings.Contains(all, "l00king-glass") {
		t.Errorf("the log has the password:\n%s", all)
	}
	startPaper(t, paperSetup{settings: viaEnd, listen: back.String()})
	s.stderr.until(t, s.done, "that a proxy is back", func(line string) bool {
		return strings.Contains(line, "an upstream proxy is alive again") && strings.Contains(line, back.String())
	})
	c, far := s.join5(t, "", x)
	paperExchange(t, c, far, 100)
}

// paperListenAndClose returns an address where nobody listens any more.
func paperListenAndClose(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestViaLoginFile: the login comes from a file, and passes.
func TestViaLoginFile(t *testing.T) {
	t.Parallel()
	next := startPaper(t, paperSetup{settings: fmt.Sprintf(`
log: {format: json}
users: {file: %q}
rules: {allow: alice, to: any, users: alice, proof: password}
`, paper5Users(t, "alice:w:nder l@nd"))})
	login := writeFile(t, "login", []byte("alice:w:nder l@nd\n"))
	for _, scheme := range []string{"socks5", "http"} {
		s := startPaper(t, paperSetup{settings: strings.Replace(viaSettings(t, next.url(scheme)),
			"check:", fmt.Sprintf("login: {file: %q}, check:", login), 1)})
		c, far := s.join5(t, "", paperListen(t, nil, "127.0.0.1:0"))
		paperExchange(t, c, far, 100)
	}
	if err := os.Chmod(login, 0o644); err != nil {
		t.Fatal(err)
	}
	s := launchPaper(t, paperSetup{settings: strings.Replace(viaSettings(t, next.url("http")),
		"check:", fmt.Sprintf("login: {file: %q}, check:", login), 1)})
	if code, said := s.exits(t); code != 78 || !strings.Contains(said, "chmod 600") || strings.Contains(said, "nder") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// TestViaNames: a name that is unknown here is looked up at the other end, by a
// rule that needs no address, and here by one that does.
func TestViaNames(t *testing.T) {
	t.Parallel()
	there, askedThere := paperNameServer(t)
	here, askedHere := paperNameServer(t)
	last := startPaper(t, paperSetup{settings: "resolver: {servers: \"" + there.String() + "\"}\n" + viaEnd})
	const names = "resolver: {servers: %q}\nlog: {format: json}\n" +
		"upstreams: {next: {proxies: %q}, plain: {proxies: %q}}\n" +
		"rules:\n" +
		"  - {allow: by name, from: loopback, to: \"*.corp.example\", via: next}\n" +
		"  - {allow: by address, from: loopback, to: 127.0.0.0/8, ports: %d, via: next}\n" +
		"  - {allow: resolved here, from: loopback, to: [\"*.plain.example\", loopback], via: plain}\n"
	x, y, z := paperListen(t, nil, "127.0.0.2:0"), paperListen(t, nil, "127.0.0.2:0"), paperListen(t, nil, "127.0.0.2:0")
	for _, scheme := range []string{"socks5h", "http", "socks4a"} {
		s := startPaper(t, paperSetup{settings: fmt.Sprintf(names, here.String(), last.url(scheme), last.url("socks5"), y.addr.Port())})
		joins := func(name string, to *paperTarget) paperSession {
			c := s.ask5(t, paper5AskName(paperCONNECT, name, to.addr.Port()))
			c.granted5()
			far := to.accept(t)
			paperExchange(t, c, far, 100)
			c.leaves()
			far.ends()
			return s.session(t, c)
		}
		asked := askedHere.Load()
		if r := joins("inside.corp.example", x); r.Rule != "by name" || r.Address != "" || askedHere.Load() != asked || askedThere.Load() == 0 {
			t.Errorf("%s: %+v; asked here %d times, there %d", scheme, r, askedHere.Load()-asked, askedThere.Load())
		}
		if r := joins("other.example", y); r.Rule != "by address" || r.Address != y.addr.String() {
			t.Errorf("%s: %+v", scheme, r)
		}
		if r := joins("a.plain.example", z); r.Rule != "resolved here" || r.Address != z.addr.String() {
			t.Errorf("%s: %+v", scheme, r)
		}
	}
}

// TestViaProxyProtocol: the first proxy is told the client.
func TestViaProxyProtocol(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2"} {
		mid := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", proxy_protocol: 127.0.0.1}
rules: {allow: somebody, from: 127.0.0.9, to: any}
`})
		for _, scheme := range []string{"socks4", "socks5", "http"} {
			s := startPaper(t, paperSetup{settings: strings.Replace(viaSettings(t, mid.url(scheme)),
				"check:", "proxy_protocol: "+version+", check:", 1)})
			x := paperListen(t, nil, "127.0.0.1:0")
			c, far := s.join(t, "127.0.0.9", x, "bob")
			paperExchange(t, c, far, 100)
			c.leaves()
			far.ends()
			mid.stderr.until(t, mid.done, "the session of "+c.local, func(line string) bool {
				return strings.Contains(line, fmt.Sprintf(`"client":%q,"through":"127.0.0.1:`, c.local))
			})
			if strings.Contains(strings.Join(s.stderr.all(), "\n"), "is down") {
				t.Errorf("%s, %s: the checks find it down", version, scheme)
			}
		}
	}
}

// TestOutgoing: everything leaves by the address of the rule.
func TestOutgoing(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: {allow: everything, from: loopback, to: any, outgoing: 127.0.0.5}
`})
	last := startPaper(t, paperSetup{settings: viaEnd})
	via := startPaper(t, paperSetup{settings: strings.Replace(viaSettings(t, last.url("socks5")), "via: next", "via: next, outgoing: 127.0.0.6", 1)})
	x := paperListen(t, nil, "127.0.0.1:0")
	c, far := s.join5(t, "", x)
	if !strings.HasPrefix(far.remote, "127.0.0.5:") {
		t.Errorf("the target sees %s", far.remote)
	}
	_, at := s.bind5(t, "", "127.0.0.1")
	if at.Addr().String() != "127.0.0.5" {
		t.Errorf("BIND waits at %s", at)
	}
	c.leaves()
	c = s.ask5(t, paper5Ask(paperCONNECT, paperAt("::1", x.addr.Port())))
	c.refused5(4)
	s.stderr.until(t, s.done, "why", func(line string) bool {
		return strings.Contains(line, `"reason":"unreachable"`) && strings.Contains(line, "outgoing address 127.0.0.5 is of the other family")
	})
	c, far = via.join5(t, "", x)
	c.leaves()
	far.leaves()
	last.stderr.until(t, last.done, "who came", func(line string) bool { return strings.Contains(line, `"client":"127.0.0.6:`) })

	echo, err := net.ListenPacket("udp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	d, err := client.New(s.url("socks5"))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := d.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := pc.WriteTo([]byte("x"), echo.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := echo.SetReadDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	if _, from, err := echo.ReadFrom(make([]byte, 10)); err != nil || !strings.HasPrefix(from.String(), "127.0.0.5:") {
		t.Errorf("a datagram came from %v, %v", from, err)
	}
}

// TestViaCurl: curl fetches a page three deep.
func TestViaCurl(t *testing.T) {
	paperSlow(t)
	t.Parallel()
	s := startVia(t, startVia(t, startPaper(t, paperSetup{settings: viaEnd}).url("socks5h")).url("http"))
	page := paperBytes(megabyte)
	web := httptest.NewServer(officePages(page, nil))
	defer web.Close()
	at := web.Listener.Addr().String()
	for _, scheme := range []string{"socks4", "socks4a", "socks5", "socks5h", "http"} {
		for _, more := range [][]string{nil, {"--proxytunnel"}} {
			args := append([]string{"--silent", "--show-error", "--fail", "--noproxy", "", "--proxy", s.url(scheme), "http://" + at + "/"}, more...)
			got, err := exec.CommandContext(t.Context(), "curl", args...).Output()
			if err != nil {
				t.Fatalf("curl %q: %v", args, err)
			}
			sameBytes(t, scheme, got, page)
		}
	}
}
