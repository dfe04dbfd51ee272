package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// writeSettings writes a settings file, with the user bob in the file users.
func writeSettings(t *testing.T, text string) Source {
	t.Helper()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"users": "bob:" + string(hash) + "\n", "sallyport.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Source{File: filepath.Join(dir, "sallyport.yaml")}
}

const explainSettings = `
listeners:
  - {name: lan, listen: "127.0.0.1:1080", userid_max: 8}
  - {name: old, listen: "127.0.0.1:1081", protocols: [socks4a, http]}
  - {name: closed, listen: "127.0.0.1:1082", during: never}
users: {file: users}
schedules:
  work: {days: mon-fri, hours: 09:00-18:00, zone: UTC}
  never: {days: mon, hours: 00:00-00:01, zone: UTC}
limits: {fair: {rate: 1 Mbit/s, per: user}}
upstreams: {hq: {proxies: "socks5h://127.0.0.1:9"}}
rules:
  - {allow: far, from: 10.0.0.0/8, to: "*.far.example", via: hq}
  - {deny: not there, to: ["*.bad.example", 10.6.6.6]}
  - {allow: guests, from: 10.0.0.0/8, to: [10.1.0.0/16, localhost], commands: [connect, udp]}
  - {allow: by night, from: 10.0.0.0/8, to: 10.2.0.0/16, during: work, limits: fair}
  - {allow: staff, from: 10.0.0.0/8, to: 10.3.0.0/16, users: bob, proof: [password, ident], outgoing: 127.0.0.9}
  - {allow: back, from: 10.0.0.0/8, to: 10.4.0.0/16, commands: bind}
  - {allow: any peer, from: 10.0.0.0/8, to: any, ports: 21, commands: bind, bind: {primary: optional}}
`

// noon is a Wednesday's.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// explainCase is a question, and what comes of it.
type explainCase struct {
	name     string
	question Question
	want     string // reason and rule
	check    func(*Explanation) bool
}

func explainCases(t *testing.T) []explainCase {
	t.Helper()
	at := func(to string) Question {
		target, err := socks.ParseAddr(to)
		if err != nil {
			t.Fatal(err)
		}
		return Question{From: netip.MustParseAddr("10.0.0.7"), Listener: "lan", Target: target, At: noon}
	}
	as := func(q Question, p server.Protocol, user string, proof server.Proof) Question {
		q.Protocol, q.User, q.Proof = p, user, proof
		return q
	}
	by := func(q Question, c socks.Command) Question { q.Command = c; return q }
	on := func(q Question, listener string) Question { q.Listener = listener; return q }
	hour := func(q Question, h int) Question { q.At = noon.Add(time.Duration(h-12) * time.Hour); return q }
	return []explainCase{
		{"allowed", at("10.1.2.3:80"), "guests", nil},
		{"a name is looked up", at("localhost:80"), "guests", func(e *Explanation) bool {
			return slices.Equal(e.Addresses, []string{"127.0.0.1", "::1"}) && slices.Equal(e.Granted, e.Addresses)
		}},
		{"denied by a rule", at("10.6.6.6:80"), "denied not there", nil},
		{"denied by a name, which is not looked up", at("www.bad.example:80"), "denied not there", func(e *Explanation) bool { return len(e.Addresses) == 0 }},
		{"denied by none", at("10.9.9.9:80"), "denied ", func(e *Explanation) bool { return len(e.Steps) == 7 && e.Steps[6].Miss == "commands" }},
		{"until its hours end", at("10.2.0.1:80"), "by night", func(e *Explanation) bool {
			return e.Until.Equal(noon.Add(6*time.Hour)) && slices.Equal(e.Limits, []string{"fair"})
		}},
		{"at another hour", hour(at("10.2.0.1:80"), 19), "schedule by night", func(e *Explanation) bool { return e.Steps[3].Miss == "during" && e.Limits == nil }},
		{"on a listener at another hour", on(at("10.1.2.3:80"), "closed"), "schedule ", nil},
		{"what proof would have helped", at("10.3.0.1:80"), "no-identd staff", func(e *Explanation) bool {
			return slices.Equal(e.Steps[4].Wants, []string{"password", "ident"})
		}},
		{"by a password", as(at("10.3.0.1:80"), "", "bob", ""), "staff", func(e *Explanation) bool { return e.Outgoing == "127.0.0.9" && e.Proof == "password" }},
		{"by identd", as(at("10.3.0.1:80"), "", "bob", server.Ident), "staff", func(e *Explanation) bool { return e.Proof == "ident" }},
		{"by a userid that identd confirms", as(at("10.3.0.1:80"), server.SOCKS4, "bob", server.Ident), "staff", func(e *Explanation) bool { return e.Proof == "ident" }},
		{"by another's", as(at("10.3.0.1:80"), server.SOCKS4, "eve", server.Ident), "denied ", func(e *Explanation) bool { return e.Steps[4].Miss == "users" }},
		{"by a claim alone", as(at("10.3.0.1:80"), "", "bob", server.Claimed), "no-identd staff", func(e *Explanation) bool {
			return e.Protocol == "socks4a" && strings.Contains(e.Detail, "--proof ident")
		}},
		{"an unknown user", as(at("10.3.0.1:80"), "", "eve", ""), "bad-login ", func(e *Explanation) bool { return len(e.Steps) > 0 && len(e.Notes) == 1 }},
		{"a long userid", as(at("10.1.2.3:80"), server.SOCKS4, "nine bytes", server.Claimed), "bad-request ", nil},
		{"a certificate that nobody reads", as(at("10.3.0.1:80"), "", "bob", server.Certificate), "no-identd staff", func(e *Explanation) bool { return e.User == "" && len(e.Notes) == 1 }},
		{"port 0", at("10.1.2.3:0"), "bad-request ", nil},
		{"no host's address", at("0.0.0.0:80"), "denied ", nil},
		{"a protocol that is not spoken", on(at("10.1.2.3:80"), "old"), "garbage ", nil},
		{"a version that is not spoken", on(as(at("10.1.2.3:80"), server.SOCKS4, "", ""), "old"), "unsupported ", nil},
		{"HTTP", on(as(at("10.1.2.3:80"), server.HTTP, "", ""), "old"), "guests", nil},
		{"a datagram", by(at("10.1.2.3:53"), socks.Associate), "guests", nil},
		{"a datagram to elsewhere", by(at("10.9.2.3:53"), socks.Associate), "denied ", nil},
		{"BIND", by(at("10.4.0.1:80"), socks.Bind), "back", func(e *Explanation) bool { return strings.Contains(strings.Join(e.Notes, ""), "no-primary") }},
		{"BIND for any peer", by(at("0.0.0.0:21"), socks.Bind), "denied any peer", nil},
		{"a name that does not exist", at("no-such-name.invalid:80"), "no-name ", func(e *Explanation) bool {
			last := e.Steps[len(e.Steps)-1]
			return last.Rule == "not there" && strings.Contains(last.Text, "looked up")
		}},
		{"by an upstream", at("www.far.example:80"), "far", func(e *Explanation) bool { return e.Via == "hq" && e.ByName && len(e.Addresses) == 0 }},
		{"maybe the proxy itself", at("10.1.2.3:1080"), "guests", func(e *Explanation) bool { return strings.Contains(strings.Join(e.Notes, ""), "loop") }},
	}
}

func TestExplain(t *testing.T) {
	src := writeSettings(t, explainSettings)
	for _, test := range explainCases(t) {
		t.Run(test.name, func(t *testing.T) {
			e, err := Explain(t.Context(), src, test.question)
			if err != nil {
				t.Fatal(err)
			}
			got := e.Reason + " " + e.Rule
			if e.Allowed {
				got = e.Rule
			}
			if got != test.want || e.Allowed != (e.Reason == "") {
				t.Errorf("%q, want %q", got, test.want)
			}
			if test.check != nil && !test.check(e) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// What no client can ask is refused in words.
func TestExplainQuestions(t *testing.T) {
	src := writeSettings(t, explainSettings)
	name, ip := socks.Addr{Name: "host.example", Port: 80}, socks.FromIP(netip.MustParseAddrPort("10.1.2.3:80"))
	for want, q := range map[string]Question{
		`"lan", "old", "closed"`:      {Target: ip},
		`no listener "wan"`:           {Target: ip, Listener: "wan"},
		"say with --user whose":       {Target: ip, Listener: "lan", Proof: server.Ident},
		"in SOCKS 4 only":             {Target: ip, Listener: "lan", User: "bob", Proof: server.Claimed, Protocol: server.HTTP},
		"socks4 has no passwords":     {Target: ip, Listener: "lan", User: "bob", Proof: server.Password, Protocol: server.SOCKS4},
		"socks4a has names":           {Target: name, Listener: "lan", Protocol: server.SOCKS4},
		"socks4a has no UDP":          {Target: ip, Listener: "lan", Protocol: server.SOCKS4a, Command: socks.Associate},
		"http has no BIND: SOCKS has": {Target: ip, Listener: "lan", Protocol: server.HTTP, Command: socks.Bind},
	} {
		q.From = netip.MustParseAddr("10.0.0.7")
		_, err := Explain(t.Context(), src, q)
		if _, ok := errors.AsType[*QuestionError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", q, err, want)
		}
	}
	_, err := Explain(t.Context(), writeSettings(t, "rules: {allow: x, form: y}"), Question{})
	if _, ok := errors.AsType[*SettingsError](err); !ok {
		t.Errorf("bad settings: %v", err)
	}
	e, err := Explain(t.Context(), Source{}, Question{From: netip.MustParseAddr("127.0.0.1"), Target: ip})
	if err != nil || !e.Allowed || time.Since(e.At) > time.Hour {
		t.Errorf("the built-in settings: %+v, %v", e, err)
	}
}
