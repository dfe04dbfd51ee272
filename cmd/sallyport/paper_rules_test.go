//go:build linux

package main_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// paperRuleCase is a request of a client at 127.0.0.1, or from.
type paperRuleCase struct {
	name    string
	from    string
	request []byte
	rule    string // that decides; empty: none
	code    byte
}

func paperRunRules(t *testing.T, s *paperServer, cases []paperRuleCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, c.from)
			client.sends(c.request)
			client.answered(c.code)
			client.leaves()
			r := s.session(t, client)
			if r.Rule != c.rule {
				t.Errorf("the log's rule is %q, want %q", r.Rule, c.rule)
			}
			if c.code == paperRejected && r.Reason != "denied" {
				t.Errorf("the log's reason is %q, want %q", r.Reason, "denied")
			}
		})
	}
}

func TestPaperRulesOrder(t *testing.T) {
	t.Parallel()
	one, two := paperEcho(t, nil, "127.0.0.1:0"), paperEcho(t, nil, "127.0.0.2:0")
	connect := func(to netip.AddrPort) []byte { return paperAsk(paperCONNECT, to, "bob") }
	s := startPaper(t, paperSetup{settings: fmt.Sprintf(`
log: {format: json}
rules:
  - {deny: not there, from: 127.0.0.1, to: any, ports: %d}
  - {allow: this machine, from: 127.0.0.1, to: loopback}
  - {deny: too late, from: 127.0.0.1, to: any}
  - {allow: the others, from: 127.0.1.0/24, to: [127.0.0.9, 127.0.0.2/32]}
`, two.Port())})
	paperRunRules(t, s, []paperRuleCase{
		{"a deny before an allow", "127.0.0.1", connect(two), "not there", paperRejected},
		{"an allow before a deny", "127.0.0.1", connect(one), "this machine", paperGranted},
		{"a list of targets: in it", "127.0.1.77", connect(two), "the others", paperGranted},
		{"a list of targets: not in it", "127.0.1.77", connect(one), "", paperRejected},
		{"the last address of a prefix", "127.0.1.255", connect(two), "the others", paperGranted},
		{"the first address behind a prefix", "127.0.2.0", connect(two), "", paperRejected},
		{"no rule matches", "127.0.3.1", connect(one), "", paperRejected},
	})
}

func TestPaperRulesPorts(t *testing.T) {
	t.Parallel()
	var ports [5]netip.AddrPort // five in a row: below, first, within, last, above
	for i := range ports {
		pid := os.Getpid() // so that two runs do not meet
		ports[i] = paperEcho(t, nil, fmt.Sprintf("127.98.%d.%d:%d", pid>>8&255, pid&255, 29000+i))
	}
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules: {allow: some ports, from: loopback, to: any, ports: [80, 29001-29003]}
`})
	for i, c := range []struct {
		name, rule string
		code       byte
	}{
		{"below the range", "", paperRejected},
		{"the first of the range", "some ports", paperGranted},
		{"within the range", "some ports", paperGranted},
		{"the last of the range", "some ports", paperGranted},
		{"above the range", "", paperRejected},
	} {
		paperRunRules(t, s, []paperRuleCase{{c.name, "", paperAsk(paperCONNECT, ports[i], ""), c.rule, c.code}})
	}
}

func TestPaperRulesUsers(t *testing.T) {
	t.Parallel()
	echo := paperEcho(t, nil, "127.0.0.1:0")
	connect := func(user string) []byte { return paperAsk(paperCONNECT, echo, user) }
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
groups: {staff: [carol, dave]}
rules:
  - {deny: not him, users: mallory, proof: claimed, to: any}
  - {allow: some users, users: [bob, "@staff", "ÿ", "1234", "a b"], proof: claimed, from: loopback, to: any}
`})
	paperRunRules(t, s, []paperRuleCase{
		{"a user", "", connect("bob"), "some users", paperGranted},
		{"a user, by 4a", "", paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), "bob"), "some users", paperGranted},
		{"another user", "", connect("alice"), "", paperRejected},
		{"no userid", "", connect(""), "", paperRejected},
		{"another case", "", connect("Bob"), "", paperRejected},
		{"the beginning of a name", "", connect("bo"), "", paperRejected},
		{"more than a name", "", connect("bobby"), "", paperRejected},
		{"a space behind a name", "", connect("bob "), "", paperRejected},
		{"a member of a group", "", connect("dave"), "some users", paperGranted},
		{"a group's name is no user", "", connect("staff"), "", paperRejected},
		{"a group's name with its sign is no user", "", connect("@staff"), "", paperRejected},
		{"bytes, as UTF-8 in the settings", "", connect("\xc3\xbf"), "some users", paperGranted},
		{"the same letter in another encoding", "", connect("\xff"), "", paperRejected},
		{"digits", "", connect("1234"), "some users", paperGranted},
		{"a space within", "", connect("a b"), "some users", paperGranted},
		{"the word any is no user", "", connect("any"), "", paperRejected},
		{"a user who is denied", "", connect("mallory"), "not him", paperRejected},
	})
}

func TestPaperRulesCommandsAndProtocols(t *testing.T) {
	t.Parallel()
	echo := paperEcho(t, nil, "127.0.0.1:0")
	by4, by4a := paperAsk(paperCONNECT, echo, ""), paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), "")
	bind4, bind4a := paperAsk(paperBIND, echo, ""), paperAskName(paperBIND, "127.0.0.1", echo.Port(), "")
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
rules:
  - {allow: connect, from: 127.0.0.1, commands: connect, to: any}
  - {allow: bind, from: 127.0.0.2, commands: bind, to: any, bind: {primary: optional}}
  - {allow: both, from: 127.0.0.3, commands: [connect, bind], to: any, bind: {primary: optional}}
  - {allow: four, from: 127.0.0.4, protocols: socks4, to: any}
  - {allow: four a, from: 127.0.0.5, protocols: [socks4a], to: any}
`})
	paperRunRules(t, s, []paperRuleCase{
		{"CONNECT where only CONNECT is allowed", "127.0.0.1", by4, "connect", paperGranted},
		{"BIND where only CONNECT is allowed", "127.0.0.1", bind4, "", paperRejected},
		{"CONNECT where only BIND is allowed", "127.0.0.2", by4, "", paperRejected},
		{"BIND where only BIND is allowed", "127.0.0.2", bind4, "bind", paperGranted},
		{"4a BIND where only BIND is allowed", "127.0.0.2", bind4a, "bind", paperGranted},
		{"CONNECT where both are allowed", "127.0.0.3", by4, "both", paperGranted},
		{"BIND where both are allowed", "127.0.0.3", bind4, "both", paperGranted},
		{"SOCKS 4 where only it is allowed", "127.0.0.4", by4, "four", paperGranted},
		{"4a where only SOCKS 4 is allowed", "127.0.0.4", by4a, "", paperRejected},
		{"4a where only it is allowed", "127.0.0.5", by4a, "four a", paperGranted},
		{"SOCKS 4 where only 4a is allowed", "127.0.0.5", by4, "", paperRejected},
	})
}

func TestPaperRulesListeners(t *testing.T) {
	t.Parallel()
	echo := paperEcho(t, nil, "127.0.0.1:0")
	s := startPaper(t, paperSetup{listen: "-", settings: `
log: {format: json}
listeners:
  - {name: inner, listen: "127.0.0.1:0"}
  - {name: outer, listen: "127.0.0.2:0", protocols: socks4}
rules:
  - {allow: from inside, listeners: inner, from: loopback, to: any}
  - {allow: the rest, listeners: [outer], from: loopback, to: any, ports: 9}
`})
	byName := func(name string) netip.AddrPort {
		ip := map[string]string{"inner": "127.0.0.1", "outer": "127.0.0.2"}[name]
		i := slices.IndexFunc(s.addrs, func(a netip.AddrPort) bool { return a.Addr() == netip.MustParseAddr(ip) })
		if i < 0 {
			t.Fatalf("%s does not listen: %v", name, s.addrs)
		}
		return s.addrs[i]
	}
	for _, c := range []struct {
		name, listener string
		request        []byte
		code           byte
	}{
		{"a rule of the listener", "inner", paperAsk(paperCONNECT, echo, ""), paperGranted},
		{"a rule of another listener", "outer", paperAsk(paperCONNECT, echo, ""), paperRejected},
		{"4a on a listener that speaks it", "inner", paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), ""), paperGranted},
		{"4a on a listener that does not", "outer", paperAskName(paperCONNECT, "127.0.0.1", 9, ""), paperRejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := s.net.dial(t, "", byName(c.listener))
			client.sends(c.request)
			client.answered(c.code)
			client.leaves()
			if r := s.session(t, client); r.Listener != c.listener {
				t.Errorf("the log's listener is %q, want %q", r.Listener, c.listener)
			}
		})
	}
}

func TestPaperRulesNames(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, dns: "127.0.0.53", hosts: `
127.0.0.1 localhost
93.184.216.34 good.test www.example.test example.test notexample.test bad.test
93.184.216.35 other.test
`, settings: `
log: {format: json}
rules:
  - {deny: bad name, to: bad.test}
  - {deny: bad net, to: 93.184.216.35}
  - {allow: one name, from: 127.0.0.1, to: good.test}
  - {allow: suffix, from: 127.0.0.2, to: "*.example.test"}
  - {allow: the internet, from: 127.0.0.3}
`})
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) { return nil, false })
	paperEcho(t, w.outside, paperPublic+":80")
	byName := func(host string) []byte { return paperAskName(paperCONNECT, host, 80, "") }
	paperRunRules(t, s, []paperRuleCase{
		{"a name", "127.0.0.1", byName("good.test"), "one name", paperGranted},
		{"a name in capitals", "127.0.0.1", byName("GOOD.Test"), "one name", paperGranted},
		{"a name with a trailing dot", "127.0.0.1", byName("good.test."), "one name", paperGranted},
		{"another name of the same address", "127.0.0.1", byName("www.example.test"), "", paperRejected},
		{"the address of a name", "127.0.0.1", paperAsk(paperCONNECT, paperAt(paperPublic, 80), ""), "", paperRejected},
		{"a suffix", "127.0.0.2", byName("www.example.test"), "suffix", paperGranted},
		{"the end of a label is no suffix", "127.0.0.2", byName("notexample.test"), "", paperRejected},
		{"a name that is denied", "127.0.0.3", byName("bad.test"), "bad name", paperRejected},
		{"a name that is denied, in capitals and with a dot", "127.0.0.3", byName("BAD.TEST."), "bad name", paperRejected},
		{"a name whose address is denied", "127.0.0.3", byName("other.test"), "bad net", paperRejected},
		{"the address that is denied", "127.0.0.3", paperAsk(paperCONNECT, paperAt("93.184.216.35", 80), ""), "bad net", paperRejected},
		{"a public address", "127.0.0.3", paperAsk(paperCONNECT, paperAt(paperPublic, 80), ""), "the internet", paperGranted},
		{"a name with a public address", "127.0.0.3", byName("good.test"), "the internet", paperGranted},
	})
}

// paperRule is a rule drawn at random.
type paperRule struct{ verb, from, user, to string }

func (r paperRule) String() string {
	users := ""
	if r.user != "" {
		users = ", users: " + r.user + ", proof: claimed"
	}
	return fmt.Sprintf("from: %s, to: %s%s", r.from, r.to, users)
}

// paperDecide is the plainest reading of the rules: the first that matches
// decides, and where none matches the request is refused.
func paperDecide(rules []paperRule, from, user, to string) byte {
	for _, r := range rules {
		matches := (r.from == from || r.from == "127.0.0.0/8") &&
			(r.user == user || r.user == "") &&
			(r.to == to || r.to == "any")
		if matches && r.verb == "allow" {
			return paperGranted
		} else if matches {
			return paperRejected
		}
	}
	return paperRejected
}

// covers tells whether whatever the other rule matches, this one does.
func (r paperRule) covers(other paperRule) bool {
	return (r.from == other.from || r.from == "127.0.0.0/8") &&
		(r.user == other.user || r.user == "") &&
		(r.to == other.to || r.to == "any")
}

func TestPaperRulesAtRandom(t *testing.T) {
	t.Parallel()
	targets := []netip.AddrPort{paperEcho(t, nil, "127.0.0.1:0"), paperEcho(t, nil, "127.0.0.2:0")}
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 4))
			pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
			var rules []paperRule
			settings := "log: {format: json}\nrules:\n"
			for range 20 {
				r := paperRule{pick("allow", "deny"), pick("127.0.0.5", "127.0.0.6", "127.0.0.0/8"), pick("a", "b", ""), pick("127.0.0.1", "127.0.0.2", "any")}
				if len(rules) == 7 || slices.ContainsFunc(rules, func(earlier paperRule) bool { return earlier.covers(r) }) {
					continue // a rule that can never match would be refused
				}
				settings += fmt.Sprintf("  - {%s: rule %d, %s}\n", r.verb, len(rules), r)
				rules = append(rules, r)
			}
			s := startPaper(t, paperSetup{settings: settings})
			for n := range 24 { // every combination
				from, user, to := []string{"127.0.0.5", "127.0.0.6", "127.0.0.7"}[n%3], []string{"a", "b", "c", ""}[n/3%4], targets[n/12]
				client := s.dial(t, from)
				client.sends(paperAsk(paperCONNECT, to, user))
				if got, _ := client.replied(); got != paperDecide(rules, from, user, to.Addr().String()) {
					t.Errorf("%q from %s to %s: reply %d, by the rules\n%s", user, from, to, got, settings)
				}
			}
		})
	}
}

// To be an open proxy has to be meant.
func TestPaperOpenProxy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, listen, rules string
	}{
		{"every address", "0.0.0.0:0", "{allow: all}"},
		{"every address, in short", ":0", "{allow: all}"},
		{"every address of IPv6", "[::]:0", "{allow: all}"},
		{"an address of a network", "192.168.1.1:1080", "{allow: all}"},
		{"any source", "0.0.0.0:0", "{allow: all, from: any}"},
		{"the whole Internet as a prefix", "0.0.0.0:0", "{allow: all, from: 0.0.0.0/0}"},
		{"the whole Internet in two prefixes", "0.0.0.0:0", "{allow: all, from: [0.0.0.0/1, 128.0.0.0/1]}"},
		{"users who need no proof", "0.0.0.0:0", "{allow: all, users: bob, proof: claimed}"},
		{"behind a rule that limits", "0.0.0.0:0", "[{allow: few, from: 10.0.0.0/8}, {allow: all}]"},
	} {
		t.Run("refused: "+c.name, func(t *testing.T) {
			t.Parallel()
			s := launchPaper(t, paperSetup{listen: c.listen, settings: "rules: " + c.rules + "\n"})
			code, said := s.exits(t)
			if code != 78 || !strings.Contains(said, "open_to_the_world") {
				t.Errorf("exit code %d, want 78, and it should name open_to_the_world: %s", code, said)
			}
			if strings.Contains(said, "listening on") {
				t.Errorf("it listened before it refused: %s", said)
			}
		})
	}
	for _, c := range []struct {
		name, listen, settings string
	}{
		{"on loopback", "127.0.0.1:0", "rules: {allow: all}"},
		{"on IPv6 loopback", "[::1]:0", "rules: {allow: all}"},
		{"sources are limited", "0.0.0.0:0", "rules: {allow: all, from: 10.0.0.0/8}"},
		{"users have to prove who they are", "0.0.0.0:0", "rules: {allow: all, users: bob, proof: ident}"},
		{"nothing is allowed", "0.0.0.0:0", "rules: []"},
		{"it is meant", "0.0.0.0:0", "rules: {allow: all}\nopen_to_the_world: true"},
		{"it is meant, for this listener", "0.0.0.0:0", "rules: {allow: all}\nlisteners: {listen: \"127.0.0.1:0\", open_to_the_world: true}"},
	} {
		t.Run("accepted: "+c.name, func(t *testing.T) {
			t.Parallel()
			startPaper(t, paperSetup{listen: c.listen, settings: c.settings + "\n"})
		})
	}
}
