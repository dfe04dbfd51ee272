package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/intercept"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

func newRun() *cobra.Command {
	var proxy string
	cmd := &cobra.Command{
		Use:   "run -- COMMAND [ARGUMENT ...]",
		Short: "Run a command whose connections go through a proxy",
		Long: "Run a command whose connections go through a proxy, unaware of it.\n\n" +
			"On Linux all TCP connections of the command and of whatever it starts go through the\n" +
			"proxy, static programs' too, and the proxy looks names up. This machine itself is\n" +
			"reached as ever; datagrams to others are refused. It needs no privileges, and\n" +
			"programs gain none by being run: sudo and other setuid programs do not work below\n" +
			"it. When the command ends, what it leaves in the background has no network.\n\n" +
			"http_proxy, https_proxy and all_proxy are set, too, in lower and in upper case, for\n" +
			"whatever heeds them (curl, git, apt, pip, npm, Go, ...). Where the system cannot lead\n" +
			"the others (not Linux 5.19, or a container that forbids it), a line says so, and they\n" +
			"go past the proxy. The variables name a port of this machine that is there for as\n" +
			"long as the command runs and for nobody else, and sends everything on to the proxy.\n\n" +
			"So the proxy may be of any kind, SOCKS 4 or a chain too, and its password is not among\n" +
			"what the command sees. NO_PROXY stays as it is, for what heeds it. With socks4 and\n" +
			"socks5 host names are looked up here, with all others by the proxy.\n\n" +
			"The exit code is the command's own; 126 and 127 say that it could not be started or\n" +
			"found, 128 and more which signal has ended it. HUP, INT, QUIT, TERM, USR1 and USR2 are\n" +
			"passed on to it.",
		Example: "  sallyport run --proxy socks4a://gw:1080 -- git clone https://example.com/some.git\n" +
			"  sallyport run --proxy socks5h://gw:1080 -- ssh build.example.com\n" +
			"  ALL_PROXY=https://alice:secret@gw:443 sallyport run -- apt-get update",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, command []string) error {
			if _, err := dialer(proxy); err != nil {
				return err
			}
			proxy, err := proxyOf(proxy)
			if err != nil {
				return err
			}
			return runThrough(cmd.Context(), proxy, command, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	proxyFlag(cmd, &proxy)
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	return cmd
}

// ended is the exit code of a command that was run, or that could not be.
type ended struct {
	code  int
	cause error // nil: the command has said itself what there is to say
}

func (e ended) Error() string { return e.cause.Error() }

// runThrough runs a command beside a proxy for it.
func runThrough(ctx context.Context, proxy string, command []string, in io.Reader, out, errs io.Writer) error {
	c, err := daemon.OpenCompanion(ctx, proxy)
	if err != nil {
		return err
	}
	serve, end := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer end()
	serving.Go(func() { c.Serve(serve) })
	program := exec.CommandContext(ctx, command[0], command[1:]...)
	program.Stdin, program.Stdout, program.Stderr = in, out, errs
	program.Env = proxied(os.Environ(), c)
	start := program.Start
	if i, err := intercept.Open(ctx, telling(c.Connect, errs)); err == nil {
		serving.Go(func() { i.Serve(serve) })
		start = func() error { return i.Start(program) }
		program.Env = append(program.Env, intercept.Environment()...)
	} else {
		fmt.Fprintf(errs, "sallyport: only what heeds http_proxy or all_proxy goes through the proxy, all else past it: %v\n", err)
	}
	signals := make(chan os.Signal, 4)
	for _, s := range passedOn() {
		if !signal.Ignored(s) { // as nohup has it, and shells for what they have in the background: the command is to ignore it, too
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	switch err := start(); {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return ended{127, err}
	case err != nil:
		return ended{126, err}
	}
	err = wait(program, signals)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return ended{code: codeOf(exit.ProcessState)}
	}
	return err
}

// telling says once why the proxy does not serve: programs have but an errno for it.
func telling(dial intercept.Dial, errs io.Writer) intercept.Dial {
	var told sync.Once
	return func(ctx context.Context, target socks.Addr) (net.Conn, error) {
		conn, err := dial(ctx, target)
		if err != nil && ctx.Err() == nil && server.ReasonOf(err) == server.UpstreamFailed {
			told.Do(func() { fmt.Fprintln(errs, "sallyport:", err) })
		}
		return conn, err
	}
}

// wait returns when the command has ended, and has it get the signals that are meant for it.
func wait(program *exec.Cmd, signals <-chan os.Signal) error {
	done := make(chan error, 1)
	go func() { done <- program.Wait() }()
	for {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			if !isFromTerminal(s) {
				_ = program.Process.Signal(s) // it may have ended by itself
			}
		}
	}
}

// codeOf is the exit code by which a shell would tell how a process ended.
func codeOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signal() > 0 {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// proxied is an environment with the proxy in it, in the place of any other.
func proxied(environment []string, c *daemon.Companion) []string {
	of := map[string]string{"http_proxy": c.URL("http"), "https_proxy": c.URL("http"), "all_proxy": c.URL("socks5h"), "ftp_proxy": ""}
	kept := slices.DeleteFunc(environment, func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		_, ours := of[strings.ToLower(name)]
		return ours
	})
	for name, value := range of {
		if value != "" { // an FTP client is to take the last of them
			kept = append(kept, name+"="+value, strings.ToUpper(name)+"="+value)
		}
	}
	return kept
}
