package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// topServed is the socket of a server that serves one session of alice, where it
// listens, and her end of it.
func topServed(t *testing.T) (socket, listens string, session net.Conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "top") // short enough for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	settings := filepath.Join(dir, "s.yaml")
	if err := os.WriteFile(settings, []byte("listeners: {listen: '127.0.0.1:0'}\nrules: {allow: all, to: any, limits: [fair, daily, few]}\nlimits: {fair: {rate: 20 Mbit/s, per: user}, daily: {quota: 5 GiB, every: day, per: user}, few: {sessions: 99, per: source}}\nledger: off\nadmin: {socket: s, listen: off}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Open(t.Context(), daemon.Source{File: settings}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var greeting strings.Builder
	d.Greet(&greeting, "1")
	_, address, _ := strings.Cut(greeting.String(), "listening on ")
	address, _, _ = strings.Cut(address, " ")
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Run(ctx, ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "s"), address, topSession(t, address)
}

// topSession is alice's end of a session; it is closed when the test ends.
func topSession(t *testing.T, address string) net.Conn {
	t.Helper()
	through, err := client.New("socks4://alice@" + address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := through.DialContext(t.Context(), "tcp", proxytest.Echo(t, "127.0.0.1").String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestTopOfAServer: what it prints of a running server, and that it ends and slows a
// session there.
func TestTopOfAServer(t *testing.T) {
	socket, _, c := topServed(t)
	top := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(append([]string{"top", "--socket", socket}, args...), nil, &out, &errs); code != 0 {
			t.Fatalf("top %v: %d: %s", args, code, &errs)
		}
		return out.String()
	}
	if text := top("--once"); !strings.Contains(text, "1 open, ") || !strings.Contains(text, "alice") || !strings.Contains(text, "all") || strings.Count(text, "\n") != 4 {
		t.Errorf("--once prints\n%s", text)
	}
	if text := top("--once", "--filter", "nobody"); !strings.Contains(text, "; 0 match") || strings.Contains(text, "alice") {
		t.Errorf("with a filter it prints\n%s", text)
	}
	var all struct {
		Now      daemon.LiveNow      `json:"now"`
		Sessions daemon.LiveSessions `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(top("--json", "--sort", "newest")), &all); err != nil || all.Now.Open != 1 || len(all.Sessions.Sessions) != 1 || all.Sessions.Sessions[0].User != "alice" {
		t.Errorf("%v, %+v", err, all)
	}
	topLimits(t, socket)
	topDeeds(t, socket, all.Sessions.Sessions[0].ID, c, top)
}

// topLimits asks for the limits by user, and no others.
func topLimits(t *testing.T, socket string) {
	t.Helper()
	watch, err := daemon.Remote{Socket: socket}.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := watch.Limits(t.Context())
	if err != nil || !reflect.DeepEqual(got.OfRule, map[string][]string{"all": {"fair", "daily"}}) || got.Text["fair"] != "20 Mbit/s" || len(got.Text) != 2 {
		t.Errorf("limits: %+v, %v", got, err)
	}
}

// topDeeds slows the session and ends it.
func topDeeds(t *testing.T, socket string, id uint64, c net.Conn, top func(...string) string) {
	t.Helper()
	watch, err := daemon.Remote{Socket: socket}.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.SlowSession(t.Context(), id, "soon"); err == nil || !strings.Contains(err.Error(), "soon") {
		t.Errorf("slowed to no rate: %v", err)
	}
	if err := watch.SlowSession(t.Context(), id, "1 Mbit/s"); err != nil || !strings.Contains(top("--once"), "slowed") {
		t.Errorf("slowed: %v", err)
	}
	if err := watch.EndSession(t.Context(), id); err != nil {
		t.Errorf("ended: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the session goes on")
	}
	if err := watch.EndSession(t.Context(), id+1); err == nil || !strings.Contains(err.Error(), "no such") {
		t.Errorf("the end of one that is not there: %v", err)
	}
}

func TestTopRefuses(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "s")
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--once", "--socket", nowhere}, 1, "sallyport serve"},
		{[]string{"--socket", nowhere}, 2, "no terminal"},
		{[]string{"--sort", "size"}, 2, "speed, bytes"},
		{[]string{"--once", "--limit", "0"}, 2, "1 to 1000"},
		{[]string{"x"}, 2, ""},
	} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"top"}, test.args...), nil, &out, &errs); code != test.code || !strings.Contains(errs.String(), test.says) {
			t.Errorf("%v: %d, %s; want %d and %q", test.args, code, &errs, test.code, test.says)
		}
	}
}

// topShow is a server of three sessions, and what was done to it.
type topShow struct {
	asked []daemon.LiveQuery
	deeds []string
	fault error
}

func (s *topShow) server() topServer {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return topServer{
		now: func() (daemon.LiveNow, error) {
			return daemon.LiveNow{
				At: at, Open: 3, Refused: map[string]uint64{"denied": 7, "refused": 9},
				Refusals: []daemon.LiveRefusal{{At: at, Reason: "denied", User: "mallory", Detail: "by a rule"}},
			}, s.fault
		},
		sessions: func(q daemon.LiveQuery) (daemon.LiveSessions, error) {
			s.asked = append(s.asked, q)
			page := daemon.LiveSessions{Open: 3, Matched: 3}
			for i, user := range []string{"alice", "bob", "alice"} {
				if i >= q.Offset && len(page.Sessions) < 2 { // pages of two, as of a server with many
					page.Sessions = append(page.Sessions, daemon.LiveSession{ID: uint64(i + 1), User: user, Rule: []string{"web", "web", "mail"}[i], Started: at.Add(-90 * time.Minute), SpeedDown: 1_000_000, Up: 2048})
				}
			}
			return page, nil
		},
		limits: func() (daemon.LiveLimits, error) {
			return daemon.LiveLimits{
				OfRule: map[string][]string{"web": {"fair", "daily"}, "mail": {"fair"}}, Text: map[string]string{"fair": "20 Mbit/s", "daily": "5 GiB a day"},
				Quotas: []daemon.QuotaLine{{Limit: "daily", Per: "user", Key: "alice", Used: 1 << 30, Most: 5 << 30}, {Limit: "daily", Per: "user", Key: "carol", Used: 1, Most: 2}},
			}, s.fault
		},
		end: func(id uint64) error { s.deeds = append(s.deeds, fmt.Sprint("end ", id)); return s.fault },
		slow: func(id uint64, rate string) error {
			s.deeds = append(s.deeds, fmt.Sprint("slow ", id, " to ", rate))
			return s.fault
		},
	}
}

// presses gives keys to a model, and what follows from them but for the passing of time.
func presses(m tea.Model, keys ...string) tea.Model {
	for _, key := range keys {
		press := tea.KeyPressMsg{Text: key}
		switch key {
		case "enter":
			press = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			press = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "down":
			press = tea.KeyPressMsg{Code: tea.KeyDown}
		case "tab":
			press = tea.KeyPressMsg{Code: tea.KeyTab}
		case "backspace":
			press = tea.KeyPressMsg{Code: tea.KeyBackspace}
		}
		var do tea.Cmd
		if m, do = m.Update(press); do != nil {
			m, _ = m.Update(do())
		}
	}
	return m
}

// TestTopKeys: what keys do, and what is shown then.
func TestTopKeys(t *testing.T) {
	s := &topShow{}
	start := func() tea.Model {
		m := tea.Model(newTopModel(s.server(), daemon.LiveQuery{Sort: "speed"}))
		m, _ = m.Update(tea.WindowSizeMsg{Width: 120, Height: 20})
		m, _ = m.Update(m.Init()())
		return m
	}
	shows := func(m tea.Model, texts ...string) {
		t.Helper()
		view := m.View().Content
		if n := strings.Count(view, "\n"); n != 19 {
			t.Errorf("%d lines, want as many as the window has:\n%s", n+1, view)
		}
		for _, text := range texts {
			if !strings.Contains(view, text) {
				t.Errorf("it does not show %q:\n%s", text, view)
			}
		}
	}
	m := start()
	shows(m, "3 open", "[1 sessions]", "order: speed", "8 Mbit/s", "2 KiB", "1h30m", "\x1b[7m1 ", "q leave")
	shows(presses(m, "down", "down", "e"), "\x1b[7m2 ", "end session 2? y or n")
	m = presses(m, "down", "e", "y")
	shows(m, "session 2 is ended")
	presses(presses(m, "e", "n"), "e", "esc")
	shows(presses(m, "l", "5", "x", "backspace", " ", "M", "enter"), "session 2: 5 M")
	shows(presses(start(), "l", "enter"), "session 1: as fast as it may")
	if want := "end 2, slow 2 to 5 M, slow 1 to "; strings.Join(s.deeds, ", ") != want {
		t.Errorf("it does %q, want %q", s.deeds, want)
	}

	m = presses(start(), "s", "/", "b", "o", "b", "enter")
	shows(m, "order: bytes", "filter: bob")
	m, _ = m.Update(m.(topModel).fetch()())
	if last := s.asked[len(s.asked)-1]; last.Sort != "bytes" || last.Filter != "bob" || last.Limit != 20 {
		t.Errorf("it asks for %+v", last)
	}
	shows(presses(m, "/", "x", "esc"), "filter: bob")

	m = presses(start(), "tab")
	m, _ = m.Update(m.(topModel).fetch()())
	shows(m, "[2 users]", "alice  2         0 bit/s  16 Mbit/s", "bob    1 ", "fair: 20 Mbit/s; daily: 1.0 GiB of 5.0 GiB\n", "fair: 20 Mbit/s; daily: 5 GiB a day\n")
	shows(presses(m, "e"), "q leave") // nothing to end here
	shows(presses(m, "3"), "[3 refusals]", "refused   9\n", "mallory", "by a rule")

	s.fault = errors.New("no server answers")
	m = start()
	shows(m, "no server answers")
	if _, do := presses(m).Update(tea.KeyPressMsg{Text: "q"}); do == nil || do() != tea.Quit() {
		t.Error("q does not end it")
	}
}

// TestTopOnATerminal: the whole of it, with keys that come as bytes.
func TestTopOnATerminal(t *testing.T) {
	s := &topShow{}
	var out bytes.Buffer
	keys, typed := io.Pipe()
	defer keys.Close()
	m := newTopModel(s.server(), daemon.LiveQuery{Sort: "speed"})
	ended := m.server.end
	m.server.end = func(id uint64) error {
		err := ended(id)
		go func() { _, _ = typed.Write([]byte("q")) }() // the deed was done: leave
		return err
	}
	first := m.server.sessions
	begun := false
	m.server.sessions = func(q daemon.LiveQuery) (daemon.LiveSessions, error) {
		if !begun {
			begun = true
			go func() { _, _ = typed.Write([]byte("jey")) }()
		}
		return first(q)
	}
	program := tea.NewProgram(m, tea.WithInput(keys), tea.WithOutput(&out), tea.WithWindowSize(100, 20), tea.WithContext(t.Context()), tea.WithEnvironment([]string{"TERM=xterm"}))
	if _, err := program.Run(); err != nil {
		t.Fatal(err)
	}
	if len(s.deeds) != 1 || !strings.HasPrefix(s.deeds[0], "end ") {
		t.Errorf("it has done %q", s.deeds)
	}
	if !strings.Contains(out.String(), "alice") {
		t.Errorf("it has shown %q", out.String())
	}
}
