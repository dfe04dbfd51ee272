//go:build linux

package main_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

var explainSeed = flag.Uint64("explain.seed", 0, "the seed of the generated settings and requests; 0: a new one")

// explainWorld is what generated rules and requests are drawn from. At
// 127.0.0.6 identd says of everybody that it is a; at the other addresses
// there is none.
type explainWorld struct {
	*rand.Rand
	ports [2]uint16
	users string // the users file: a and fred
}

func pickOne[T any](w *explainWorld, of ...T) T { return of[w.IntN(len(of))] }

// some returns a setting of a rule, or nothing.
func (w *explainWorld) some(key string, values ...string) string {
	if w.IntN(3) > 0 {
		return ""
	}
	return ", " + key + ": " + pickOne(w, values...)
}

func (w *explainWorld) rule(i int) string {
	verb := pickOne(w, "allow", "allow", "deny")
	r := fmt.Sprintf("%s: rule %d, from: %s, to: %s", verb, i,
		pickOne(w, "127.0.0.5", "127.0.0.6", "loopback"), pickOne(w, "any", "loopback", "127.0.0.1", "127.0.0.2", "localhost", `"@there"`))
	r += w.some("users", "a", "b", "fred", "any", `"@both"`)
	if strings.Contains(r, "users: ") || w.IntN(2) == 0 {
		r += w.some("proof", "claimed", "ident", "ident", "password", "[password, ident]", "[claimed, password]")
	}
	r += w.some("listeners", "lan", "wan") + w.some("protocols", "socks5", "http", "[socks4, socks4a]", "[socks5, socks4]")
	r += w.some("commands", "connect", "bind", "[connect, bind]") + w.some("ports", fmt.Sprint(w.ports[0]), "1-1023") + w.some("during", "now", "never")
	if verb == "allow" {
		r += ", bind: {primary: optional" + pickOne(w, "", ", any_peer: true") + "}"
	}
	return "  - {" + r + "}\n"
}

// settings draws settings that `check` takes, and returns their file.
func (w *explainWorld) settings(t *testing.T) (file, text string) {
	t.Helper()
	today := time.Now().UTC()
	day := func(later int) string { return strings.ToLower(today.AddDate(0, 0, later).Format("Mon")) }
	for range 1000 {
		text = fmt.Sprintf(`
log: {format: json}
listeners:
  - {name: lan, listen: "127.0.0.1:0", userid_max: 8}
  - {name: wan, listen: "127.0.0.2:0", protocols: %s}
users: {file: %q}
groups: {both: [a, b]}
sets: {there: {entries: [127.0.0.2, "*.localhost"]}}
schedules:
  now: {days: [%s, %s, %s], zone: UTC}
  never: {days: %s, zone: UTC}
rules:
`, pickOne(w, "[socks4a, socks5]", "[socks4, http]", "[socks5, http]"), w.users, day(-1), day(0), day(1), day(3))
		for i := range 2 + w.IntN(7) {
			text += w.rule(i)
		}
		file = writeFile(t, "sallyport.yaml", []byte(text))
		if daemon.Check(file) == nil {
			return file, text
		}
	}
	t.Fatal("no settings are any good")
	return "", ""
}

// question draws a request, and who makes it.
func (w *explainWorld) question() daemon.Question {
	q := daemon.Question{
		From:     netip.MustParseAddr(pickOne(w, "127.0.0.5", "127.0.0.6", "127.0.0.7")),
		Listener: pickOne(w, "lan", "wan"),
		Protocol: pickOne(w, server.SOCKS4, server.SOCKS4a, server.SOCKS5, server.SOCKS5, server.HTTP),
		Command:  pickOne(w, socks.Connect, socks.Connect, socks.Bind),
		Target:   socks.Addr{IP: netip.MustParseAddr(pickOne(w, "127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2", "0.0.0.0")), Port: pickOne(w, w.ports[0], w.ports[1], 9, w.ports[0], w.ports[1], 0)},
	}
	if q.Protocol == server.HTTP {
		q.Command = socks.Connect
	}
	if q.Protocol == server.HTTP && q.Target.Port == 0 {
		q.Target.Port = 9 // which it has another answer to
	}
	if q.Protocol != server.SOCKS4 && (q.Protocol == server.SOCKS4a || w.IntN(3) == 0) {
		q.Target.IP, q.Target.Name = netip.Addr{}, pickOne(w, "localhost", "some.localhost")
	}
	switch {
	case q.From.String() == "127.0.0.6":
		q.User, q.Proof = "a", server.Ident
	case q.Protocol == server.SOCKS4 || q.Protocol == server.SOCKS4a:
		q.User = pickOne(w, "a", "b", "fred", "", "much too long")
	default:
		q.User = pickOne(w, "a", "fred", "", "", "", "a", "fred", "", "b")
	}
	return q
}

// explainAsk makes the request of the server, to which c is connected, and waits
// for its answer.
func explainAsk(c *paperConn, q daemon.Question) {
	at := netip.AddrPortFrom(q.Target.IP, q.Target.Port)
	user := q.User
	if q.Proof == server.Ident && q.Protocol != server.SOCKS4 && q.Protocol != server.SOCKS4a {
		user = "" // identd says it
	}
	switch q.Protocol {
	case server.SOCKS4:
		c.sends(paperAsk(byte(q.Command), at, user))
		_, _ = io.ReadFull(c, make([]byte, 8)) // what the answer was, the log tells
	case server.SOCKS4a:
		c.sends(paperAskName(byte(q.Command), q.Target.Host(), q.Target.Port, user))
		_, _ = io.ReadFull(c, make([]byte, 8))
	case server.HTTP:
		var login []string
		if user != "" {
			login = append(login, paperBasic(user, "secret"))
		}
		c.sends(paperHTTPTunnel(q.Target.Host(), q.Target.Port, login...))
		_, _ = io.ReadFull(c, make([]byte, len("HTTP/1.1 200")))
	case server.SOCKS5:
		explainAsk5(c, q, at, user)
	}
}

func explainAsk5(c *paperConn, q daemon.Question, at netip.AddrPort, user string) {
	methods := []byte{paper5NoAuth}
	if user != "" {
		methods = append(methods, paper5Password)
	}
	c.sends(paper5Greet(methods...))
	said := make([]byte, 2)
	if _, err := io.ReadFull(c, said); err != nil || said[1] == 0xff {
		return
	}
	if said[1] == paper5Password {
		c.sends(paper5Login(user, "secret"))
		if _, err := io.ReadFull(c, said); err != nil || said[1] != 0 {
			return
		}
	}
	request := paper5AskName(byte(q.Command), q.Target.Name, q.Target.Port)
	if q.Target.Name == "" {
		request = paper5Ask(byte(q.Command), at)
	}
	c.sends(request)
	_, _ = io.ReadFull(c, make([]byte, 4))
}

// explainRefusals are the words for what the rules, and the handshake before
// them, refuse. All other ends have come after a grant.
var explainRefusals = []string{"denied", "schedule", "bad-login", "no-identd", "other-user", "unsupported", "garbage", "bad-request", "no-name"}

// TestExplainAgreesWithServer puts generated requests to servers with generated
// settings, by SOCKS 4, 4a, 5 and HTTP, and compares what their logs say with what
// explain does. Then it replays each log under the settings that made it.
func TestExplainAgreesWithServer(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	seed := cmp.Or(*explainSeed, rand.Uint64())
	seen, replayed := map[string]int{}, 0
	n := newPaperNet(t)
	paperIdent(t, n, "127.0.0.6", paperNames("a"))
	w := &explainWorld{Rand: rand.New(rand.NewPCG(seed, 0)), users: paper5Users(t, "a:secret", "fred:secret")}
	for i := range w.ports {
		w.ports[i] = paperEcho(t, n, "127.0.0.1:0").Port()
		paperEcho(t, n, fmt.Sprintf("127.0.0.2:%d", w.ports[i]))
	}
	for range 14 {
		file, text := w.settings(t)
		s := startPaper(t, paperSetup{net: n, listen: "-", settings: text})
		for range 40 {
			seen[w.compare(t, s, file, fmt.Sprintf("%s\nagain: -explain.seed %d", text, seed))]++
		}
		log := strings.NewReader(strings.Join(s.stderr.all(), "\n"))
		r, err := daemon.ReplayLog(t.Context(), daemon.Source{File: file}, log, true)
		if err != nil || r.Differs() || r.Broken > 0 {
			t.Fatalf("replayed: %+v, %v\n%s\n%s\nagain: -explain.seed %d", r, err, text, strings.Join(s.stderr.all(), "\n"), seed)
		}
		replayed += r.Sessions
	}
	if replayed < 100 {
		t.Errorf("only %d sessions were judged again (seed %d)", replayed, seed)
	}
	// The rarer reasons do not come up with every seed; they are in TestOneReason.
	for _, reason := range []string{"", "denied", "bad-login"} {
		if seen[reason] == 0 {
			t.Errorf("%q never came up: %v (seed %d)", reason, seen, seed)
		}
	}
}

// compare makes a request of the server and has it explained. It returns the reason
// for which both refuse it.
func (w *explainWorld) compare(t *testing.T, s *paperServer, file, again string) string {
	t.Helper()
	q := w.question()
	e, err := daemon.Explain(t.Context(), daemon.Source{File: file}, q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	before := len(s.stderr.all())
	c := s.net.dial(t, q.From.String(), s.addrOf(t, q.Listener))
	explainAsk(c, q)
	c.leaves()
	got := s.sessionBehind(t, c, before)
	if !slices.Contains(explainRefusals, got.Reason) {
		got.Reason = ""
	}
	if got.Rule != e.Rule || got.Reason != e.Reason {
		t.Fatalf("%+v\nthe server: %+v\nexplained: %+v\n%s", q, got, e, again)
	}
	return got.Reason
}

// sessionBehind is session where another client may have had the same port: its line
// is among the first ones of the log.
func (s *paperServer) sessionBehind(t *testing.T, c *paperConn, lines int) paperSession {
	t.Helper()
	seen := 0
	found := s.stderr.until(t, s.done, "the session of "+c.local, func(line string) bool {
		seen++
		r, ok := paperRecord(line)
		return ok && seen > lines && r.Client == c.local
	})
	r, _ := paperRecord(found)
	return r
}

// addrOf returns where lan, at 127.0.0.1, or wan, at 127.0.0.2, listens.
func (s *paperServer) addrOf(t *testing.T, listener string) netip.AddrPort {
	t.Helper()
	ip := map[string]string{"lan": "127.0.0.1", "wan": "127.0.0.2"}[listener]
	i := slices.IndexFunc(s.addrs, func(a netip.AddrPort) bool { return a.Addr().String() == ip })
	if i < 0 {
		t.Fatalf("%s does not listen: %v", listener, s.addrs)
	}
	return s.addrs[i]
}

// oneReasonSettings has a rule for each refusal.
const oneReasonSettings = `
log: {format: json}
listeners:
  - {name: lan, listen: "127.0.0.1:0"}
  - {name: wan, listen: "127.0.0.2:0"}
users: {file: %q}
schedules: {later: {days: %s, zone: UTC}}
rules:
  - {deny: not there, from: loopback, to: 127.0.0.3}
  - {allow: later, from: loopback, to: 127.0.0.4, during: later}
  - {allow: by identd, from: loopback, to: 127.0.0.5, users: any, proof: ident}
  - {allow: staff, listeners: wan, from: loopback, to: any, users: any, proof: password}
  - {allow: us, listeners: lan, from: loopback, to: [127.0.0.1, 224.0.0.1]}
`

// oneReason is a request by HTTP, and the word for which it is refused.
type oneReason struct {
	name, listener, user string
	to                   string
	reason, rule         string
	explained            string // what explain says: nothing where only the server can know
}

// TestOneReason: log, page, client and explain have one word for a refusal.
func TestOneReason(t *testing.T) {
	t.Parallel()
	later := strings.ToLower(time.Now().UTC().AddDate(0, 0, 3).Format("Mon"))
	text := fmt.Sprintf(oneReasonSettings, paper5Users(t, "fred:secret"), later)
	src := daemon.Source{File: writeFile(t, "sallyport.yaml", []byte(text))}
	s := startPaper(t, paperSetup{listen: "-", settings: text})
	for _, c := range []oneReason{
		{"by a rule", "lan", "", "127.0.0.3:80", "denied", "not there", "denied"},
		{"by none", "lan", "", "127.0.0.6:80", "denied", "", "denied"},
		{"at another hour", "lan", "", "127.0.0.4:80", "schedule", "later", "schedule"},
		{"a login that is wrong", "wan", "mallory", "127.0.0.1:80", "bad-login", "", "bad-login"},
		{"no identd", "lan", "", "127.0.0.5:80", "no-identd", "by identd", "no-identd"},
		{"no host", "lan", "", "224.0.0.1:80", "bad-request", "us", "bad-request"},
		{"the proxy itself", "lan", "", s.addrOf(t, "lan").String(), "loop", "us", ""},
		{"a target that refuses", "lan", "", "127.0.0.1:1", "refused", "us", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.toldToClient(t, s)
			c.onPageAndInLog(t, s)
			c.inExplain(t, src)
		})
	}
}

func (c *oneReason) toldToClient(t *testing.T, s *paperServer) {
	t.Helper()
	login := ""
	if c.user != "" {
		login = c.user + ":secret@"
	}
	d, err := client.New("http://" + login + s.addrOf(t, c.listener).String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.DialContext(t.Context(), "tcp", c.to)
	reply, ok := errors.AsType[*client.ReplyError](err)
	if !ok || reply.Reason != c.reason || reply.Rule != c.rule {
		t.Errorf("the client says %v, want %s and %q", err, c.reason, c.rule)
	}
}

func (c *oneReason) onPageAndInLog(t *testing.T, s *paperServer) {
	t.Helper()
	target := c.target(t)
	before := len(s.stderr.all())
	conn := s.net.dial(t, "127.0.0.1", s.addrOf(t, c.listener))
	var shown []string
	if c.user != "" {
		shown = append(shown, paperBasic(c.user, "secret"))
	}
	conn.sends(paperHTTPTunnel(target.Host(), target.Port, shown...))
	if page := conn.answeredHTTP(); page.code == http.StatusOK || page.reason != c.reason {
		t.Errorf("the page says %+v", page)
	}
	if got := s.sessionBehind(t, conn, before); got.Reason != c.reason || got.Rule != c.rule {
		t.Errorf("the log says %+v", got)
	}
}

func (c *oneReason) inExplain(t *testing.T, src daemon.Source) {
	t.Helper()
	e, err := daemon.Explain(t.Context(), src, daemon.Question{
		From: netip.MustParseAddr("127.0.0.1"), User: c.user, Target: c.target(t), Protocol: server.HTTP, Listener: c.listener,
	})
	if err != nil || e.Reason != c.explained || e.Rule != c.rule {
		t.Errorf("explain says %+v, %v", e, err)
	}
}

func (c *oneReason) target(t *testing.T) socks.Addr {
	t.Helper()
	target, err := socks.ParseAddr(c.to)
	if err != nil {
		t.Fatal(err)
	}
	return target
}
