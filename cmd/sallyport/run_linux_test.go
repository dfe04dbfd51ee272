package main_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns a terminal's two ends: the keyboard and screen, and what programs have.
func openTerminal(t *testing.T) (screen, line *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	return screen, line
}

// TestRunOnATerminal presses Ctrl-C: the command hears of it once, as it is of the
// terminal's foreground itself, and Ctrl-\ likewise.
func TestRunOnATerminal(t *testing.T) {
	paperSlow(t)
	// What is passed on behind a signal would come after it.
	const python = `import os, signal, time
heard, told = [], 0
def tell(*_):
    global told
    told += 1
    print("heard", *heard, flush=True)
def hear(number, _):
    heard.append(signal.Signals(number).name)
    os.kill(os.getppid(), signal.SIGUSR1)
signal.signal(signal.SIGINT, hear)
signal.signal(signal.SIGQUIT, hear)
signal.signal(signal.SIGUSR1, tell)
print("ready", flush=True)
while told < 2: time.sleep(0.05)
`
	screen, line := openTerminal(t)
	ctx, cancel := context.WithTimeout(t.Context(), paperPatience)
	defer cancel()
	command := unaware(t, "socks5h://127.0.0.1:1", "/usr/bin/python3", "-c", python)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = line, line, line
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // it has ended
	context.AfterFunc(ctx, func() { screen.Close() })
	said := bufio.NewScanner(screen)
	for _, step := range []struct{ want, press string }{{"ready", "\x03"}, {"heard SIGINT", "\x1c"}, {"heard SIGINT SIGQUIT", ""}} {
		for said.Scan() && !strings.HasSuffix(said.Text(), step.want) {
			if strings.Contains(said.Text(), "heard") {
				t.Errorf("it says %q, want %q", said.Text(), step.want)
			}
		}
		if _, err := screen.WriteString(step.press); err != nil {
			t.Fatalf("before %q: %v", step.want, err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
