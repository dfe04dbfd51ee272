//go:build !unix

package main

import (
	"os"
	"syscall"

	"github.com/sallyport/sallyport/internal/daemon"
)

// requests is what signals ask a daemon for, besides to end: here there are none.
func requests(*daemon.Daemon) map[os.Signal]func() { return nil }

// held are those that wait for the daemon to be there: SIGHUP does not come here.
func held() []os.Signal { return []os.Signal{syscall.SIGHUP} }

// passedOn are the signals that a command gets from this process.
func passedOn() []os.Signal { return []os.Signal{os.Interrupt} }

// isFromTerminal reports whether the command has a signal already, as it always has here.
func isFromTerminal(os.Signal) bool { return true }
