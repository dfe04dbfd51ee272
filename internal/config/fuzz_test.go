package config

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds what must be true of every file: no panic, every fault has a
// place in it and can be printed, and what is accepted is whole.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole), "")
	for _, c := range mistakes {
		f.Add([]byte(c.file), "")
	}
	for _, listen := range []string{":0", "127.0.0.1:1080", "[::1]:9", "localhost:1", "x", "::1:1080", "udp/:1", "a:1-9", "unix:/s", "eth0.1:2"} {
		f.Add([]byte("listeners: {listen: 127.0.0.1:1080}"), listen)
	}
	f.Fuzz(func(t *testing.T, data []byte, listen string) {
		s, err := Parse("f.yaml", data, Override{Listen: listen})
		if err == nil {
			checkSettings(t, s)
			return
		}
		faults, ok := errors.AsType[Errors](err)
		if !ok || len(faults) == 0 || s != nil {
			t.Fatalf("settings %v and the error %#v", s, err)
		}
		for i, fault := range faults {
			checkPlace(t, string(data), fault)
			if i == maxFaults {
				break // it says that there were more
			}
			if fault.Line == 0 && fault.File != "" {
				t.Errorf("without a place: %v", fault)
			}
			if i > 0 && faults[i-1].Line > fault.Line {
				t.Errorf("line %d comes before line %d", faults[i-1].Line, fault.Line)
			}
			checkPrint(t, fault)
		}
	})
}

// FuzzInclude holds what must be true of several files: no panic, an end, and
// every fault shows a line of the file that it names, but for passwords in it.
func FuzzInclude(f *testing.F) {
	f.Add("include: [a, b]", "rules: {allow: x}\ngroups: {g: u}", "rules: {deny: y, users: '@g'}")
	f.Add("include: '*'", "include: [b, f.yaml]", "groups: {g: u}")
	f.Add("include: .\nlog: {level: info}", "log: {level: warn, format: [}", "log: {format: x}\nlog: 1")
	f.Add("include: a\ninclude: b", "include: [b, b, ../b, './b']", "- x")
	f.Fuzz(func(t *testing.T, file, a, b string) {
		files := memoryDisk{"f.yaml": file, "a": a, "b": b}
		s, err := parseOn(files, "f.yaml", []byte(file), Override{})
		if err == nil {
			checkSettings(t, s)
			return
		}
		faults, ok := errors.AsType[Errors](err)
		if !ok || len(faults) == 0 || s != nil {
			t.Fatalf("settings %v and the error %#v", s, err)
		}
		for _, fault := range faults {
			checkPrint(t, fault)
			if fault.Line == 0 {
				continue
			}
			text := strings.ReplaceAll(strings.TrimPrefix(files[fault.File], "\ufeff"), "\r\n", "\n")
			if lines := strings.Split(text, "\n"); fault.Line > len(lines) || fault.Text != veil(lines[fault.Line-1]) {
				t.Errorf("%s:%d shows %q", fault.File, fault.Line, fault.Text)
			}
		}
	})
}

// checkPrint checks that a fault is safe to print, and no longer than a screen.
func checkPrint(t *testing.T, fault *Error) {
	t.Helper()
	text := fault.Error()
	if len(text) > 4096 || !utf8.ValidString(text) {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	if strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0x9b || r == 0x202e }) >= 0 {
		t.Errorf("not escaped: %q", text)
	}
	if n := strings.Count(text, "\n"); n > 3 {
		t.Errorf("%d lines: %q", n, text)
	}
}

// checkSettings checks what the rest of the program relies on.
func checkSettings(t *testing.T, s *Settings) {
	t.Helper()
	listeners := checkListeners(t, s)
	checkLists(t, s)
	rules := map[string]bool{}
	for _, r := range s.Rules {
		if r.Name == "" || rules[r.Name] || len(r.To) == 0 {
			t.Errorf("rule %+v", r)
		}
		rules[r.Name] = true
		checkRule(t, r, s, listeners)
	}
	for _, d := range []int64{
		int64(s.Timeouts.Handshake), int64(s.Timeouts.Connect), int64(s.Timeouts.Bind), int64(s.Timeouts.Ident),
		int64(s.Timeouts.Idle), int64(s.Timeouts.HalfClosed), int64(s.Timeouts.Drain) + 1, int64(s.Resolver.Cache) + 1,
	} {
		if d <= 0 || d > int64(maxTimeout)+1 {
			t.Errorf("timeouts %+v", s.Timeouts)
		}
	}
}

// checkListeners returns the names of the listeners.
func checkListeners(t *testing.T, s *Settings) map[string]bool {
	t.Helper()
	listeners, addresses := map[string]bool{}, map[string]bool{}
	for _, l := range s.Listeners {
		if _, m := parseListen(l.Listen); m != nil && !strings.HasPrefix(l.Listen, socketSign) || l.Name == "" || len(l.Protocols) == 0 {
			t.Errorf("listener %+v", l)
		}
		if addresses[l.Listen] && !strings.HasSuffix(l.Listen, ":0") {
			t.Errorf("two listeners on %s", l.Listen)
		}
		addresses[l.Listen] = true
		checkMap(t, l)
		if l.UserIDMax < 0 || l.UserIDMax > 1024 || l.BindPorts.First > l.BindPorts.Last || l.BindPorts.First > 0 && l.BindPorts.First < 1024 {
			t.Errorf("listener %+v", l)
		}
		if l.Advertise.IsValid() && (l.Advertise.IsUnspecified() || l.Advertise.Is4In6() || l.Advertise.Zone() != "") {
			t.Errorf("listener %+v", l)
		}
		listeners[l.Name] = true
	}
	return listeners
}

func checkMap(t *testing.T, l Listener) {
	t.Helper()
	if udp := strings.HasPrefix(l.Listen, "udp/"); udp != (l.Map != nil && l.Map.Idle > 0) {
		t.Errorf("listener %+v, %+v", l, l.Map)
	}
	if l.Map == nil {
		return
	}
	if len(l.Map.Targets) == 0 || len(l.Protocols) != 1 || l.Protocols[0] != mapped {
		t.Errorf("listener %+v", l)
	}
	for _, m := range l.Map.Targets {
		if (m.Host == "") == (m.Socket == "") || (m.Port == 0) == (m.Socket == "") || m.last != 0 {
			t.Errorf("listener %+v: target %+v", l, m)
		}
	}
}

func checkRule(t *testing.T, r Rule, s *Settings, listeners map[string]bool) {
	t.Helper()
	for _, name := range r.Listeners {
		if !listeners[name] {
			t.Errorf("rule %+v: no listener %q", r, name)
		}
	}
	for _, user := range r.Users {
		group, isGroup := strings.CutPrefix(user, "@")
		if _, ok := s.Groups[group]; isGroup && !ok || user == "" || strings.Contains(user, "\x00") {
			t.Errorf("rule %+v: user %q", r, user)
		}
	}
	for _, p := range r.Ports {
		if p.First == 0 || p.First > p.Last {
			t.Errorf("rule %+v: ports %+v", r, p)
		}
	}
	checkAddresses(t, r)
	checkNames(t, r, s)
}

// checkNames checks that what a rule names exists.
func checkNames(t *testing.T, r Rule, s *Settings) {
	t.Helper()
	for _, n := range r.From {
		if set, ok := s.Sets[n.Set]; n.Set != "" && !(ok && set.HasNetworks()) {
			t.Errorf("rule %+v: no set %q with networks", r, n.Set)
		}
	}
	for _, to := range r.To {
		if _, ok := s.Sets[to.Set]; to.Set != "" && !ok {
			t.Errorf("rule %+v: no set %q", r, to.Set)
		}
	}
	if _, ok := s.Schedules[r.During]; r.During != "" && !ok {
		t.Errorf("rule %+v: no schedule", r)
	}
	for _, name := range r.Limits {
		if _, ok := s.Limits[name]; !ok {
			t.Errorf("rule %+v: no limit %q", r, name)
		}
	}
}

// checkLists checks what rules name.
func checkLists(t *testing.T, s *Settings) {
	t.Helper()
	for name, set := range s.Sets {
		for _, e := range set.Entries {
			if name == "" || (e.Name == "") != e.Prefix.IsValid() || e.Word != "" || e.Set != "" {
				t.Errorf("set %q: %+v", name, e)
			}
		}
	}
	for name, schedule := range s.Schedules {
		if name == "" || schedule.Zone == nil || len(schedule.Spans) == 0 {
			t.Errorf("schedule %q: %+v", name, schedule)
		}
		for _, span := range schedule.Spans {
			if span.Days == [7]bool{} || span.From < 0 || span.From >= 1440 || span.To < 0 || span.To > 1440 || span.To == span.From {
				t.Errorf("schedule %q: %+v", name, span)
			}
		}
	}
	for name, l := range s.Limits {
		checkLimit(t, name, l)
	}
}

func checkLimit(t *testing.T, name string, l Limit) {
	t.Helper()
	kinds := 0
	for _, is := range []bool{l.Rate > 0, l.Up > 0 || l.Down > 0, l.IsQuota(), l.Sessions > 0, l.NewSessions > 0 && l.NewPer > 0} {
		if is {
			kinds++
		}
	}
	if name == "" || kinds != 1 || l.Per == "" || (l.Every != Period{} || l.Then != 0 || l.Warn != nil) && !l.IsQuota() || l.Then < 0 || l.Quota > 0 && l.QuotaTime > 0 {
		t.Errorf("limit %q: %+v", name, l)
	}
}

func checkAddresses(t *testing.T, r Rule) {
	t.Helper()
	for _, n := range r.From {
		if (n.Word == "" && n.Set == "") != n.Prefix.IsValid() || n.Prefix != n.Prefix.Masked() || n.Prefix.Addr().Is4In6() {
			t.Errorf("rule %+v: from %+v", r, n)
		}
	}
	for _, to := range r.To {
		if (to.Word == "" && to.Name == "" && to.Set == "") != to.Prefix.IsValid() || to.Prefix.Addr().Is4In6() || to.Suffix && to.Name == "" {
			t.Errorf("rule %+v: to %+v", r, to)
		}
		if to.Name != strings.ToLower(to.Name) || strings.HasSuffix(to.Name, ".") || endsInNumber(to.Name) {
			t.Errorf("rule %+v: to %+v", r, to)
		}
	}
}
