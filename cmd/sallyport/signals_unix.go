//go:build unix

package main

import (
	"os"
	"syscall"

	"github.com/sallyport/sallyport/internal/daemon"
)

// requests is what signals ask a daemon for, besides to end.
func requests(d *daemon.Daemon) map[os.Signal]func() {
	return map[os.Signal]func(){
		syscall.SIGHUP:  d.Hangup,
		syscall.SIGQUIT: d.LogGoroutines,
		syscall.SIGUSR1: d.ReopenLogs,
		syscall.SIGUSR2: d.UpgradeBySignal,
	}
}
