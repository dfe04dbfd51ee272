//go:build unix

package server

import (
	"syscall"
	"testing"
)

// TestBudget leaves room for what a session needs besides its client.
func TestBudget(t *testing.T) {
	budget := connectionBudget()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if budget < 1 || uint64(budget)*2 >= uint64(limit.Cur) && limit.Cur > 16 {
		t.Errorf("%d connections of two descriptors each, with a limit of %d", budget, limit.Cur)
	}
}
