//go:build linux || darwin || freebsd

package handover

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// TestSorted: sockets are told apart from what is none, each is taken once, and
// those that nobody takes are named and closed.
func TestSorted(t *testing.T) {
	l, other := listen(t), listen(t)
	var files []*os.File
	for name, socket := range map[string]syscall.Conn{"lan": l, "other": other} {
		f, err := duplicate(socket, name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	in := sorted(append(files, null), false)
	lan := func(s Socket) bool { return s.Name == "lan" }
	taken := in.Take(lan)
	if !taken.IsOpen() || taken.Addr().String() != l.Addr().String() {
		t.Fatalf("%v, want the socket at %v", taken, l.Addr())
	}
	defer taken.Close()
	if again := in.Take(lan); again.IsOpen() {
		t.Error("it is there twice")
	}
	left := in.Close()
	if want := []string{os.DevNull, "other (" + other.Addr().String() + ")"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	other.Close()
	if c, err := net.Dial("tcp", other.Addr().String()); err == nil {
		c.Close()
		t.Error("a socket that nobody has taken is still open")
	}
	if in.Log() != nil || in.Predecessor != nil {
		t.Error("there was no process before")
	}
}

// TestNothing: a process that was given nothing.
func TestNothing(t *testing.T) {
	var in *Inherited
	if in.Take(func(Socket) bool { return true }).IsOpen() || in.Close() != nil || in.Log() != nil {
		t.Error("something was given")
	}
	var p *Predecessor
	if err := p.Ready(); err != nil {
		t.Error(err)
	}
	p.Reload()
	p.Close()
	if err := (&Predecessor{}).Ready(); !errors.Is(err, errNoLink) {
		t.Errorf("%v, want that there is no link", err)
	}
}

// TestDuplicateDoesNotBlock: a socket that was handed over can still be closed while
// somebody waits for a client.
func TestDuplicateDoesNotBlock(t *testing.T) {
	l := listen(t)
	f, err := duplicate(l, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = f.Fd() // as starting a process does
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// script is a program that does what is written.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestStart: what a program is given, and how one that speaks as it should takes over.
func TestStart(t *testing.T) {
	l := listen(t)
	t.Setenv("WATCHDOG_PID", "1")
	t.Setenv("LISTEN_PID", "1")
	// @up is the fourth, @down the fifth of: lan, @up, @down, @log.
	s, err := Start(t.Context(), script(t, `
		env >&2
		exec 2>&6
		echo ready >&4
		read word <&5
		[ "$word" = go ] && echo reload >&4
	`), []Handed{{"lan", l}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, want := range []string{"LISTEN_FDS=4", "LISTEN_FDNAMES=lan:@up:@down:@log", upgradeEnv + "="} {
		if !strings.Contains(s.Said, want) {
			t.Errorf("the program's environment has no %q:\n%s", want, s.Said)
		}
	}
	for _, bad := range []string{"WATCHDOG_PID", "LISTEN_PID"} {
		if strings.Contains(s.Said, bad) {
			t.Errorf("the program's environment has %s", bad)
		}
	}
	if err := s.Go(); err != nil {
		t.Error(err)
	}
	if _, more := <-s.Reloads(); !more {
		t.Error("it ended without a word")
	}
	if _, more := <-s.Reloads(); more {
		t.Error("it has ended, and says more")
	}
}

// TestStartFails: the error is the program's own.
func TestStartFails(t *testing.T) {
	why := errors.New("time is up")
	hangs, cancel := context.WithCancelCause(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	if err := exec.CommandContext(t.Context(), "mkfifo", started).Run(); err != nil {
		t.Fatal(err)
	}
	go func() {
		if f, err := os.Open(started); err == nil { // when the program has begun
			f.Close()
		}
		cancel(why)
	}()
	for name, test := range map[string]struct {
		text string
		want string
	}{
		"ends":         {"echo no; echo why >&2; exit 3", "the new process ended: exit status 3; it said:\nwhy"},
		"says nothing": {"", "the new process ended at once; it said nothing"},
		"other words":  {"echo steady >&3; exit 0", "the new process ended at once; it said nothing"},
		"hangs":        {"echo wait >&2; echo >" + started + "; exec sleep 1000", "time is up; it said:\nwait"},
		"talks":        {"yes | head -c 100000 >&2; echo end >&2; exit 1", "y\ny\nend"},
	} {
		ctx := t.Context()
		if name == "hangs" {
			ctx = hangs
		}
		_, err := Start(ctx, script(t, test.text), nil, nil)
		if f, ok := errors.AsType[*Failed](err); !ok || !strings.Contains(f.Error(), test.want) || len(f.Said) > tailSize {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if name == "hangs" && !errors.Is(err, why) {
			t.Errorf("%v, want the cause", err)
		}
	}
	if _, err := Start(t.Context(), filepath.Join(t.TempDir(), "none"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a program: %v", err)
	}
}

// TestEscape: no name of a listener breaks a list of names, or is one of ours.
func TestEscape(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"lan", "127.0.0.1:1080", "a b", "@up", "x\ny", "ä", "", "%40up"} {
		e := Escape(name)
		if strings.ContainsAny(e, ":@\n") || seen[e] {
			t.Errorf("%q becomes %q", name, e)
		}
		seen[e] = true
	}
}
