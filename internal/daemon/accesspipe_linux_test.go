package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestAccessLogIsAPipe: one that nobody reads is refused at once, at start and by a reload;
// one whose reader stalls holds up neither reloads nor USR1 nor the end, and what he reads
// later has whole lines.
func TestAccessLogIsAPipe(t *testing.T) {
	if testing.Short() {
		t.Skip("the end of a log whose reader stalls takes two seconds")
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	const rest = "rules: {allow: all, to: any}\n"
	good := oneListener + rest
	s := serveIn(t, good)
	s.refuses(good+"log: {access: "+pipe+"}\n", "nobody reads the pipe")
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s.reloads(good + "log: {access: " + pipe + "}\n")
	line := append(bytes.Repeat([]byte("x"), 999), '\n')
	for range 200 {
		_, _ = s.access.now.queue.Write(line) // it never fails
	}
	stalled(t, reader)
	s.reloads(good + "log: {access: " + pipe + ", access_size: 1 GiB}\n") // it does not touch the file
	s.ReopenLogs()
	proxytest.Eventually(t, "the access log was begun anew", func() bool { return strings.Contains(s.said.String(), "the access log was begun anew") })
	stalled(t, reader)
	s.end()
	for _, one := range strings.SplitAfter(readAvailable(t, reader), "\n") {
		if len(one) > len(line) || strings.Trim(one, "x\n") != "" {
			t.Fatalf("a line of %d bytes: %.20q", len(one), one)
		}
	}
}

// TestOpenAccessLogThatNobodyReads at start.
func TestOpenAccessLogThatNobodyReads(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAccess(config.Log{Access: pipe, AccessFormat: "json"}, nil); err == nil || !strings.Contains(err.Error(), "nobody reads the pipe") {
		t.Errorf("it says %v", err)
	}
}

// stalled returns when the pipe is full, and its writer waits.
func stalled(t *testing.T, pipe *os.File) {
	t.Helper()
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Eventually(t, "the pipe is full", func() bool {
		n := 0
		_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		return err == nil && n > 60_000
	})
}

// readAvailable returns what is in the pipe, to which nobody writes any more.
func readAvailable(t *testing.T, pipe *os.File) string {
	t.Helper()
	var all bytes.Buffer
	if _, err := all.ReadFrom(pipe); err != nil && !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	return all.String()
}
