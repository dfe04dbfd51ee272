//go:build linux

package main_test

// Port mappings on the office's wall, and what leaves it by a certain way, with
// real programs at both ends.

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

// mapOffice is an office whose wall has port mappings.
func mapOffice(t *testing.T, listeners, rules string) *office {
	t.Helper()
	paperSlow(t)
	o := &office{inside: newPaperNet(t), wall: newPaperNet(t), outside: newPaperNet(t)}
	officeCable(t, "inside", o.inside, officeInside, o.wall, officeWall)
	officeCable(t, "outside", o.outside, officeOutside, o.wall, officeWallOut)
	o.proxy = launchPaper(t, paperSetup{
		settings: "log: {format: json}\nlisteners:\n" + listeners + "rules:\n" + rules, net: o.wall, listen: "-",
	})
	t.Cleanup(func() { o.proxy.finish(t) })
	o.proxy.stdout.until(t, o.proxy.done, "the line that says where it listens", paperListening.MatchString)
	return o
}

const mapRules = "  - {allow: mapped, protocols: map, from: [private, loopback], to: any}\n"

// webOutside is a web server outside that says who has come; over TLS with a
// certificate's file.
func (o *office) webOutside(t *testing.T, port int, certificate string) {
	t.Helper()
	ln := net.Listener(o.outside.listen(t, fmt.Sprintf("%s:%d", officeOutside, port)))
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, certificate)
		if err != nil {
			t.Fatal(err)
		}
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	s := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "hello %s, TLS: %v", r.Host, r.TLS != nil) // the client's side tells
		}),
	}
	go func() { _ = s.Serve(ln) }() // until the test closes the socket
	t.Cleanup(func() { _ = s.Close() })
}

func (o *office) curl(t *testing.T, want string, args ...string) {
	t.Helper()
	got := o.run(t, nil, nil, append([]string{"curl", "-sS", "--fail", "--max-time", "20"}, args...)...)
	if string(got) != want {
		t.Errorf("curl %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// TestMapCurl: curl comes to a web server by mappings that add TLS, take it off, or
// leave it, by an interface's name, a range of ports, and a unix socket.
func TestMapCurl(t *testing.T) {
	t.Parallel()
	certificate := writeFile(t, "gw.pem", newCertificate(t))
	socket := filepath.Join(t.TempDir(), "s")
	o := mapOffice(t, fmt.Sprintf(`
  - {name: plain, listen: [inside:80, "unix:%[3]s"], map: %[1]s:80}
  - {name: through, listen: %[2]s:443, map: %[1]s:443}
  - {name: added, listen: %[2]s:81, map: {to: %[1]s:443, tls: {ca: "%[4]s", name: %[2]s}}}
  - {name: strict, listen: %[2]s:82, map: {to: %[1]s:443, tls: {ca: "%[4]s"}}}
  - {name: taken, listen: %[2]s:444, tls: {certificate: "%[4]s", key: "%[4]s"}, map: %[1]s:80}
  - {name: range, listen: %[2]s:8000-8002, map: %[1]s:78-80}
  - {name: spare, listen: %[2]s:83, map: ["%[1]s:9", "%[1]s:80"]}
`, officeOutside, officeWall, socket, certificate), mapRules)
	o.webOutside(t, 80, "")
	o.webOutside(t, 443, certificate)

	o.curl(t, "hello "+officeWall+", TLS: false", "http://"+officeWall)
	o.curl(t, "hello a, TLS: false", "--unix-socket", socket, "http://a/")
	o.curl(t, "hello "+officeWall+", TLS: true", "--cacert", certificate, "https://"+officeWall)
	o.curl(t, "hello "+officeWall+":81, TLS: true", "http://"+officeWall+":81")
	o.curl(t, "hello "+officeWall+":444, TLS: false", "--cacert", certificate, "https://"+officeWall+":444")
	o.curl(t, "hello "+officeWall+":8002, TLS: false", "http://"+officeWall+":8002")
	o.curl(t, "hello "+officeWall+":83, TLS: false", "http://"+officeWall+":83")
	o.session(t, paperSession{Command: "connect", Protocol: "map", Target: officeOutside + ":443", Reason: "closed"})
	o.session(t, paperSession{Command: "connect", Protocol: "map", Address: officeOutside + ":80", Reason: "closed"})

	// The target's certificate is for somebody else.
	c := o.inside.dial(t, "", netip.MustParseAddrPort(officeWall+":82"))
	c.ends()
	o.session(t, paperSession{Protocol: "map", Reason: "bad-reply"})

	// What comes in by another interface is no client of the mapping, whatever the
	// addresses: a new one is served at once.
	if c, err := o.outside.tryDial("", netip.MustParseAddrPort(officeWallOut+":80")); err == nil {
		c.Close()
		t.Error("a listener on an interface takes what comes in by another")
	}
	o.wall.ip(t, "addr add 10.1.0.9/24 dev inside")
	o.curl(t, "hello 10.1.0.9, TLS: false", "http://10.1.0.9")
}

// TestMapHaproxy: haproxy learns from the PROXY header who the client is.
func TestMapHaproxy(t *testing.T) {
	t.Parallel()
	o := mapOffice(t, fmt.Sprintf(`
  - {name: one, listen: %[2]s:81, map: {to: %[1]s:80, proxy_protocol: v1}}
  - {name: two, listen: %[2]s:82, map: {to: %[1]s:80, proxy_protocol: v2}}
`, officeOutside, officeWall), mapRules)
	conf := writeFile(t, "haproxy.cfg", fmt.Appendf(nil, `
defaults
	mode http
	timeout connect 10s
	timeout client 1m
	timeout server 1m
frontend all
	bind %s:80 accept-proxy
	http-request return status 200 content-type text/plain lf-string "%%ci came to %%fi:%%fp"
`, officeOutside))
	background(t, o.outside, officeOutside+":80", "haproxy", "-db", "-q", "-f", conf)
	for _, port := range []string{"81", "82"} {
		o.curl(t, officeInside+" came to "+officeWall+":"+port, "http://"+officeWall+":"+port)
	}
}

// TestMapSocat: datagrams and unix sockets, with socat and ncat at the ends.
func TestMapSocat(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	o := mapOffice(t, fmt.Sprintf(`
  - {name: echo, listen: udp/%[2]s:7, map: {to: %[1]s:7, idle: 1s}}
  - {name: socket, listen: %[2]s:7, map: "unix:%[3]s/out"}
`, officeOutside, officeWall, folder), mapRules)
	background(t, o.outside, officeOutside+":7", "bash", "-c",
		`socat UDP4-LISTEN:7,fork PIPE & socat UNIX-LISTEN:"$0"/out,fork PIPE & exec socat TCP4-LISTEN:7,fork PIPE`, folder)
	if got := o.run(t, []byte("hello"), nil, "socat", "-t", "3", "-", "UDP4:"+officeWall+":7"); string(got) != "hello" {
		t.Errorf("by UDP came %q", got)
	}
	s := o.session(t, paperSession{Protocol: "map", Command: "udp", Target: officeOutside + ":7", Reason: "idle"})
	if s.Up != 5 || s.Down != 5 || s.Address != officeOutside+":7" || s.Rule != "mapped" {
		t.Errorf("the log says %+v", s)
	}
	if got := o.run(t, []byte("hello"), nil, "ncat", officeWall, "7"); string(got) != "hello" {
		t.Errorf("by a unix socket came %q", got)
	}
}

// TestLeaving: rules send sessions out by an interface, and mark their packets for
// the tables of routes.
func TestLeaving(t *testing.T) {
	t.Parallel()
	o := mapOffice(t, fmt.Sprintf(`
  - {name: usual, listen: %[2]s:80, map: %[1]s:80}
  - {name: marked, listen: %[2]s:81, map: %[1]s:80}
  - {name: cable, listen: %[2]s:82, map: %[1]s:80}
  - {name: inwards, listen: %[2]s:83, map: %[1]s:80}
  - {name: gone, listen: %[2]s:84, map: %[1]s:80}
  - {name: datagrams, listen: udp/%[2]s:81, map: {to: %[1]s:7, idle: 1s}}
`, officeOutside, officeWall), `
  - {allow: marked, listeners: [marked, datagrams], to: any, mark: 7}
  - {allow: cable, listeners: cable, to: any, outgoing: outside}
  - {allow: inwards, listeners: inwards, to: any, outgoing: inside}
  - {allow: gone, listeners: gone, to: any, outgoing: ppp0}
  - {allow: the rest, to: any}
`)
	o.webOutside(t, 80, "")
	for _, line := range []string{"rule add fwmark 7 lookup 77", "route add unreachable default table 77"} {
		o.wall.ip(t, line)
	}
	o.curl(t, "hello "+officeWall+", TLS: false", "http://"+officeWall)
	o.curl(t, "hello "+officeWall+":82, TLS: false", "http://"+officeWall+":82")
	for port, listener := range map[string]string{"81": "marked", "83": "inwards", "84": "gone"} {
		o.inside.dial(t, "", netip.MustParseAddrPort(officeWall+":"+port)).ends()
		o.session(t, paperSession{Listener: listener, Protocol: "map", Reason: "unreachable"})
	}
	o.wall.ip(t, "route replace default via "+officeOutside+" table 77")
	o.curl(t, "hello "+officeWall+":81, TLS: false", "http://"+officeWall+":81")
}
