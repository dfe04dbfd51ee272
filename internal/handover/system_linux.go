package handover

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// becomeStderr makes f what this process writes its standard error to.
func becomeStderr(f *os.File) error { return unix.Dup3(int(f.Fd()), 2, 0) }

// monotonic is the line that systemd wants with RELOADING=1, to tell an answer to
// its own signal from others.
func monotonic() []string {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return nil
	}
	return []string{fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)}
}
