//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

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

// held are those of them that wait for the daemon to be there: reading long lists takes its
// time, and they would end the process.
func held() []os.Signal { return []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} }

// passedOn are the signals that a command gets from this process, as it would if it had
// been started without.
func passedOn() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}
}

// isFromTerminal reports whether what a command has been started by has a signal from the
// keyboard, which the terminal has sent to both. Who has no terminal, or works in its
// background, has it from somebody else.
func isFromTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	terminal, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer terminal.Close()
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
