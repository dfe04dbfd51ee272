//go:build unix

package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/pac"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
)

// pacOf asks a listener for its file by a host name; empty: it has none. Over TLS the
// address begins with https.
func pacOf(t *testing.T, address, path, host string) string {
	t.Helper()
	scheme, at, secure := strings.Cut(address, "://")
	if !secure {
		scheme, at = "http", address
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+at+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", at)
	}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return ""
	}
	if got := response.Header.Get("Content-Type"); got != pac.Type {
		t.Errorf("%s is of the type %q", path, got)
	}
	return string(body)
}

// line is the value of a variable of the file.
func line(file, name string) string {
	_, value, _ := strings.Cut(file, "var "+name+" = ")
	value, _, _ = strings.Cut(value, ";\n")
	return strings.Trim(value, `"`)
}

// TestPACProxies: the file names the proxies by which its reader gets somewhere, as the
// reader calls this server.
func TestPACProxies(t *testing.T) {
	const rules = "rules: {allow: all, to: any}\n"
	for name, test := range map[string]struct{ settings, host, want string }{
		"a name":                {oneListener + rules, "gw.example:3128", "PROXY gw.example:3128; SOCKS5 gw.example:3128; SOCKS gw.example:3128"},
		"a name, port 80":       {oneListener + rules, "WPAD", "PROXY wpad:80; SOCKS5 wpad:80; SOCKS wpad:80"},
		"IPv6":                  {oneListener + rules, "[2001:db8::1]:1080", "PROXY [2001:db8::1]:1080; SOCKS5 [2001:db8::1]:1080; SOCKS [2001:db8::1]:1080"},
		"no rule for HTTP":      {oneListener + "rules: {allow: all, protocols: socks5}", "gw", ""},
		"no rule for SOCKS":     {oneListener + "rules: {allow: all, protocols: http}", "gw:1080", "PROXY gw:1080"},
		"nobody from there":     {oneListener + "rules: {allow: all, from: 192.0.2.0/24}", "gw", ""},
		"all of it denied":      {oneListener + "rules: [{deny: here, from: loopback}, {allow: all}]", "gw", ""},
		"off":                   {oneListener + rules + "pac: off", "gw", ""},
		"no rules":              {oneListener + "rules: []", "gw", ""},
		"who signs in":          {oneListener + "users: {file: users}\nrules: {allow: all, users: alice, proof: password}", "gw:1", "PROXY gw:1"},
		"a listener beside it":  {"listeners: [{name: web, listen: '127.0.0.1:0', protocols: socks5}, {name: lan, listen: '127.0.0.1:0', protocols: http}, {listen: '127.0.0.2:0'}, {listen: '127.0.0.1:0', map: 'a:1'}]\n" + rules, "gw", "PROXY gw:80; SOCKS5 gw:WEB"},
		"another, but no rule":  {"listeners: [{name: web, listen: '127.0.0.1:0'}, {name: lan, listen: '127.0.0.1:0', protocols: http}]\nrules: {allow: all, listeners: lan}", "gw", "PROXY gw:80"},
		"TLS or not, asked so":  {"listeners: {name: lan, listen: '127.0.0.1:0', protocols: [http, socks5], tls: {certificate: cert.pem, key: key.pem}}\n" + rules, "gw:1", "PROXY gw:1; SOCKS5 gw:1"},
		"TLS only, beside it":   {"listeners: [{name: web, listen: '127.0.0.1:0', tls: {certificate: cert.pem, key: key.pem, tls_only: true}}, {name: lan, listen: '127.0.0.1:0', protocols: http}]\n" + rules, "gw:1", "PROXY gw:1; HTTPS gw:WEB"},
		"a socket of this file": {"listeners: [{name: lan, listen: '127.0.0.1:0', protocols: http}, {listen: 'unix:s'}]\n" + rules, "gw:1", "PROXY gw:1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := servesPAC(t, test.settings)
			want := strings.NewReplacer("LAN", portOf(s.at("lan")), "WEB", "").Replace(test.want)
			if strings.Contains(test.want, "WEB") {
				want = strings.ReplaceAll(test.want, "WEB", portOf(s.at("web")))
			}
			for _, path := range []string{"/proxy.pac", "/wpad.dat?x"} {
				if got := line(pacOf(t, s.at("lan"), path, test.host), "proxies"); got != want {
					t.Errorf("%s says %q, want %q", path, got, want)
				}
			}
		})
	}
}

// servesPAC serves with a certificate beside the settings.
func servesPAC(t *testing.T, settings string) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "pac") // a name that settings can have without quotes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	files := tlsFilesIn(dir)
	writePair(t, files, 1)
	settings = strings.NewReplacer("cert.pem", files.Certificate, "key.pem", files.Key, "unix:s", "unix:"+filepath.Join(dir, "s")).Replace(settings)
	return serveIn(t, settings, "alice:secret")
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// TestPACOverTLS: who asks over TLS is told of nothing that goes in the clear.
func TestPACOverTLS(t *testing.T) {
	s := servesPAC(t, "listeners: [{name: lan, listen: '127.0.0.1:0', tls: {certificate: cert.pem, key: key.pem}}, {listen: '127.0.0.1:0'}]\nrules: {allow: all}")
	for host, want := range map[string]string{"gw": "HTTPS gw:443", "gw:1080": "HTTPS gw:1080"} {
		if got := line(pacOf(t, "https://"+s.at("lan"), "/proxy.pac", host), "proxies"); got != want {
			t.Errorf("as %s: %q, want %q", host, got, want)
		}
	}
}

// placesIn are the places of a variable of the file, but for those of every file, sorted.
func placesIn(t *testing.T, file, variable string) string {
	t.Helper()
	var always []string
	for _, text := range []string{string(pac.Script{}.Text()), file} {
		var p struct {
			Names, Below []string
			Nets         []struct {
				Groups []int
				Bits   int
			}
		}
		if err := json.Unmarshal([]byte(line(text, variable)), &p); err != nil {
			t.Fatalf("%s: %v", line(text, variable), err)
		}
		all := p.Names
		for _, name := range p.Below {
			all = append(all, "*."+name)
		}
		for _, n := range p.Nets {
			all = append(all, fmt.Sprint(n.Groups, n.Bits))
		}
		if text == file {
			all = slices.DeleteFunc(all, func(one string) bool { return slices.Contains(always, one) })
			slices.Sort(all)
			return strings.Join(all, ", ")
		}
		always = all
	}
	return ""
}

// TestPACPlaces: what is reached directly, and what is not as a rule names it.
func TestPACPlaces(t *testing.T) {
	for name, test := range map[string]struct {
		settings, direct, through string
		local                     bool
	}{
		"the Internet alone":      {"rules: {allow: all}", "", "", true},
		"what a rule names":       {"rules: [{allow: a, to: [intranet, nas.local, 10.3.0.0/16, example.com, 8.8.8.0/24]}, {allow: b, to: [internet, intranet]}]", "", "[2563] 16, intranet, nas.local", true},
		"for others":              {"rules: [{allow: a, to: 10.3.0.0/16, from: 192.0.2.1}, {allow: b, protocols: socks4a, to: 10.4.0.0/16}, {allow: c}]", "", "", true},
		"what a rule denies":      {"rules: [{deny: a, to: [10.3.0.0/16, bad.example]}, {allow: b}]", "", "", true},
		"private":                 {"rules: {allow: all, to: [internet, private]}", "", "", false},
		"any":                     {"rules: {allow: all, to: any}", "", "", false},
		"a set":                   {"sets: {some: {entries: 10.0.0.0/8}}\nrules: {allow: all, to: '@some'}", "", "", false},
		"written":                 {"pac: {direct: ['*.corp.example', host.example, 192.0.2.0/24]}\nrules: {allow: all}", "*.corp.example, [49152 512] 24, host.example", "", false},
		"written, and private":    {"pac: {direct: [private, host.example]}\nrules: {allow: all, to: any}", "host.example", "", true},
		"written, and it is none": {"pac: {direct: []}\nrules: {allow: all}", "", "", false},
		"private, but for a rule": {"pac: {direct: private}\nrules: [{allow: a, to: intranet}, {allow: b, to: any}]", "", "intranet", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveIn(t, oneListener+test.settings)
			file := pacOf(t, s.at("lan"), "/proxy.pac", "gw")
			if got := line(file, "plain") == "true"; got != test.local || (placesIn(t, file, "local") != "") != test.local {
				t.Errorf("what is local is reached directly: %v, want %v: %s", got, test.local, line(file, "local"))
			}
			if direct, through := placesIn(t, file, "direct"), placesIn(t, file, "through"); direct != test.direct || through != test.through {
				t.Errorf("directly %s, by the proxy %s; want %s and %s", direct, through, test.direct, test.through)
			}
		})
	}
}

// at is a socket as far as a file names it.
type at struct {
	socket
	port uint16
	ip   string
}

func (a at) Addr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.ip), Port: int(a.port)} }

// TestPACBeside: a listener of several addresses is the one at that which was asked, and is
// there once, however often it is bound.
func TestPACBeside(t *testing.T) {
	of := func(name string, port uint16, ip string) *door {
		return &door{listener: server.Listener{Name: name}, socket: at{port: port, ip: ip}}
	}
	doors := []*door{
		of("lan", 1080, "192.0.2.1"), of("lan", 1080, "192.0.2.2"), of("lan", 1080, "::"), of("lan", 1081, "192.0.2.2"),
		of("dmz", 3128, "192.0.2.1"), of("dmz", 3128, "192.0.2.2"),
	}
	r := server.PageRequest{Local: netip.MustParseAddrPort("[::ffff:192.0.2.2]:1080"), Listener: "lan"}
	want := []neighbour{{doors[1], 1080, true}, {doors[3], 1081, false}, {doors[5], 3128, false}}
	if got := beside(doors, r); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	r.Relayed = true
	if got := beside(doors, r); !slices.Equal(got, []neighbour{{doors[0], 1080, true}}) {
		t.Errorf("behind a load balancer: %+v", got)
	}
}

// TestPACFollowsReload: it is of the settings in force.
func TestPACFollowsReload(t *testing.T) {
	s := serveIn(t, oneListener+"rules: {allow: all}")
	if file := pacOf(t, s.at("lan"), "/wpad.dat", "gw"); !strings.Contains(file, "FindProxyForURL") {
		t.Errorf("there is no file: %q", file)
	}
	s.reloads(oneListener + "rules: {allow: all}\npac: {direct: new.example}")
	if file := pacOf(t, s.at("lan"), "/wpad.dat", "gw"); !strings.Contains(line(file, "direct"), "new.example") {
		t.Errorf("it is of the settings before: %s", file)
	}
	s.reloads(oneListener + "rules: {allow: all}\npac: off")
	if file := pacOf(t, s.at("lan"), "/wpad.dat", "gw"); file != "" {
		t.Errorf("it is still there: %s", file)
	}
}

// TestPACWithoutHost: the file names what the client has connected to. Of a load balancer
// it names no listener that is behind it.
func TestPACWithoutHost(t *testing.T) {
	plain := serveIn(t, oneListener+"rules: {allow: all, protocols: http}")
	c := proxytest.Dial(t, plain.at("lan"))
	proxytest.Say(t, c, []byte("GET /proxy.pac HTTP/1.0\r\n\r\n")) // which does not say how it calls the server
	file, err := io.ReadAll(c)
	if got := line(string(file), "proxies"); err != nil || got != "PROXY "+plain.at("lan") {
		t.Errorf("%q, %v", got, err)
	}

	s := serveIn(t, "listeners: [{name: web, listen: '127.0.0.1:0'}, {name: lan, listen: '127.0.0.1:0', proxy_protocol: loopback, protocols: http}]\nrules: {allow: all, from: 10.0.0.0/8}")
	c = proxytest.Dial(t, s.at("lan"))
	proxytest.Say(t, c, []byte("PROXY TCP4 10.0.0.9 192.0.2.80 4000 3128\r\nGET /proxy.pac HTTP/1.0\r\n\r\n"))
	file, err = io.ReadAll(c)
	if got := line(string(file), "proxies"); err != nil || got != "PROXY 192.0.2.80:3128" {
		t.Errorf("%q, %v", got, err)
	}
}
