package pac

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ask has Node.js run a script for each host, as a browser runs it: with nothing but
// the language.
func ask(t *testing.T, script []byte, hosts []string) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs Node.js")
	}
	in, err := json.Marshal(map[string]any{"script": string(script), "hosts": hosts})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", "-e", `
		const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
		const browser = require("vm").createContext(Object.create(null));
		require("vm").runInContext(asked.script, browser);
		console.log(JSON.stringify(asked.hosts.map((host) => browser.FindProxyForURL("http://" + host + "/", host))));`)
	node.Stdin = bytes.NewReader(in)
	out, err := node.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, exitText(err), script)
	}
	var answers []string
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(hosts) {
		t.Fatalf("%v: %s", err, out)
	}
	return answers
}

func exitText(err error) []byte {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.Stderr
	}
	return nil
}

func place(text string) Place {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return Place{Prefix: prefix}
	}
	name, below := strings.CutPrefix(text, "*.")
	return Place{Name: name, Below: below}
}

func someProxies() []Proxy {
	return []Proxy{{HTTPS, "gw.example", 443}, {SOCKS5, "192.0.2.1", 1080}, {SOCKS4, "2001:db8::1", 1080}}
}

const someWays = "HTTPS gw.example:443; SOCKS5 192.0.2.1:1080; SOCKS [2001:db8::1]:1080"

// TestScript: which way each host goes, in a real engine.
func TestScript(t *testing.T) {
	s := Script{
		Direct:  []Place{place("direct.example"), place("*.corp.example"), place("198.51.100.0/25"), place("2001:db8:5::/48")},
		Through: []Place{place("intranet"), place("nas.local"), place("10.3.0.0/16"), place("fd00:1::/32")},
		Private: true, Proxies: someProxies(),
	}
	direct := []string{
		"localhost", "localhost.", "LOCALHOST", "a.localhost", "127.0.0.1", "127.255.0.9", "[::1]", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0.0.0.0",
		"direct.example", "Direct.Example.", "a.corp.example", "a.b.corp.example", "198.51.100.127", "2001:db8:5::1", "[2001:db8:5:ffff::]",
		"printer", "fileserver", "mac.local", "x.y.home.arpa", "10.4.0.1", "172.31.255.255", "192.168.0.1", "169.254.1.1", "100.64.0.1", "fe80::1", "fe80::1%eth0", "fd00:2::1", "::ffff:10.4.0.1",
	}
	through := []string{
		"intranet", "INTRANET", "nas.local", "10.3.0.1", "10.3.255.255", "::ffff:10.3.0.1", "fd00:1:2::3",
		"example.com", "corp.example", "notcorp.example", "xcorp.example", "direct.example.com", "a.direct.example", "notlocalhost.example", "local.example",
		"198.51.100.128", "198.51.99.255", "8.8.8.8", "172.32.0.1", "172.15.255.255", "192.169.0.1", "100.128.0.1", "11.0.0.1", "2001:db8:6::1", "2001:4860::8888", "ff02::1", "fec0::1", "::2", "1::",
		"nothing.example'; return 'DIRECT", "\\.example", "x y.example", "пример.испытание",
	}
	for want, hosts := range map[string][]string{"DIRECT": direct, someWays: through} {
		for i, got := range ask(t, s.Text(), hosts) {
			if got != want {
				t.Errorf("%s goes %s, want %s", hosts[i], got, want)
			}
		}
	}
	s.Private, s.Direct = false, nil
	for i, got := range ask(t, s.Text(), slices.Concat(direct[len(direct)-13:], direct[:11])) {
		if want := map[bool]string{true: someWays, false: "DIRECT"}[i < 13]; got != want {
			t.Errorf("where what is local is not direct, the host %d goes %s, want %s", i, got, want)
		}
	}
}

// TestNetworks: random prefixes and addresses near their ends, against netip.
func TestNetworks(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	address := func() netip.Addr {
		b := make([]byte, []int{4, 16}[random.IntN(2)])
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	s := Script{Proxies: []Proxy{{HTTP, "gw", 1080}}}
	var hosts []string
	for range 300 {
		a := address()
		prefix, err := a.Prefix(8 + random.IntN(a.BitLen()-7))
		if err != nil {
			t.Fatal(err)
		}
		s.Direct = append(s.Direct, Place{Prefix: prefix})
		last := prefix.Addr().AsSlice()
		for bit := prefix.Bits(); bit < len(last)*8; bit++ {
			last[bit/8] |= 0x80 >> (bit % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		for _, near := range []netip.Addr{prefix.Addr(), prefix.Addr().Prev(), end, end.Next(), a, address()} {
			if near.IsValid() && !near.Is4In6() {
				hosts = append(hosts, near.String(), near.StringExpanded())
			}
		}
	}
	for i, got := range ask(t, s.Text(), hosts) {
		at := netip.MustParseAddr(hosts[i])
		want := "PROXY gw:1080"
		if slices.ContainsFunc(s.Direct, func(p Place) bool { return p.Prefix.Contains(at) }) || slices.ContainsFunc(loopback, func(p netip.Prefix) bool { return p.Contains(at) }) {
			want = "DIRECT"
		}
		if got != want {
			t.Errorf("seed %d: %s goes %s, want %s", seed, hosts[i], got, want)
		}
	}
}

func TestIsLocal(t *testing.T) {
	for text, want := range map[string]bool{
		"intranet": true, "*.local": true, "a.local": true, "*.home.arpa": true, "10.0.0.0/8": true, "10.1.2.3/32": true, "0.0.0.0/0": true, "fe80::/64": true,
		"example.com": false, "*.corp.example": false, "notlocal.example": false, "8.8.8.0/24": false, "2001:db8::/32": false,
	} {
		if got := place(text).IsLocal(); got != want {
			t.Errorf("%s is local: %v, want %v", text, got, want)
		}
	}
}

// hostOfScript is what may stand as a host in a script.
var hostOfScript = regexp.MustCompile(`^([a-z0-9._-]+|[0-9a-f:.]+)$`)

func TestHost(t *testing.T) {
	for field, want := range map[string]Proxy{
		"gw": {Host: "gw"}, "GW.Example:1080": {Host: "gw.example", Port: 1080}, "gw.example.": {Host: "gw.example"}, "wpad": {Host: "wpad"}, "a_b-c.d": {Host: "a_b-c.d"},
		"192.0.2.1": {Host: "192.0.2.1"}, "192.0.2.1:80": {Host: "192.0.2.1", Port: 80}, "[2001:DB8::1]": {Host: "2001:db8::1"}, "[::1]:1080": {Host: "::1", Port: 1080},
	} {
		host, port, ok := Host(field)
		if !ok || host != want.Host || port != want.Port {
			t.Errorf("%q is %q, %d, %v; want %+v", field, host, port, ok, want)
		}
	}
	for _, field := range []string{
		"", ":", ":80", "gw:", "gw:0", "gw:65536", "gw:+80", "gw:80:80", "::1", "[::1", "::1]", "[fe80::1%25eth0]", "[192.0.2.1]", "[::1]x", "[::1]:x", "a b", "a\"b", "a;b", "a'b", "a\\b", "a<b", "a..b", ".a", "1.2.3",
		"127.1", "0x7f.1", "gw\n", "gw\x00", "пример", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "b",
	} {
		if host, port, ok := Host(field); ok {
			t.Errorf("%q is taken for %q, %d", field, host, port)
		}
	}
}

// FuzzHost: what is taken for a host has nothing in it that means something in a script.
func FuzzHost(f *testing.F) {
	for _, field := range []string{"gw:1080", "[::1]:80", "192.0.2.1", "a; DIRECT", "[fe80::1%25a]", "gw:", "a.b.", "\"+alert(1)+\""} {
		f.Add(field)
	}
	f.Fuzz(func(t *testing.T, field string) {
		host, port, ok := Host(field)
		if !ok {
			return
		}
		if !hostOfScript.MatchString(host) {
			t.Fatalf("%q is taken for the host %q", field, host)
		}
		if again, p, ok := Host(strings.TrimSuffix(hostPort(host, port), ":0")); !ok || again != host || p != port {
			t.Fatalf("%q is %q, %d, and then %q, %d", field, host, port, again, p)
		}
	})
}

// FuzzScript: names, whatever is in them, are data: each line that the script begins with
// is one value of JSON, which is what was put in, and the program behind is as it was.
func FuzzScript(f *testing.F) {
	f.Add("example.com", "*.example", false)
	f.Add("\"; while (true) {} //", "</script>\u2028\n\r\x00", true)
	f.Fuzz(func(t *testing.T, name, other string, below bool) {
		if name == "" || other == "" {
			return
		}
		s := Script{Direct: []Place{{Name: name, Below: below}}, Through: []Place{{Name: other, Below: !below}}, Private: below, Proxies: someProxies()}
		rest, found := strings.CutSuffix(string(s.Text()), program)
		if !found {
			t.Fatal("the program is another one")
		}
		lines := strings.SplitAfter(rest, "\n")
		if len(lines) != 7 || strings.ContainsAny(rest, "<>\r\x00\u2028\u2029") {
			t.Fatalf("%d lines: %q", len(lines), rest)
		}
		for line, want := range map[int]string{3: name, 4: other} {
			_, value, _ := strings.Cut(strings.TrimSuffix(lines[line-1], ";\n"), " = ")
			var got places
			if err := json.Unmarshal([]byte(value), &got); err != nil {
				t.Fatalf("%q: %v", lines[line-1], err)
			}
			if !slices.Contains(slices.Concat(got.Names, got.Below), strings.ToValidUTF8(want, "\ufffd")) && strings.ToValidUTF8(want, "") == want {
				t.Fatalf("%q has become %q", want, lines[line-1])
			}
		}
	})
}
