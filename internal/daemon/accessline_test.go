package daemon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// web is a session as any.
func web() server.Record {
	return server.Record{
		ID: 7, Started: time.Now(), Listener: "lan", Client: netip.MustParseAddrPort("10.0.0.7:4711"), Protocol: server.SOCKS5, Command: socks.Connect,
		Identity: server.Identity{Name: "alice", Proof: server.Password}, Target: socks.Addr{Name: "a.example", Port: 443},
		Address: netip.MustParseAddrPort("192.0.2.1:443"), Rule: "web",
	}
}

func mustFormat(tb testing.TB, text string) lineFormat {
	tb.Helper()
	format, err := newAccessFormat(text)
	if err != nil {
		tb.Fatal(err)
	}
	return format
}

// TestAccessLines: what each format has of a session that was relayed, of one that was
// refused, and of one that said nothing.
func TestAccessLines(t *testing.T) {
	refused, silent := web(), server.Record{Started: time.Now(), Client: netip.MustParseAddrPort("10.0.0.8:1")}
	refused.Address = netip.AddrPort{}
	byProxy := web()
	byProxy.Via, byProxy.Proxy = "hq", "socks5://gw1:1080"
	const template = "{client_ip} [{time}] {user}/{proof} {command} {host} {port} {up}+{down}={bytes} {took} {milliseconds} {reason} {detail} {via} {tls}{http} {{ok}}"
	for name, test := range map[string]struct {
		record                server.Record
		reason                error
		json, squid, template string
	}{
		"relayed": {
			web(), nil,
			`"id":7,"listener":"lan","client":"10.0.0.7:4711","protocol":"socks5","user":"alice","proof":"password","command":"connect","target":"a.example:443","address":"192.0.2.1:443","rule":"web","up":0,"down":0,"took":1.235,"reason":"closed"}`,
			`946684801.235   1235 10.0.0.7 TCP_TUNNEL/200 0 CONNECT a.example:443 alice HIER_DIRECT/192.0.2.1 -`,
			`10.0.0.7 [2000-01-01T00:00:01.235Z] alice/password connect a.example 443 0+0=0 1.235 1235 closed - - -- {ok}`,
		},
		"refused": {
			refused, fmt.Errorf("%w: by the rule %q", server.Denied, "web"),
			`"target":"a.example:443","rule":"web","up":0,"down":0,"took":1.235,"reason":"denied","detail":"by the rule \"web\""}`,
			`946684801.235   1235 10.0.0.7 TCP_DENIED/403 0 CONNECT a.example:443 alice HIER_NONE/- -`,
			`10.0.0.7 [2000-01-01T00:00:01.235Z] alice/password connect a.example 443 0+0=0 1.235 1235 denied by\x20the\x20rule\x20\x22web\x22 - -- {ok}`,
		},
		"silent": {
			silent, server.HandshakeSlow,
			`"id":0,"listener":"","client":"10.0.0.8:1","up":0,"down":0,"took":1.235,"reason":"handshake-slow"}`,
			`946684801.235   1235 10.0.0.8 NONE_NONE/400 0 NONE - - HIER_NONE/- -`,
			`10.0.0.8 [2000-01-01T00:00:01.235Z] -/- - - - 0+0=0 1.235 1235 handshake-slow - - -- {ok}`,
		},
		"by a proxy": {
			byProxy, server.TargetReset,
			`"via":"hq","proxy":"socks5://gw1:1080","up":0,"down":0,"took":1.235,"reason":"target-reset"}`,
			`946684801.235   1235 10.0.0.7 TCP_TUNNEL/200 0 CONNECT a.example:443 alice FIRSTUP_PARENT/socks5://gw1:1080 -`,
			`10.0.0.7 [2000-01-01T00:00:01.235Z] alice/password connect a.example 443 0+0=0 1.235 1235 target-reset - hq -- {ok}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := server.NewSession(test.record)
				s.Started = time.Now()
				time.Sleep(1235 * time.Millisecond)
				for format, want := range map[string]string{"json": test.json, "squid": test.squid, template: test.template} {
					got := string(mustFormat(t, format)(nil, &stamp{}, new(endOf(s, test.reason, nil))))
					got = strings.ReplaceAll(got, time.Now().Format("-07:00"), "Z")
					if !strings.HasSuffix(got, want+"\n") || format != "json" && got != want+"\n" || strings.Count(got, "\n") != 1 {
						t.Errorf("%s:\n%swant\n%s", format, got, want)
					}
				}
			})
		})
	}
}

// TestAccessFields: each word that the settings take says something of some session.
func TestAccessFields(t *testing.T) {
	full := web()
	full.Through, full.TLS, full.HTTP2, full.Socket, full.Via, full.Proxy, full.Bound = full.Client, true, true, "/s", "hq", "p", full.Address
	s := server.NewSession(full)
	for _, field := range config.AccessFields() {
		if got := string(mustFormat(t, "{"+field+"}")(nil, &stamp{}, new(endOf(s, fmt.Errorf("%w: why", server.Denied), nil)))); got == "-\n" {
			t.Errorf("{%s} says nothing", field)
		}
	}
}

// FuzzAccessInjection: whatever a client calls itself, its target, or brings about as an
// error, is one line, and in it the words that there are otherwise.
func FuzzAccessInjection(f *testing.F) {
	for _, text := range []string{
		"bob", "", "-", "a b", "bob\n946684801.235 0 6.6.6.6 TCP_TUNNEL/200 0 CONNECT x - HIER_NONE/- -", "\r", "\x1b[2J", `" "`, `{"a":1}`, "\xff\xfe", "\u2028", "\u00a0", "%0a", `\x0a`, "äöü",
		strings.Repeat("x ", 1000),
	} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, user, host string) {
		r := web()
		r.Identity.Name, r.Target.Name = user, host
		s := server.NewSession(r)
		reason := fmt.Errorf("%w: %s", server.NoName, host)
		for format, words := range map[string]int{"squid": 10, "{time} {user} {host} {target} {detail} end": 6, "json": 0} {
			line := string(mustFormat(t, format)(nil, &stamp{}, new(endOf(s, reason, nil))))
			text, ended := strings.CutSuffix(line, "\n")
			if !ended || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }) || len(line) > 4096 {
				t.Errorf("%s: %q", format, line)
			}
			if format != "json" {
				if got := len(strings.Fields(text)); got != words {
					t.Errorf("%s: %d words in %q, want %d", format, got, line, words)
				}
				continue
			}
			var e accessEntry
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Rule != "web" || e.ID != 7 {
				t.Errorf("%v: %q", err, line)
			}
		}
	})
}

// TestAccessWords: no two values that differ look the same.
func TestAccessWords(t *testing.T) {
	var seen []string
	for _, value := range []string{"", "-", `\x2d`, "a b", `a\x20b`, "a\tb", "%20", "a%20b"} {
		seen = append(seen, accessWord(access.Escape(value)))
	}
	slices.Sort(seen)
	if n := len(slices.Compact(slices.Clone(seen))); n != len(seen) {
		t.Errorf("two values are the same: %q", seen)
	}
}
