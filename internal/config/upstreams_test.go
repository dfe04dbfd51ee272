package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestUpstreams(t *testing.T) {
	s, err := Parse("f.yaml", []byte(`
upstreams:
  hq:
    proxies: ["socks5://gw1:1080", "socks5h://alice:secret@gw2, http://gw3"]
    choose: by client
    proxy_protocol: v2
    check: 2m
  web: {proxies: https://proxy.example}
rules:
  - {allow: a, ports: 1, via: hq, outgoing: 203.0.113.9}
  - {allow: b, ports: 2, via: web}
  - {allow: c, outgoing: "::ffff:192.0.2.1"}
`), Override{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Upstream{
		{Name: "hq", Proxies: []string{"socks5://gw1:1080", "socks5h://alice:secret@gw2, http://gw3"}, Choose: "by client", ProxyProtocol: 2, Check: 2 * time.Minute},
		{Name: "web", Proxies: []string{"https://proxy.example"}, Choose: "first alive", Check: 30 * time.Second},
	}
	if !reflect.DeepEqual(s.Upstreams, want) {
		t.Errorf("%+v, want %+v", s.Upstreams, want)
	}
	for i, want := range []Rule{
		{Via: "hq", Outgoing: netip.MustParseAddr("203.0.113.9")}, {Via: "web"}, {Outgoing: netip.MustParseAddr("192.0.2.1")},
	} {
		if got := s.Rules[i]; got.Via != want.Via || got.Outgoing != want.Outgoing {
			t.Errorf("the rule %q: via %q, outgoing %v", got.Name, got.Via, got.Outgoing)
		}
	}
}

func TestUpstreamMistakes(t *testing.T) {
	const hint = "write a URL such as socks5h://gw:1080; several with commas between are a chain"
	for _, c := range []struct {
		name string
		file string
		want []string
	}{
		{"no proxies", "upstreams: {hq: {choose: random}}", []string{"1:17 the upstream has no proxies | write `proxies: [\"socks5h://gw:1080\"]`"}},
		{"only a URL", "upstreams: {hq: 'http://gw'}", []string{`1:17 expected keys with values, found "http://gw" | the keys here are check, choose, login, proxies, proxy_protocol`}},
		{"no name", "upstreams: {'': {proxies: 'http://gw'}}", []string{"1:13 an upstream without a name | "}},
		{"none", "upstreams: {hq: {proxies: []}}", []string{"1:27 the list is empty | leave the key out, and the default holds"}},
		{"words", "upstreams: {hq: {proxies: 'http://gw', choose: roundrobin, proxy_protocol: 2, check: 0s}}", []string{
			`1:48 "roundrobin" is not a way to choose | did you mean "round robin"?`,
			`1:76 "2" is not a version of the PROXY protocol | did you mean "v2"?`,
			"1:86 a time must be over zero: every wait has a limit | at most 30d",
		}},
		{"URLs", "upstreams: {hq: {proxies: ['gw:1080', 'ftp://gw', 'http://', 'http://gw:0', 'http://gw/x', 'http://a,socks9://b']}}", []string{
			"1:28 the proxy URL must begin with socks4://, socks4a://, socks5://, socks5h://, http:// or https:// | " + hint,
			"1:39 the proxy URL must begin with socks4://, socks4a://, socks5://, socks5h://, http:// or https:// | " + hint,
			"1:51 the proxy URL has no host | " + hint,
			"1:62 the port in the proxy URL is not a number from 1 to 65535 | " + hint,
			"1:77 the proxy URL has a path, a query or a fragment; a proxy has none of them | " + hint,
			"1:92 the proxy URL must begin with socks4://, socks4a://, socks5://, socks5h://, http:// or https:// | " + hint,
		}},
		{"twice", "upstreams: {hq: {proxies: ['http://gw', 'http://gw']}}", []string{"1:41 the same proxy stands here twice | keep one of them"}},
		{"dangling", "upstreams: {headquarters: {proxies: 'http://gw'}}\nrules:\n  - {allow: a, ports: 1, via: headquarter}\n  - {allow: b, via: other}", []string{
			`3:31 no upstream is called "headquarter" | did you mean "headquarters"?`,
			`4:21 no upstream is called "other" | `,
		}},
		{"of a rule that denies", "rules: {deny: a, outgoing: 192.0.2.1}", []string{`1:18 a rule that denies lets nothing out, by whatever way | leave "outgoing" out`}},
		{"outgoing", "rules: [{allow: a, outgoing: eth:0}, {allow: b, outgoing: 0.0.0.0}, {allow: c, mark: 0}, {allow: d, mark: 0x7}, {deny: e, mark: 1}]", []string{
			`1:30 "eth:0" is not an IP address | write an address such as 203.0.113.7`,
			`1:59 0.0.0.0 is not the address of a machine | write an address such as 203.0.113.7`,
			`1:86 "0" is not a number from 1 to 2147483647 | `,
			`1:107 "0x7" is not a number from 1 to 2147483647 | `,
			`1:123 a rule that denies lets nothing out, by whatever way | leave "mark" out`,
		}},
		{"ourselves", "listeners: [{name: one, listen: 192.0.2.1:1080}, {name: all, listen: ':8080'}, {name: home, listen: '127.0.0.1:3128'}]\nrules: []\n" +
			"upstreams: {hq: {proxies: ['socks5://192.0.2.1', 'http://localhost:8080', 'http://[::1]:8080', 'http://LOCALHOST.:3128,http://192.0.2.1:1080', 'http://192.0.2.2:8080', 'http://gw,socks4://192.0.2.1']}}", []string{
			`3:28 this proxy is the listener "one": what goes there comes back here | name another proxy`,
			`3:50 this proxy is the listener "all": what goes there comes back here | name another proxy`,
			`3:75 this proxy is the listener "all": what goes there comes back here | name another proxy`,
			`3:96 this proxy is the listener "home": what goes there comes back here | name another proxy`,
		}},
		{"logins", "upstreams:\n  a: {proxies: 'http://gw', login: x}\n  b: {proxies: 'http://gw', login: {user: x}}\n  c: {proxies: 'http://bob@gw', login: {file: f}}\n  d: {proxies: 'http://gw,http://gw', login: {file: f}}\n  e: {proxies: 'socks4a://gw', login: {file: f}}\n", []string{
			`2:36 expected keys with values, found "x" | the keys here are file`,
			"3:36 the login has no file | write `login: {file: FILE}`; the file holds one line, user:password",
			`3:37 unknown key "user" | the keys here are file`,
			"4:40 an entry of `proxies` has a user in its URL, and this login would be another | keep one of them",
			"5:46 the login is for one proxy, and an entry of `proxies` is a chain | write each login of a chain into its URLs",
			"6:39 SOCKS 4 has no passwords | write the userid into the URL",
		}},
	} {
		t.Run(c.name, func(t *testing.T) { checkFaults(t, c.file, Override{}, c.want) })
	}
}

// TestSecrets: no fault repeats a password, whatever is wrong beside it, and a
// file with one is nobody else's to read.
func TestSecrets(t *testing.T) {
	const secret = "w0nderland"
	for _, file := range []string{
		"upstreams: {hq: {proxies: 'socks9://alice:w0nderland@gw'}}",
		"upstreams: {hq: {proxis: ['http://gw', 'http://alice:w0nderland@gw']}}",
		"upstreams: {hq: {proxies: [alice:w0nderland@gw]}}",
		"upstreams: {hq: 'http://alice:w0nderland@gw'}",
		"upstreams: {hq: {proxies: 'http:/alice:w0nderland@gw'}}",
		"upstreams: {hq: {proxies: 'http://alice:w0nderland@gw', choose: first}}",
		"rules: {allow: a, via: 'http://alice:w0nderland@gw'}",
		"upstreams: {hq: {proxies: 'http://alice:x@w0nderland@gw@'}}",
		"upstreams: {hq: {proxies: ['http://alice:w0nderland@gw', }",
	} {
		_, err := Parse("f.yaml", []byte(file), Override{})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", file, err)
		}
	}

	settings := filepath.Join(t.TempDir(), "sallyport.yaml")
	text := "upstreams: {hq: {proxies: ['socks5://alice@gw', 'socks5://alice:w0nderland@gw']}}\n"
	for mode, private := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o602: false} {
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(settings, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(settings, Override{})
		switch {
		case private && err != nil:
			t.Errorf("%v: %v", mode, err)
		case !private && (err == nil || !strings.Contains(err.Error(), ":1:49: there is a password in this URL") || strings.Contains(err.Error(), secret)):
			t.Errorf("%v: %v", mode, err)
		}
	}
}
