package main_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the program may take to be there, and hold then. The bars are 100 ms on a machine
// at rest, and 25 MB with what of its file the kernel happens to have mapped: those are
// for BenchmarkStart to measure. Here there are fifty times the one, and less than half of
// the other for what is the program's own.
const (
	startBar = 100 * time.Millisecond
	ownBar   = 10.0 // MB
)

const startSettings = `
listeners: {listen: 127.0.0.1:0, protocols: [socks4, socks4a, socks5, http, ssh]}
ssh: {host_key: host_key}
rules: {allow: here, from: loopback, to: any}
ledger: sqlite:ledger.db
admin: {listen: 127.0.0.1:0, socket: admin.sock, file: administrators}
`

// startable is the program as `make build` has it, and settings to start it with.
func startable(tb testing.TB) (program, settings string) {
	tb.Helper()
	dir := tb.TempDir()
	program, settings = filepath.Join(dir, "sallyport"), filepath.Join(dir, "sallyport.yaml")
	build := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.WriteFile(settings, []byte(startSettings), 0o600); err != nil {
		tb.Fatal(err)
	}
	return program, settings
}

// startOnce runs the program until it listens. It returns how long that took, and what
// it holds of memory then, in MB: its own, and with the pages of its file.
func startOnce(tb testing.TB, program, settings string) (took time.Duration, own, all float64) {
	tb.Helper()
	cmd := exec.Command(program, "serve", "--config", settings)
	cmd.Dir = filepath.Dir(settings)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said paperLines
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_, _ = io.Copy(io.Discard, out)         // what it still says
		if err := cmd.Wait(); err != nil {
			tb.Errorf("it ended with %v\n%s", err, strings.Join(said.all(), "\n"))
		}
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening on ") {
	}
	took = time.Since(began)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "RssAnon":
			_, _ = fmt.Sscanf(value, "%f", &kib) // 0 is noticed by who looks
			own = kib * 1024 / 1e6
		case "VmRSS":
			_, _ = fmt.Sscanf(value, "%f", &kib)
			all = kib * 1024 / 1e6
		}
	}
	return took, own, all
}

// TestStart: the program is there soon, and holds little, even with everything on.
func TestStart(t *testing.T) {
	paperSlow(t)
	program, settings := startable(t)
	startOnce(t, program, settings) // makes the host key and the ledger
	took, own, _ := startOnce(t, program, settings)
	if took > 50*startBar {
		t.Errorf("it listens after %v", took)
	}
	if own == 0 || own > ownBar {
		t.Errorf("it holds %.1f MB, want at most %.0f", own, ownBar)
	}
}

// BenchmarkStart measures it: `go test ./cmd/sallyport -run '^$' -bench Start -benchtime 20x`.
func BenchmarkStart(b *testing.B) {
	program, settings := startable(b)
	startOnce(b, program, settings)
	var took time.Duration
	var own, all float64
	for b.Loop() {
		once, a, r := startOnce(b, program, settings)
		took, own, all = took+once, max(own, a), max(all, r)
	}
	info, err := os.Stat(program)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "ms-to-listen")
	b.ReportMetric(own, "MB-own")
	b.ReportMetric(all, "MB-resident")
	b.ReportMetric(float64(info.Size())/1e6, "MB-file")
}
