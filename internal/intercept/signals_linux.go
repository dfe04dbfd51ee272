//go:build amd64 || arm64

package intercept

import "golang.org/x/sys/unix"

// The kernel does not let signals interrupt a call that the supervisor has seen, unless
// they kill (see install). But who presses Ctrl-C wants to be heard now, not when the proxy
// has answered. So the supervisor looks for such signals, and gives the call back.

// restart is how a call ends in the kernel that a signal has interrupted: it handles the
// signal, and then makes the call anew, or has it fail with EINTR if that is how the program
// wants it (ERESTARTSYS). A thread for which there is no signal would get to see it.
const restart unix.Errno = 512

// urgent are the signals that ask a program to end or to stop. Others, such as those of
// timers, may come all the time, and nothing would ever get done.
const urgent = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGTERM-1) |
	1<<(unix.SIGSTOP-1) | 1<<(unix.SIGTSTP-1)

// isInterrupted reports whether an urgent signal is there for a thread that waits in a call.
func isInterrupted(thread uint32) bool {
	s, err := statusOf(thread)
	return err == nil && s.isInterrupted()
}

// isInterrupted is that. Signals for a process are there for any of its threads, and the
// kernel has told one: the first, unless that one blocks them.
func (s status) isInterrupted() bool {
	pending := s.set("SigPnd")
	if s.isFirst() {
		pending |= s.set("ShdPnd")
	}
	return pending&^s.set("SigBlk")&^s.set("SigIgn")&urgent != 0
}
