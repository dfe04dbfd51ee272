package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/daemon"
)

func TestMain(m *testing.M) {
	// Servers of tests keep no ledger where this machine's own is; tests of it name theirs.
	if os.Getenv("STATE_DIRECTORY") == "" {
		os.Setenv("STATE_DIRECTORY", os.DevNull)
	}
	testscript.Main(m, map[string]func(){"sallyport": main})
}

// TestScripts runs the command line as a person would: testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE COMMAND ... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// TestServedScripts does the same beside a running server: $SOCKET is its socket, $PROXY
// where it listens, $SESSION the number of a session of alice, which the command `ends`
// waits for the end of, and $WEB a target.
func TestServedScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Debian's curl")
	}
	var mu sync.Mutex
	ends := map[string]net.Conn{}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/served",
		Setup: func(e *testscript.Env) error {
			socket, proxy, alice := topServed(t)
			watch, err := daemon.Remote{Socket: socket}.Watch(t.Context())
			if err != nil {
				return err
			}
			page, err := watch.Sessions(t.Context(), daemon.LiveQuery{})
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			ends[socket] = alice
			e.Setenv("SOCKET", socket)
			e.Setenv("PROXY", proxy)
			e.Setenv("SESSION", strconv.FormatUint(page.Sessions[0].ID, 10))
			e.Setenv("WEB", webPage(t))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "ends": func(ts *testscript.TestScript, _ bool, _ []string) {
			mu.Lock()
			alice := ends[ts.Getenv("SOCKET")]
			mu.Unlock()
			_, _ = io.Copy(io.Discard, alice)
		}},
	})
}

// webPage is where a server has the page "the page", and answers what is no HTTP with
// the line that it got.
func webPage(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				line, _ := bufio.NewReader(c).ReadString('\n')
				if strings.Contains(line, "HTTP/1") {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nthe page\n")
					return
				}
				_, _ = io.WriteString(c, "gopher: GET\r\n")
			}()
		}
	}()
	return l.Addr().String()
}
