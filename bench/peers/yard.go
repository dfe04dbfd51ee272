//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/bench/load"
)

// yard is where the proxies stand: a folder with what they need, and their processes.
type yard struct {
	dir        string
	credential *syscall.Credential // of the proxies; nil: our own
	processes  []*exec.Cmd
}

// runner is a proxy that runs.
type runner struct {
	name      string
	protocols []load.Protocol // the first is what it speaks if it does not matter
	datagrams bool
	address   netip.AddrPort
	process   *load.Process
	args      []string
	log       string // what it says to standard error since it was restarted
}

func newYard(name string) (*yard, error) {
	dir, err := os.MkdirTemp("", "bench-peers-")
	if err != nil {
		return nil, err
	}
	y := &yard{dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil { // another user is to run what is in it
		return nil, err
	}
	if name == "" {
		return y, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	y.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return y, errors.Join(uidErr, gidErr)
}

// clear ends the processes and removes the folder.
func (y *yard) clear() {
	for _, cmd := range y.processes {
		end(cmd)
	}
	_ = os.RemoveAll(y.dir)
}

// file writes a file for a proxy, and returns its name.
func (y *yard) file(name, text string) (string, error) {
	path := filepath.Join(y.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// launch starts a process that y ends. With a log, its standard error goes there; if it is in Go, its runtime's traces of
// collections do, too.
func (y *yard) launch(ctx context.Context, credential *syscall.Credential, args []string, log *os.File) (*exec.Cmd, io.ReadCloser, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = y.dir
	if log != nil {
		cmd.Stderr, cmd.Env = log, traced(os.Environ())
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	y.processes = append(y.processes, cmd)
	return cmd, out, nil
}

// start starts the proxies that o wants. One that is not to be had is said and left out, unless it is one of ours.
func (y *yard) start(ctx context.Context, o options, target netip.AddrPort, progress io.Writer) ([]*runner, error) {
	builds, err := o.builds()
	if err != nil {
		return nil, err
	}
	var runners []*runner
	for _, c := range slices.Concat(o.contenders(), builds) {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), c.name) || y.credential != nil && !c.anybody {
			continue
		}
		rn, err := y.startOne(ctx, c, target)
		switch {
		case err == nil:
			runners = append(runners, rn)
		case c.ours:
			return nil, fmt.Errorf("%s: %w", c.name, err)
		default:
			fmt.Fprintf(progress, "%s is left out: %v\n", c.name, err)
		}
	}
	if len(runners) == 0 {
		return nil, errors.New("no proxy to measure")
	}
	return runners, nil
}

func (y *yard) startOne(ctx context.Context, c contender, target netip.AddrPort) (*runner, error) {
	rn := &runner{name: c.name, protocols: c.protocols, datagrams: c.datagrams, address: target}
	if c.command == nil {
		return rn, nil
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	rn.address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	rn.args, err = c.command(ctx, y, rn.address, target)
	if err != nil {
		return nil, err
	}
	return rn, y.run(ctx, rn, nil)
}

// run launches rn's process, and returns when it listens.
func (y *yard) run(ctx context.Context, rn *runner, log *os.File) error {
	cmd, _, err := y.launch(ctx, y.credential, rn.args, log)
	if err != nil {
		return err
	}
	rn.process = &load.Process{PID: cmd.Process.Pid}
	return answers(ctx, rn.address)
}

// restart ends rn's process and runs another one at the same address, with a log.
func (y *yard) restart(ctx context.Context, rn *runner) error {
	if rn.process == nil {
		return nil
	}
	y.processes = slices.DeleteFunc(y.processes, func(cmd *exec.Cmd) bool {
		mine := cmd.Process.Pid == rn.process.PID
		if mine {
			end(cmd)
		}
		return mine
	})
	rn.log = filepath.Join(y.dir, rn.name+".log")
	log, err := os.Create(rn.log)
	if err != nil {
		return err
	}
	defer log.Close()
	return y.run(ctx, rn, log)
}

// collections are those that the process of rn has had since it was restarted, after it was left to rest. One whose runtime
// does not tell has none.
func (rn *runner) collections(ctx context.Context) ([]collection, error) {
	if rn.log == "" {
		return nil, nil
	}
	said, err := os.ReadFile(rn.log)
	if err != nil || len(collectionsIn(string(said))) == 0 {
		return nil, err
	}
	select {
	case <-time.After(idleRest):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	said, err = os.ReadFile(rn.log)
	return collectionsIn(string(said)), err
}

// end kills a process with all that descend from it.
func end(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group that it leads
	_ = cmd.Wait()
}

func freePort(ctx context.Context) (uint16, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// answers waits until somebody listens at address.
func answers(ctx context.Context, address netip.AddrPort) error {
	var d net.Dialer
	var last error
	for range 200 {
		conn, err := d.DialContext(ctx, "tcp", address.String())
		if err == nil {
			return conn.Close()
		}
		last = err
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("it does not listen: %w", last)
}

// hogCommand makes this program use up its user's pipe budget.
const hogCommand = "use-up-pipes"

// hog starts it, and returns when it has.
func (y *yard) hog(ctx context.Context) error {
	if y.credential == nil {
		return errors.New("-hog needs -user: root has no pipe budget")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	copied := filepath.Join(y.dir, "hog") // where the other user can run it
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(copied, data, 0o755); err != nil {
		return err
	}
	_, out, err := y.launch(ctx, y.credential, []string{copied, hogCommand}, nil)
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		return fmt.Errorf("the pipes are not used up: %q, %w", line, cmp.Or(err, errors.New("unknown answer")))
	}
	return nil
}

// hog makes pipes of the largest size until there are only small ones, and then holds them until it is killed.
func hog() {
	for {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			break
		}
		if size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, 1<<20); err != nil || size < 1<<20 {
			break
		}
	}
	fmt.Fprintln(os.Stdout, "ready")
	for {
		if err := unix.Pause(); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
