//go:build darwin || freebsd

package handover

import (
	"os"

	"golang.org/x/sys/unix"
)

// becomeStderr makes f what this process writes its standard error to.
func becomeStderr(f *os.File) error { return unix.Dup2(int(f.Fd()), 2) }

// monotonic is of use to systemd alone.
func monotonic() []string { return nil }
