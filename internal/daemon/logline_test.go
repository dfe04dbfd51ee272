package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// logSession returns the lines that the log has for a session, in both formats.
func logSession(s *server.Session, reason error) []string {
	var lines []string
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		sessionLog{slog.New(newHandler(&b, config.Log{Format: format}))}.Closed(s, reason)
		lines = append(lines, b.String())
	}
	return lines
}

// FuzzLogLine reads lines as they come, and what the log makes of sessions.
func FuzzLogLine(f *testing.F) {
	bob := &server.Session{Record: server.Record{
		ID: 7, Started: time.Now(), Listener: "lan", Client: netip.MustParseAddrPort("10.0.0.7:4000"), Protocol: server.SOCKS4a, Command: socks.Connect,
		Identity: server.Identity{Name: "bob", Proof: server.Claimed}, Target: socks.Addr{Name: "host.example", Port: 80}, Rule: "all of us",
	}}
	for _, line := range append(logSession(bob, nil), logSession(&server.Session{Record: server.Record{Listener: "lan"}}, server.Garbage)...) {
		f.Add(line, "bob", "lan", "all of us")
	}
	for _, line := range []string{
		"", "=", "a", `a="`, `msg="session" x`, `msg="session"x=1`, "{", "{}", `{"msg":5}`, `{"msg":"session","up":{}}`, `{"msg":"settings","rule":["a"]}`,
		"time=2026-01-02T03:04:05Z msg=session listener=l client=1.2.3.4:5 took=1s reason=denied command=udp target=x",
		"time=2026-01-02T03:04:05Z msg=session listener=l client=1.2.3.4:5 took=-9999999h reason=denied command=udp target=x:1 to=y:2 user=\\x4 proof=none",
	} {
		f.Add(line, `b\o"b`+"\n", "l=1", " ")
	}
	f.Fuzz(func(t *testing.T, line, user, listener, rule string) {
		if s, err := parseLogLine(line); err == nil {
			_, _ = s.was()
		} else if !errors.Is(err, errLogLine) && !errors.Is(err, errNotLogged) {
			t.Errorf("%q: %v", line, err)
		}
		s := &server.Session{Record: bob.Record}
		s.Identity.Name, s.Listener, s.Rule = user, "l"+strings.ToValidUTF8(listener, ""), strings.ToValidUTF8(rule, "")
		for _, line := range logSession(s, nil) {
			got, err := parseLogLine(line)
			switch {
			case err != nil:
				t.Errorf("%q: %v", line, err)
			case got.cut:
			case got.shown.Name != user, got.request.Listener != s.Listener, got.rule != s.Rule, got.request.Target != s.Target, got.request.Client != s.Client:
				t.Errorf("%q became %+v", line, got)
			}
		}
	})
}

// recorded is a session that asked for host.example, changed.
func recorded(began time.Time, change func(*server.Record)) *server.Session {
	s := &server.Session{Record: server.Record{
		Started: began, Listener: "lan", Client: netip.MustParseAddrPort("10.0.0.7:4000"), Protocol: server.SOCKS5, Command: socks.Connect,
		Target: socks.Addr{Name: "host.example", Port: 80}, Rule: "staff",
	}}
	if change != nil {
		change(&s.Record)
	}
	return s
}

// A session's line tells what it asked for, and how that was answered.
func TestLogLine(t *testing.T) {
	there, began := netip.MustParseAddrPort("192.0.2.1:80"), time.Now().Add(-time.Hour)
	record := func(change func(*server.Record)) *server.Session { return recorded(began, change) }
	udp := func(r *server.Record) {
		r.Command, r.Target, r.Bound = socks.Associate, socks.FromIP(netip.MustParseAddrPort("0.0.0.0:0")), there
	}
	for _, test := range []struct {
		name    string
		session *server.Session
		reason  error
		want    string // of the verdict; empty: none
	}{
		{"relayed", record(func(r *server.Record) { r.Address = there }), nil, `allowed by "staff"`},
		{"relayed by an upstream", record(func(r *server.Record) { r.Via = "hq" }), nil, `allowed by "staff" via hq`},
		{"ended by its hour", record(func(r *server.Record) { r.Address = there }), server.Schedule, `allowed by "staff" until its hours end`},
		{"ended by a reload", record(func(r *server.Record) { r.Address = there }), server.Revoked, `allowed by "staff"`},
		{"the target refused", record(nil), server.Refused, `allowed by "staff"`},
		{"no primary", record(func(r *server.Record) { r.Command = socks.Bind }), server.NoPrimary, `allowed by "staff"`},
		{"denied by a rule", record(nil), server.Denied, `refused (denied, rule "staff")`},
		{"denied by none", record(func(r *server.Record) { r.Rule = "" }), server.Denied, "refused (denied)"},
		{"at another hour", record(nil), server.Schedule, `refused (schedule, rule "staff")`},
		{"no name", record(func(r *server.Record) { r.Rule = "" }), server.NoName, "refused (no-name)"},
		{"4a is not spoken", record(func(r *server.Record) { r.Rule, r.Protocol = "", server.SOCKS4a }), server.Unsupported, "refused (unsupported)"},
		{"a method of HTTP", record(func(r *server.Record) { r.Rule, r.Protocol = "", server.HTTP }), server.Unsupported, ""},
		{"a bad login by SOCKS 5", record(func(r *server.Record) { r.Rule, r.Protocol, r.Command, r.Target = "", "", 0, socks.Addr{} }), server.BadLogin, ""},
		{"a bad login by HTTP", record(func(r *server.Record) { r.Rule = "" }), server.BadLogin, "refused (bad-login)"},
		{"the client left", record(func(r *server.Record) { r.Rule = "" }), server.ClientGone, ""},
		{"an unknown command", record(func(r *server.Record) { r.Rule, r.Command = "", 9 }), server.Unsupported, ""},
		{"an association", record(func(r *server.Record) { udp(r); r.To, r.Address = socks.FromIP(there), there }), nil, `allowed by "staff"`},
		{"an association whose first datagram was refused", record(func(r *server.Record) { udp(r); r.To = socks.FromIP(there) }), server.Denied, `refused (denied, rule "staff")`},
		{"an association without a datagram", record(func(r *server.Record) { udp(r); r.Rule = "" }), nil, ""},
		{"no association", record(func(r *server.Record) { udp(r); r.Rule, r.Bound = "", netip.AddrPort{} }), server.Denied, "refused (denied)"},
	} {
		for _, line := range logSession(test.session, test.reason) {
			s, err := parseLogLine(line)
			if err != nil {
				t.Fatalf("%s: %v\n%s", test.name, err, line)
			}
			v, known := s.was()
			if got := v.String(); known != (test.want != "") || known && got != test.want {
				t.Errorf("%s: %q (%t), want %q\n%s", test.name, got, known, test.want, line)
			}
			if off := s.began.Sub(began); off.Abs() > time.Minute {
				t.Errorf("%s: it began %v later", test.name, off)
			}
		}
	}
}

// What is no line of a session is not taken for one, and what was cut not for a name.
func TestLogLineNot(t *testing.T) {
	for line, want := range map[string]error{
		`time=2026-01-02T03:04:05Z level=INFO msg="bad login" client=1.2.3.4`: errNotLogged,
		`{"time":"2026-01-02T03:04:05Z","msg":"settings","rules":["a"]}`:      errNotLogged,
		`{"time":"2026-01-02T03:04:05Z","msg":"settings","rule":["a"]}`:       errNotLogged,
		"": errLogLine, "panic: oh": errLogLine, "msg=session": errLogLine, "{": errLogLine,
	} {
		if _, err := parseLogLine(line); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", line, err, want)
		}
	}
	long := recorded(time.Now(), func(r *server.Record) {
		r.Identity = server.Identity{Name: strings.Repeat("\x01", 100), Proof: server.Claimed}
	})
	for _, line := range logSession(long, nil) {
		if s, err := parseLogLine(line); err != nil || !s.cut {
			t.Errorf("a name that was cut: %+v, %v", s, err)
		}
	}
}
