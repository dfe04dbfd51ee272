//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPaperLogRecord(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0"}
rules:
  - {allow: by claim, from: loopback, users: [bob], proof: claimed, to: any, bind: {primary: optional}}
  - {deny: port nine, from: loopback, to: any, ports: 9}
  - {allow: anybody, from: loopback, to: any}
`})
	paperRun(t, s, []paperCase{
		{"CONNECT", paperLogConnect},
		{"4a: the name as the target, and the address that was dialled", paperLogName},
		{"BIND", paperLogBind},
		{"denied by a rule", func(t *testing.T, s *paperServer) {
			client := s.ask(t, paperAsk(paperCONNECT, paperAt("127.0.0.1", 9), "eve"))
			client.refused(paperRejected)
			got := s.session(t, client)
			if got.Rule != "port nine" || got.Reason != "denied" || got.User != "eve" || got.Target != "127.0.0.1:9" {
				t.Errorf("the log says %+v", got)
			}
		}},
	})
}

func paperLogConnect(t *testing.T, s *paperServer) {
	x := paperListen(t, nil, "127.0.0.1:0")
	client, far := s.join(t, "", x, "bob")
	client.says("12345")
	far.hears("12345")
	far.says("123")
	client.hears("123")
	client.leaves()
	far.ends()
	far.leaves()
	paperSame(t, s.session(t, client), paperSession{
		Client: client.local, User: "bob", Proof: "claimed", Protocol: "socks4", Command: "connect",
		Target: x.addr.String(), Address: x.addr.String(), Rule: "by claim", Reason: "closed", Up: 5, Down: 3,
	})
}

func paperLogName(t *testing.T, s *paperServer) {
	x := paperListen(t, nil, "127.0.0.1:0")
	client := s.ask(t, paperAskName(paperCONNECT, "LocalHost.", x.addr.Port(), "bob"))
	client.granted()
	client.leaves()
	far := x.accept(t)
	far.ends()
	far.leaves()
	got := s.session(t, client)
	if want := fmt.Sprintf("localhost:%d", x.addr.Port()); strings.ToLower(strings.Replace(got.Target, ".:", ":", 1)) != want {
		t.Errorf("the log's target is %q, want %q", got.Target, want)
	}
	got.Target = ""
	paperSame(t, got, paperSession{
		Client: client.local, User: "bob", Proof: "claimed", Protocol: "socks4a", Command: "connect",
		Address: x.addr.String(), Rule: "by claim", Reason: "closed",
	})
}

func paperLogBind(t *testing.T, s *paperServer) {
	client, at := s.bind(t, "", "127.0.0.5", "bob")
	peer := s.net.dial(t, "127.0.0.5", at)
	client.granted()
	peer.says("1234567")
	peer.leaves()
	client.hears("1234567")
	client.ends()
	client.leaves()
	paperSame(t, s.session(t, client), paperSession{
		Client: client.local, User: "bob", Proof: "claimed", Protocol: "socks4", Command: "bind", Primary: "optional",
		Target: "127.0.0.5:21", Address: peer.local, Rule: "by claim", Reason: "closed", Down: 7,
	})
}

// paperSame compares a record, but for what is the same in all of them.
func paperSame(t *testing.T, got, want paperSession) {
	t.Helper()
	want.Msg, want.Listener = "session", "lan"
	if got != want {
		t.Errorf("the log says\n%+v, want\n%+v", got, want)
	}
}

// Every session makes one line and no other, whatever becomes of it.
func TestPaperLogOneLine(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	echo, deaf := paperEcho(t, nil, "127.0.0.1:0"), paperDeaf(t, nil)
	var clients []*paperConn
	for range 5 {
		clients = append(clients,
			s.ask(t, paperAsk(paperCONNECT, echo, "bob")),
			s.ask(t, paperAsk(paperCONNECT, deaf, "bob")),
			s.ask(t, paperAsk(paperBIND, paperAt("127.0.0.1", 21), "bob")),
			s.ask(t, paperAsk(9, echo, "bob")),
			s.ask(t, paperAsk(paperCONNECT, echo, paperLong(300))),
			s.ask(t, []byte("garbage")),
			s.ask(t, []byte{4, 1, 0}),
			s.dial(t, ""),
		)
	}
	for _, c := range clients {
		c.leaves()
	}
	for _, c := range clients {
		s.session(t, c)
	}
	lines := map[string]int{}
	for _, line := range s.stderr.all() {
		if r, ok := paperRecord(line); ok {
			lines[r.Client]++
		}
	}
	for _, c := range clients {
		if lines[c.local] != 1 {
			t.Errorf("the session of %s has %d lines", c.local, lines[c.local])
		}
	}
	if len(lines) != len(clients) {
		t.Errorf("%d clients, and lines for %d", len(clients), len(lines))
	}
}

// paperInjections are texts that a careless log would take for its own.
func paperInjections() map[string]string {
	return map[string]string{
		"a line of its own":               "bob\nmsg=session client=6.6.6.6:6 reason=closed",
		"a JSON line of its own":          "bob\n{\"msg\":\"session\",\"client\":\"6.6.6.6:6\"}\n",
		"carriage return":                 "bob\rmsg=session client=6.6.6.6:6",
		"quotes and fields":               `bob" reason="closed" client="6.6.6.6:6`,
		"JSON fields":                     `bob","client":"6.6.6.6:6`,
		"fields without quotes":           "bob client=6.6.6.6:6 reason=x",
		"a backslash at the end":          `bob\`,
		"colours":                         "\x1b[31mbob\x1b[0m",
		"a terminal's title":              "\x1b]0;owned\x07",
		"backspaces":                      "eve\b\b\bbob",
		"DEL and tab":                     "bob\x7f\t",
		"control bytes of Latin 1":        "bob\u0085\u009b31m",
		"line separators of Unicode":      "bob\u2028\u2029",
		"right to left":                   "bob\u202egnp.exe",
		"bytes that are no UTF-8":         "\xff\xfe\xc3\x28",
		"a line of its own, in UTF-7":     "bob+AAo-msg=session",
		"every control byte but NUL":      "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f",
		"an equals sign and nothing else": "=",
		"a space and nothing else":        " ",
	}
}

func TestPaperLogInjection(t *testing.T) {
	t.Parallel()
	rules := "rules: {allow: everything, from: loopback, to: any}\n"
	text := startPaper(t, paperSetup{settings: rules})
	jsons := startPaper(t, paperSetup{settings: "log: {format: json}\n" + rules})
	deaf := paperDeaf(t, nil)
	for name, evil := range paperInjections() {
		for what, request := range map[string][]byte{
			"userid":                 paperAsk(paperCONNECT, deaf, evil),
			"host":                   paperAskName(paperCONNECT, evil, 80, "bob"),
			"userid before the host": paperAskName(paperCONNECT, "127.0.0.1", deaf.Port(), evil),
		} {
			t.Run(what+": "+name, func(t *testing.T) {
				t.Parallel()
				for _, s := range []*paperServer{text, jsons} {
					client := s.ask(t, request)
					client.refused(paperRejected)
					client.leaves()
					s.stderr.until(t, s.done, "its line", func(line string) bool { return strings.Contains(line, client.local) })
				}
			})
		}
	}
	t.Cleanup(func() {
		paperTextLines(t, text.stderr.all())
		paperJSONLines(t, jsons.stderr.all())
	})
}

// paperTextLines checks that every line is made of key=value, each key once,
// and holds nothing that a terminal or an editor would act on.
func paperTextLines(t *testing.T, lines []string) {
	t.Helper()
	if len(lines) == 0 {
		t.Error("the log is empty")
	}
	for _, line := range lines {
		if at := strings.IndexFunc(line, paperActs); at >= 0 {
			t.Errorf("%q stands in the line %q", line[at:min(len(line), at+4)], line)
		}
		fields, err := paperFields(line)
		if err != nil {
			t.Errorf("%v in the line %q", err, line)
		}
		if !strings.HasPrefix(fields["client"], "127.0.0.1:") {
			t.Errorf("the client is %q in the line %q", fields["client"], line)
		}
	}
}

// paperActs reports whether something that shows text might act on the rune.
func paperActs(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == '\u202e' || r == utf8.RuneError
}

// paperFields takes a line apart that is made of key=value and key="value".
func paperFields(line string) (map[string]string, error) {
	fields := map[string]string{}
	for rest := line; rest != ""; {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || strings.ContainsAny(key, ` "`) {
			return nil, fmt.Errorf("no key=value: %q", rest)
		}
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("%s twice", key)
		}
		if !strings.HasPrefix(after, `"`) {
			fields[key], rest, _ = strings.Cut(after, " ")
			continue
		}
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", err, after)
		}
		fields[key], _ = strconv.Unquote(quoted) // QuotedPrefix has seen to it
		rest = strings.TrimPrefix(after[len(quoted):], " ")
	}
	return fields, nil
}

func paperJSONLines(t *testing.T, lines []string) {
	t.Helper()
	if len(lines) == 0 {
		t.Error("the log is empty")
	}
	for _, line := range lines {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		if client, _ := fields["client"].(string); !strings.HasPrefix(client, "127.0.0.1:") {
			t.Errorf("the client is %q in the line %q", client, line)
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("control bytes or broken UTF-8 in the line %q", line)
		}
	}
}

func TestPaperLogCut(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", userid_max: 1024}
rules: {allow: everything, from: loopback, to: any}
`})
	deaf := paperDeaf(t, nil)
	for name, user := range map[string]string{
		"letters":       paperLong(1024),
		"control bytes": strings.Repeat("\x01", 1024),
		"UTF-8":         "u" + strings.Repeat("ÿ", 511),
	} {
		t.Run("a userid of 1,024 bytes: "+name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, paperAsk(paperCONNECT, deaf, user))
			client.refused(paperRejected)
			if got := s.session(t, client).User; len(got) > 4*255+10 || len(got) < 100 {
				t.Errorf("the log's user has %d bytes: %q", len(got), got)
			}
		})
	}
}

func TestPaperLogIdentAnswer(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	n := newPaperNet(t)
	s := startPaper(t, paperSetup{net: n, settings: "rules: {allow: by ident, from: loopback, users: any, proof: ident, to: any}\n"})
	for i, name := range []string{
		"eve\r msg=session client=6.6.6.6:6 reason=closed",
		"\x1b[31mbob\x1b[0m",
		`bob" reason="closed" client="6.6.6.6:6`,
		strings.Repeat("\x01", 500),
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			t.Parallel()
			from := fmt.Sprintf("127.113.9.%d", i+1)
			paperIdent(t, n, from, paperNames(name))
			client := s.dial(t, from)
			client.sends(paperAsk(paperCONNECT, paperAt("127.0.0.1", 9), "bob"))
			code, _ := client.replied()
			if code != paperOtherUser && code != paperNoIdentd {
				t.Errorf("reply %d, want 92 or 93", code)
			}
			s.stderr.until(t, s.done, "its line", func(line string) bool { return strings.Contains(line, client.local) })
		})
	}
	t.Cleanup(func() {
		for _, line := range s.stderr.all() {
			if strings.Contains(line, "client=6.6.6.6") && !strings.Contains(line, `\"`) || strings.ContainsRune(line, '\x1b') || !strings.Contains(line, "client=127.113.9.") {
				t.Errorf("the line is not ours: %q", line)
			}
		}
	})
}

func TestPaperGreeting(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	first := s.stdout.all()[0]
	if want := regexp.MustCompile(`^sallyport \S+: listening on 127\.0\.0\.1:\d+ \(socks4, socks4a, socks5, http\)$`); !want.MatchString(first) {
		t.Errorf("the first line is %q", first)
	}
	paperEventually(t, "the greeting says how to try it", func() bool {
		return slices.ContainsFunc(s.stdout.all(), func(line string) bool { return strings.Contains(line, s.addr().String()) && line != first })
	})
}
