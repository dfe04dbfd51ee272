//go:build unix

package server

import (
	"syscall"

	"github.com/sallyport/sallyport/internal/relay"
)

// connectionBudget returns how many client connections the process has
// descriptors for: two each (the client's and the target's, or BIND's socket),
// a reserve for listeners, logs, IDENT and look-ups, and what relays take besides.
func connectionBudget() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return unlimitedConnections
	}
	files := int(min(uint64(limit.Cur), 2*unlimitedConnections))
	reserve := min(128, 16+files/16)
	return max(1, (files-reserve-relay.Descriptors())/2)
}
