//go:build unix

package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// starvingEnv makes the test binary a server with few descriptors. Its value
// says what is to hold back accepting: the system, or the server's own limit.
const starvingEnv = "SALLYPORT_TEST_STARVE"

const (
	bySystem = "system"
	byLimit  = "limit"
)

// starve is the child: it prints where it listens, then its log, and ends with
// its standard input.
func starve(mode string) int {
	few := syscall.Rlimit{Cur: 96, Max: 96}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	socket, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, socket.Addr())
	s := &Server{
		Policy:   deciding(anything),
		Log:      slog.New(slog.NewTextHandler(os.Stdout, nil)),
		Timeouts: Timeouts{Handshake: time.Minute},
	}
	if mode == bySystem {
		s.Limits = Limits{Connections: 1 << 20} // more than there are descriptors
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent is done, or gone
		s.Close()
	}()
	_ = s.Serve(context.Background(), socket, Listener{}) // until Close
	return 0
}

// starving is such a child, seen by its parent.
type starving struct {
	address string
	lines   chan string // of its log; closed at its end
	end     func()
}

func startStarving(t *testing.T, mode string) *starving {
	t.Helper()
	child := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0]) // what ends it is its standard input
	child.Env = append(os.Environ(), starvingEnv+"="+mode)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	s := &starving{lines: make(chan string, 1000), end: func() { in.Close() }}
	go func() {
		defer close(s.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		for range s.lines { // until its end
		}
		if err := child.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	s.address = <-s.lines
	return s
}

// says waits for a line with some words, and returns it with those before it.
func (s *starving) says(t *testing.T, words string) (lines []string) {
	t.Helper()
	for limit := time.After(time.Minute); ; {
		select {
		case line, more := <-s.lines:
			lines = append(lines, line)
			if strings.Contains(line, words) {
				return lines
			}
			if more {
				continue
			}
		case <-limit:
		}
		t.Fatalf("the log does not say %q: %q", words, lines)
	}
}

// session opens one to an echo, which works.
func (s *starving) session(t *testing.T, echo netip.AddrPort) *net.TCPConn {
	t.Helper()
	c := proxytest.Dial(t, s.address)
	proxytest.Say(t, c, proxytest.Connect4(echo, "bob"))
	proxytest.Granted4(t, c)
	talk(t, c)
	return c
}

func talk(t *testing.T, c io.ReadWriter) {
	t.Helper()
	proxytest.Say(t, c, []byte("are you there?"))
	proxytest.Hear(t, c, "are you there?")
}

// TestOutOfDescriptors: the system refuses to accept. The server says so once,
// serves who is there, and goes on when there are descriptors again.
func TestOutOfDescriptors(t *testing.T) {
	s, echo := startStarving(t, bySystem), proxytest.Echo(t, "127.0.0.1")
	live := s.session(t, echo)
	var halfOpen []net.Conn
	for range 150 {
		halfOpen = append(halfOpen, proxytest.Dial(t, s.address))
	}
	if lines := s.says(t, "cannot accept"); len(lines) != 1 {
		t.Errorf("the log says %q", lines)
	}
	for range 50 {
		talk(t, live)
	}
	if n := len(s.lines); n > 0 {
		t.Errorf("%d more lines", n)
	}
	for _, c := range halfOpen {
		c.Close()
	}
	s.says(t, "accepting connections again")
	s.session(t, echo)
	talk(t, live)
	s.end()
	for line := range s.lines {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
			t.Errorf("the log says %q", line)
		}
	}
}

// TestDescriptorReserve: by its own limit the server stops accepting before the
// descriptors are used up, so that every session that was let in can be served.
func TestDescriptorReserve(t *testing.T) {
	s, echo := startStarving(t, byLimit), proxytest.Echo(t, "127.0.0.1")
	request := proxytest.Connect4(echo, "bob")
	var sessions, waiting []*net.TCPConn
	var reply <-chan error
	for len(waiting) == 0 {
		c := proxytest.Dial(t, s.address)
		proxytest.Say(t, c, request)
		reply = answered(c)
		select {
		case err := <-reply:
			if err != nil {
				t.Fatalf("session %d: %v", len(sessions), err)
			}
			talk(t, c)
			sessions = append(sessions, c)
		case line := <-s.lines: // this one may have come just before, or just after
			if !strings.Contains(line, "accepting pauses") {
				t.Fatalf("the log says %q", line)
			}
			waiting = append(waiting, c, proxytest.Dial(t, s.address))
			proxytest.Say(t, waiting[1], request)
		}
	}
	if len(sessions) < 20 || len(sessions) > 48 {
		t.Errorf("it pauses after %d sessions, of which each needs 2 of 96 descriptors", len(sessions))
	}
	for _, c := range sessions {
		talk(t, c)
	}
	for _, c := range sessions[:len(sessions)-5] {
		c.Close()
	}
	if err := <-reply; err != nil {
		t.Fatal(err)
	}
	talk(t, waiting[0])
	proxytest.Granted4(t, waiting[1])
	talk(t, waiting[1])
	s.session(t, echo)
	s.says(t, "accepting connections again")
	for _, c := range sessions[len(sessions)-5:] {
		talk(t, c)
	}
}

// answered reads a reply that must be 90, beside the caller.
func answered(c net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() {
		var reply [8]byte
		_, err := io.ReadFull(c, reply[:])
		if err == nil && reply[1] != byte(socks.Granted4) {
			err = fmt.Errorf("reply %d", reply[1])
		}
		done <- err
	}()
	return done
}
