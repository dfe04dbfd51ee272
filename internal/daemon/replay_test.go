package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// replayLines makes lines of sessions out of what differs from one that was
// relayed, in turn in both formats.
func replayLines(sessions ...string) string {
	var b strings.Builder
	for i, s := range sessions {
		fields := map[string]string{
			"time": noon.Format(time.RFC3339Nano), "level": "INFO", "msg": "session", "listener": "lan", "client": "10.0.0.7:4000",
			"protocol": "socks5", "user": "", "proof": "none", "command": "connect", "took": "1.000s", "reason": "closed",
		}
		for field := range strings.FieldsSeq(s) {
			key, value, _ := strings.Cut(field, "=")
			fields[key] = strings.ReplaceAll(value, "_", " ")
		}
		if i%2 == 1 {
			text, _ := json.Marshal(fields)
			b.Write(text)
		} else {
			for key, value := range fields {
				fmt.Fprintf(&b, "%s=%q ", key, value)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func twice(lines ...string) (all []string) {
	for _, l := range lines {
		all = append(all, l, l)
	}
	return all
}

func TestReplay(t *testing.T) {
	src := writeSettings(t, explainSettings)
	for _, test := range []struct {
		name, line, want string // what would change, the first reason why it cannot be told, or neither
	}{
		{"as before", "target=10.1.2.3:80 address=10.1.2.3:80 rule=guests", ""},
		{"still refused", "target=10.9.2.3:80 reason=denied", ""},
		{"lost", "target=10.9.2.3:80 address=10.9.2.3:80 rule=guests", `lost: allowed by "guests" -> refused (denied)`},
		{"lost to a rule", "target=10.6.6.6:80 reason=refused rule=guests", `lost: allowed by "guests" -> refused (denied, rule "not there")`},
		{"gained", "target=10.1.2.3:80 reason=denied rule=not_there", `gained: refused (denied, rule "not there") -> allowed by "guests"`},
		{"by another rule", "target=10.1.2.3:80 address=10.1.2.3:80 rule=the_old_one", `otherwise: allowed by "the old one" -> allowed by "guests"`},
		{"at its hour", "target=10.2.2.3:80 address=10.2.2.3:80 rule=by_night", ""},
		{"at another hour", "target=10.2.2.3:80 address=10.2.2.3:80 rule=by_night time=2026-11-25T03:00:00Z", `lost: allowed by "by night" -> refused (schedule, rule "by night")`},
		{"it began in time", "target=10.2.2.3:80 address=10.2.2.3:80 rule=by_night time=2026-11-25T18:00:00Z took=2s reason=schedule", ""},
		{"it would be cut short", "target=10.2.2.3:80 address=10.2.2.3:80 rule=by_night time=2026-11-25T19:00:00Z took=7200s", `otherwise: allowed by "by night" -> allowed by "by night" until its hours end`},
		{"a name, by its address", "target=host.example:80 address=10.1.2.3:80 rule=guests", ""},
		{"a name without an address", "target=host.example:80 reason=denied", "the name has no address"},
		{"a name that is denied as such", "target=www.bad.example:80 reason=denied", `otherwise: refused (denied) -> refused (denied, rule "not there")`},
		{"a name that is sent on", "target=www.far.example:80 via=hq rule=far", ""},
		{"another way", "target=www.far.example:80 address=10.5.0.1:80 rule=far", `otherwise: allowed by "far" -> allowed by "far" via hq`},
		{"by a password", "target=10.3.0.1:80 user=bob proof=password rule=staff", ""},
		{"the user is gone", "target=10.3.0.1:80 user=eve proof=password rule=staff", `lost: allowed by "staff" -> refused (bad-login)`},
		{"identd has said so", "target=10.3.0.1:80 protocol=socks4 user=bob proof=ident rule=staff", ""},
		{"identd has not", "target=10.3.0.1:80 protocol=socks4 user=bob proof=claimed rule=staff reason=no-identd", ""},
		{"identd was not asked", "target=10.3.0.1:80 protocol=socks4 user=bob proof=claimed rule=old", "identd was not asked"},
		{"a load balancer's client has no identd", "target=10.3.0.1:80 protocol=socks4 user=bob proof=claimed rule=staff reason=no-identd through=10.0.0.1:9", ""},
		{"a name that is cut", "target=10.3.0.1:80 user=" + strings.Repeat("x", 252) + "... proof=claimed protocol=socks4 rule=staff", "the user's name is cut"},
		{"the listener is gone", "listener=wan target=10.1.2.3:80 rule=guests", `lost: allowed by "guests" -> refused (no listener wan)`},
		{"4a was not spoken", "target=10.1.2.3:80 protocol=socks4a reason=unsupported", `gained: refused (unsupported) -> allowed by "guests"`},
		{"a bad login by HTTP", "target=10.3.0.1:80 protocol=http reason=bad-login", "a login was refused"},
		{"a datagram", "command=udp target=0.0.0.0:0 to=10.1.2.3:53 address=10.1.2.3:53 rule=guests bound=127.0.0.1:5", ""},
		{"a datagram that was refused", "command=udp target=0.0.0.0:0 to=10.1.2.3:53 reason=denied bound=127.0.0.1:5", `gained: refused (denied) -> allowed by "guests"`},
		{"an association that was refused", "command=udp target=0.0.0.0:0 reason=denied", "an association was refused"},
		{"an association that is", "command=udp target=0.0.0.0:0 reason=denied client=11.0.0.7:4000", ""},
		{"BIND for any peer", "command=bind target=0.0.0.0:21 reason=denied rule=any_peer", ""},
		{"no host's address", "command=bind target=255.255.255.255:21 reason=bad-request rule=any_peer", ""},
		{"BIND without a primary", "command=bind target=10.4.0.1:80 reason=no-primary rule=back", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := ReplayLog(t.Context(), src, strings.NewReader(replayLines(twice(test.line)...)), false)
			if err != nil {
				t.Fatal(err)
			}
			got, counted := replayedAs(t, r)
			if got != test.want && (test.want == "" || !strings.HasPrefix(got, test.want)) || counted != 2 || r.Differs() != (len(r.Changes) > 0) {
				t.Errorf("%q, want %q: %+v", got, test.want, r)
			}
		})
	}
}

// replayedAs returns what became of two sessions that are the same, and how many
// of them were counted.
func replayedAs(t *testing.T, r *Replay) (text string, counted int) {
	t.Helper()
	counted = r.Sessions
	for _, c := range r.Changes {
		text = fmt.Sprintf("%s: %s -> %s", c.Kind(), c.Was, c.Now)
		if c.Sessions != 2 || !strings.HasPrefix(c.Example, "2026-11-25T") {
			t.Errorf("%+v", c)
		}
	}
	for _, u := range r.Unjudged {
		text, counted = u.Why, counted+u.Sessions
	}
	return text, counted
}

// With resolve, names without an address are looked up, and no others.
func TestReplayResolves(t *testing.T) {
	src := writeSettings(t, explainSettings)
	log := replayLines("target=localhost:80 reason=denied", "target=no-such-name.invalid:80 address=10.1.2.3:80 rule=far")
	r, err := ReplayLog(t.Context(), src, strings.NewReader(log), true)
	if err != nil || r.Sessions != 2 || len(r.Unjudged) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Whatever else is in a log is counted, and no reason to stop.
func TestReplayCounts(t *testing.T) {
	src := writeSettings(t, explainSettings)
	ok := replayLines("target=10.1.2.3:80 address=10.1.2.3:80 rule=guests")
	long := strings.Repeat("x", 3*replayLine) + "\n"
	log := ok + "\n" + long + "time=2026-01-02T03:04:05Z level=INFO msg=hello\n" + "garbage\n" + replayLines("command= reason=garbage") + strings.TrimSuffix(ok, "\n")
	r, err := ReplayLog(t.Context(), src, iotest.OneByteReader(strings.NewReader(log)), false)
	if err != nil || r.Sessions != 2 || r.Same != 2 || r.Broken != 3 || r.Other != 1 || r.Undecided != 1 || r.Differs() {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := ReplayLog(t.Context(), src, iotest.ErrReader(io.ErrClosedPipe), false); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a log that cannot be read: %v", err)
	}
	if _, err := ReplayLog(t.Context(), writeSettings(t, "rules: 5"), strings.NewReader(ok), false); err == nil {
		t.Error("bad settings are taken")
	}
}

// Any number of lines takes no more memory than some.
func TestReplayGroups(t *testing.T) {
	src := writeSettings(t, explainSettings)
	var lines []string
	for i := range replayGroups + 7 {
		lines = append(lines, fmt.Sprintf("target=10.1.2.3:80 rule=rule%d", i))
	}
	r, err := ReplayLog(t.Context(), src, strings.NewReader(replayLines(twice(lines...)...)), false)
	if err != nil || len(r.Changes) != replayGroups || r.More != 14 || r.Sessions != 2*len(lines) {
		t.Errorf("%d changes, %d more, %d sessions, %v", len(r.Changes), r.More, r.Sessions, err)
	}
}
