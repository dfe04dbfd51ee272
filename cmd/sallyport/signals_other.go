//go:build !unix

package main

import (
	"os"

	"github.com/sallyport/sallyport/internal/daemon"
)

// requests is what signals ask a daemon for, besides to end: here there are none.
func requests(*daemon.Daemon) map[os.Signal]func() { return nil }
