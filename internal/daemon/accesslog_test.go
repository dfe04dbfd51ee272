//go:build unix

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// lines of a file that is there.
func linesOf(tb testing.TB, path string) []string {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// hasLines waits until a file has so many lines, the last of them with a text.
func hasLines(t *testing.T, path string, n int, text string) {
	t.Helper()
	proxytest.Eventually(t, fmt.Sprintf("%s has %d lines, the last with %q", path, n, text), func() bool {
		content, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
		return len(lines) == n && strings.Contains(lines[n-1], text)
	})
}

// isWhole looks at the line of a session that was relayed.
func isWhole(t *testing.T, line string) {
	t.Helper()
	var e accessEntry
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Up == 0 || e.Down != e.Up || e.Rule != "all" || e.Reason != "closed" {
		t.Errorf("%v, %+v", err, e)
	}
}

// TestAccessLog: sessions of a server have their lines; other settings hold for the next,
// with none lost; what was renamed is left alone once the file was begun anew; and a file
// that cannot be opened leaves everything as it was.
func TestAccessLog(t *testing.T) {
	settings := func(log string) string {
		return oneListener + "ledger: off\nrules: {allow: all, to: any, users: any, proof: claimed}\nlog: {" + log + "}\n"
	}
	s := serveIn(t, settings("access: a.log"))
	echo := proxytest.Echo(t, "127.0.0.1")
	ends := func(user string) {
		t.Helper()
		c := s.connects(s.at("lan"), user, echo)
		proxytest.Granted4(t, c)
		lives(t, user, c)
		c.Close()
	}
	file := func(name string) string { return filepath.Join(s.dir, name) }
	has := func(name string, n int, text string) {
		t.Helper()
		hasLines(t, file(name), n, text)
	}
	ends("alice")
	has("a.log", 1, `"user":"alice"`)
	isWhole(t, linesOf(t, file("a.log"))[0])
	if err := os.Rename(file("a.log"), file("old.log")); err != nil {
		t.Fatal(err)
	}
	s.ReopenLogs()
	ends("bob")
	has("a.log", 1, `"user":"bob"`)
	has("old.log", 1, `"user":"alice"`)

	s.reloads(settings("access: a.log, access_format: 'user={user}'"))
	ends("carol")
	has("a.log", 2, "user=carol")
	s.refuses(settings("access: none/b.log"), "the access log cannot be opened")
	ends("dave")
	has("a.log", 3, "user=dave")
	otherFiles(s, settings, ends, has)
}

// otherFiles changes the file, has none, and has one again.
func otherFiles(s *served, settings func(string) string, ends func(string), has func(string, int, string)) {
	s.Helper()
	s.reloads(settings("access: b.log, access_format: squid"))
	ends("erin")
	has("b.log", 1, " erin HIER_DIRECT/127.0.0.1 -")
	s.reloads(settings("level: info"))
	ends("frank")
	s.logs("user=frank", 1) // which comes after the line that there is not
	s.ReopenLogs()
	s.reloads(settings("access: a.log, access_format: '{user}'"))
	ends("grace")
	has("a.log", 4, "grace")
	has("b.log", 1, "erin")
	if lost := s.access.lost(); lost != 0 {
		s.Errorf("%d lines were lost", lost)
	}
}

// TestAccessLogOnAFullDisk: nobody waits, lines are lost, and the log says so.
func TestAccessLogOnAFullDisk(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip("this system has no /dev/full")
	}
	s := serveIn(t, oneListener+"ledger: off\nlog: {access: "+full+", access_size: 64 KiB}\nrules: {allow: all, to: any, users: any, proof: claimed}\n")
	echo := proxytest.Echo(t, "127.0.0.1")
	for range 3 {
		c := s.connects(s.at("lan"), "alice", echo)
		proxytest.Granted4(t, c)
		c.Close()
	}
	proxytest.Eventually(t, "three lines are lost", func() bool { return s.access.lost() == 3 })
	proxytest.Eventually(t, "the log says why, while it lasts", func() bool {
		return strings.Count(s.said.String(), "the access log cannot be written") == 1
	})
	if _, text := s.scrape("/metrics"); !strings.Contains(text, "\nsallyport_log_lines_lost_total{log=\"access\"} 3\n") {
		t.Error("the metrics do not say so")
	}
	s.reloads(oneListener + "ledger: off\nrules: {allow: all, to: any}\n")
	if lost := s.access.lost(); lost != 3 {
		t.Errorf("without the file %d lines were lost, want 3", lost)
	}
}

// matching are the files of a pattern.
func matching(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// strangers puts files into a folder that are not ours, though their names are much alike.
func strangers(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"a.log.bak", "b.log.20200101T000000.000", "a.log.20200101T000000.000x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRotation: by size and by span of time; the oldest are dropped, and nothing else is.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.log")
		strangers(t, dir)
		f, err := openRotatingFile(path, rotation{size: 100, keep: 2}, func(msg string, err error) { t.Errorf("%s: %v", msg, err) })
		if err != nil {
			t.Fatal(err)
		}
		defer f.close()
		writes := func(text string) {
			t.Helper()
			if n, err := f.Write([]byte(text)); err != nil || n != len(text) {
				t.Fatalf("%d, %v", n, err)
			}
		}
		line := strings.Repeat("x", 59) + "\n"
		for range 5 {
			writes(line)
		}
		if aside := matching(t, path+".2*"); len(aside) != 3 || len(linesOf(t, path)) != 1 { // one of them is not ours
			t.Errorf("%q; want two files beside the one that is written", aside)
		}
		f.setRules(rotation{age: time.Hour})
		writes("first\n")
		time.Sleep(59 * time.Minute)
		writes("in the same hour\n")
		time.Sleep(time.Minute)
		writes("in the next\n")
		if got := linesOf(t, path); len(got) != 1 || got[0] != "in the next" {
			t.Errorf("the file has %q", got)
		}
		if others := matching(t, filepath.Join(dir, "*")); len(others) != 7 { // three that are not ours, two of before, one that was aged, and the one that is written
			t.Errorf("%q", others)
		}
	})
}

// TestHalfALine: what comes behind a line of which only a part was written, as before a
// power cut or on a full disk, begins on a line of its own.
func TestHalfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	const half = "{\"time\":"
	if err := os.WriteFile(path, []byte(half), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openRotatingFile(path, rotation{}, func(msg string, err error) { t.Errorf("%s: %v", msg, err) })
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	fmt.Fprint(f, "first\n")
	if err := f.reopen(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "second\n")
	content, err := os.ReadFile(path)
	if err != nil || string(content) != half+"\nfirst\nsecond\n" {
		t.Errorf("the file has %q, %v", content, err)
	}
}

// TestRotationBesideAnother: in an upgrade two processes write to a file, and one sets it
// aside; the other follows, and sets nothing aside that is new.
func TestRotationBesideAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	say := func(msg string, err error) { t.Errorf("%s: %v", msg, err) }
	var both [2]*rotatingFile
	for i := range both {
		var err error
		if both[i], err = openRotatingFile(path, rotation{size: 30}, say); err != nil {
			t.Fatal(err)
		}
		defer both[i].close()
		fmt.Fprintf(both[i], "first %d\n", i)
	}
	for i := range both {
		fmt.Fprintf(both[i], "second %d, which is longer\n", i)
	}
	if got := linesOf(t, path); len(got) != 2 {
		t.Errorf("the file has %q", got)
	}
	aside, err := filepath.Glob(path + ".*")
	if err != nil || len(aside) != 1 || len(linesOf(t, aside[0])) != 2 {
		t.Errorf("%q, %v; want one file with two lines", aside, err)
	}
}

// TestRotationThatFails: lines go on into the file that is there, and it is said once.
func TestRotationThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	said := 0
	f, err := openRotatingFile(filepath.Join(dir, "a.log"), rotation{size: 20}, func(string, error) { said++ })
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	fmt.Fprint(f, "a line of some length\n")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := f.Write([]byte("five\n")); err != nil {
			t.Errorf("a line is lost: %v", err)
		}
	}
	if said != 1 {
		t.Errorf("it is said %d times, want once", said)
	}
	if err := f.reopen(); err == nil {
		t.Error("the file was begun anew in a folder that is gone")
	}
	if _, err := f.Write([]byte("x\n")); err != nil {
		t.Errorf("after that lines are lost: %v", err)
	}
}
