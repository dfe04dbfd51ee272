//go:build linux

package main_test

// The paper*_test.go files are an acceptance suite: they run the built program
// and speak to it byte by byte, and know nothing of how it is made. This file
// builds and runs the program.

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// paperPatience bounds every wait. No test measures it: it only has to be long
// enough for a loaded machine.
const paperPatience = 20 * time.Second

// paperOpen lets this machine go anywhere and asks for nothing.
const paperOpen = `
log: {format: json}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`

// paperProgram builds the program once. The file is removed at once and run by
// its descriptor, so that nothing is left behind however the tests end.
var paperProgram = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "sallyport-paper-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args := []string{"build", "-o", filepath.Join(dir, "sallyport")}
	if paperRace() {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.Open(filepath.Join(dir, "sallyport"))
})

// paperRace reports whether this test was built with the race detector; then
// the program is too.
func paperRace() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// paperSetup says how to run the program.
type paperSetup struct {
	settings string    // the settings file
	net      *paperNet // the network it runs in; nil: this machine's own
	listen   string    // --listen; empty: 127.0.0.1:0; "-": as the settings say
	hosts    string    // its own /etc/hosts
	dns      string    // the only name server it knows
	files    int       // how many descriptors it may have
	zone     string    // the file that says how far its clocks are from UTC
}

// paperServer is the program, serving.
type paperServer struct {
	net    *paperNet
	addrs  []netip.AddrPort // where it listens
	cmd    *exec.Cmd
	stdout paperLines
	stderr paperLines
	done   chan struct{} // closed when the program has ended
}

var paperListening = regexp.MustCompile(`listening on (\S+) \(`)

// startPaper runs the program until the test ends. The test fails when the
// program ends by itself, panics, or has a data race.
func startPaper(t *testing.T, setup paperSetup) *paperServer {
	t.Helper()
	s := launchPaper(t, setup)
	t.Cleanup(func() { s.finish(t) })
	s.stdout.until(t, s.done, "the line that says where it listens", paperListening.MatchString)
	want := max(1, strings.Count(setup.settings, "listen: "))
	for len(s.addrs) < want {
		s.addrs = s.addrs[:0]
		for _, line := range s.stdout.all() {
			if m := paperListening.FindStringSubmatch(line); m != nil {
				s.addrs = append(s.addrs, netip.MustParseAddrPort(strings.TrimPrefix(m[1], "udp/")))
			}
		}
		if len(s.addrs) < want {
			n := len(s.stdout.all())
			s.stdout.until(t, s.done, "one more line on stdout", func(string) bool { return len(s.stdout.all()) > n })
		}
	}
	return s
}

// launchPaper starts the program and does not wait for anything.
func launchPaper(t *testing.T, setup paperSetup) *paperServer {
	t.Helper()
	program, err := paperProgram()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(setup.settings, "ledger:") {
		setup.settings += "\nledger: off\n"
	}
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(file, []byte(setup.settings), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), "serve", "--config", file, "--admin", "off"}
	switch setup.listen {
	case "-":
	case "":
		args = append(args, "--listen", "127.0.0.1:0")
	default:
		args = append(args, "--listen", setup.listen)
	}
	s := &paperServer{net: setup.net, done: make(chan struct{})}
	s.cmd = exec.Command("sh", append([]string{"-c", setup.script(t) + `exec "$@"`, "sh"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	if setup.hosts != "" || setup.dns != "" {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	s.net.do(func() { err = s.cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the state says the same
	}()
	return s
}

// script returns what the shell does before it becomes the program.
func (setup paperSetup) script(t *testing.T) string {
	t.Helper()
	var script strings.Builder
	bind := func(text, over string) {
		file := filepath.Join(t.TempDir(), filepath.Base(over))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, "mount --bind %q %s || exit 99; ", file, over)
	}
	if setup.hosts != "" {
		bind(setup.hosts, "/etc/hosts")
	}
	if setup.dns != "" {
		bind("nameserver "+setup.dns+"\noptions timeout:1 attempts:1\n", "/etc/resolv.conf")
	}
	if setup.zone != "" {
		fmt.Fprintf(&script, "export TZ=%q; ", setup.zone)
	}
	if setup.files > 0 {
		fmt.Fprintf(&script, "ulimit -n %d || exit 99; ", setup.files)
	}
	return script.String()
}

// finish ends the program and judges how it fared.
func (s *paperServer) finish(t *testing.T) {
	select {
	case <-s.done:
		if !s.cmd.ProcessState.Success() {
			t.Errorf("the program ended by itself: %v", s.cmd.ProcessState)
		}
	default:
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-s.done
	}
	lines := s.stderr.all()
	for _, line := range lines {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") ||
			strings.Contains(line, "DATA RACE") || strings.Contains(line, "a fault of the proxy itself") {
			t.Errorf("the program said: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("the last lines of its log:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

// exits waits for the program to end and returns its exit code and all it said.
func (s *paperServer) exits(t *testing.T) (int, string) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(paperPatience):
		_ = s.cmd.Process.Kill()
		<-s.done
		t.Fatal("the program does not end")
	}
	said := append(s.stdout.all(), s.stderr.all()...)
	return s.cmd.ProcessState.ExitCode(), strings.Join(said, "\n")
}

// addr is where the first listener listens.
func (s *paperServer) addr() netip.AddrPort { return s.addrs[0] }

// descriptors counts what the program holds open.
func (s *paperServer) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// paperSession is what one line of the session log says.
type paperSession struct {
	Msg, Listener, Client, User, Proof, Protocol, Command, Target, Primary, Address, Rule, Reason string
	Up, Down                                                                                      int64
	HTTP                                                                                          int
}

// session waits for the line that records the client's session.
func (s *paperServer) session(t *testing.T, c *paperConn) paperSession {
	t.Helper()
	found := s.stderr.until(t, s.done, "the session of "+c.local, func(line string) bool {
		r, ok := paperRecord(line)
		return ok && r.Client == c.local
	})
	r, _ := paperRecord(found)
	return r
}

// ended waits for the record of the client's session and checks its reason.
func (s *paperServer) ended(t *testing.T, c *paperConn, reason string) {
	t.Helper()
	if got := s.session(t, c).Reason; got != reason {
		t.Errorf("the log's reason is %q, want %q", got, reason)
	}
}

func paperRecord(line string) (paperSession, bool) {
	var r paperSession
	err := json.Unmarshal([]byte(line), &r)
	return r, err == nil && r.Msg == "session"
}

// paperLines collects what a program writes, line by line.
type paperLines struct {
	mu      sync.Mutex
	lines   []string
	rest    []byte
	changed chan struct{}
}

func (l *paperLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := strings.Cut(string(l.rest), "\n")
		if !ok {
			break
		}
		l.lines, l.rest = append(l.lines, line), []byte(rest)
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(p), nil
}

func (l *paperLines) all() []string {
	lines, _ := l.watch()
	return lines
}

// watch returns the lines so far, and a channel that is closed when more come.
func (l *paperLines) watch() ([]string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.lines[:len(l.lines):len(l.lines)], l.changed
}

// until waits for a line that matches, and returns it.
func (l *paperLines) until(t *testing.T, done <-chan struct{}, what string, match func(string) bool) string {
	t.Helper()
	limit := time.After(paperPatience)
	for seen, last := 0, false; ; {
		lines, changed := l.watch()
		for ; seen < len(lines); seen++ {
			if match(lines[seen]) {
				return lines[seen]
			}
		}
		if last {
			t.Fatalf("the program ended without %s", what)
		}
		select {
		case <-changed:
		case <-done:
			last = true
		case <-limit:
			t.Fatalf("no sign of %s", what)
		}
	}
}

// paperEventually asks again and again until ok says yes.
func paperEventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(paperPatience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// paperSlow skips a test that needs root, a low port or some seconds.
func paperSlow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not under -short")
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root, or leave it out with -short")
	}
}
