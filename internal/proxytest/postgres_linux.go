package proxytest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// endWithUs has the process end when that of the test does, however it does.
func endWithUs(how *syscall.SysProcAttr) { how.Pdeathsig = syscall.SIGQUIT }

// CPU returns how much processor time the server has used, with all its processes.
func (p *Postgres) CPU(tb testing.TB) time.Duration {
	tb.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		tb.Fatal(err)
	}
	own := strconv.Itoa(p.process.Pid)
	var ticks int64
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, rest, _ := strings.Cut(string(text), " ")
		_, rest, _ = strings.Cut(rest, ") ") // the name of the program may hold anything
		// From the third field on: state, parent, ...; 14 to 17 are the times, of itself and of children that have ended.
		fields := strings.Fields(rest)
		if pid != own && fields[1] != own {
			continue
		}
		for _, field := range fields[11:15] {
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}
