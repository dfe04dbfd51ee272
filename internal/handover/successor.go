package handover

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Handed is a socket to hand over. Whoever closes it here does not close it there.
type Handed struct {
	Name   string // without colons
	Socket syscall.Conn
}

// Failed says why a new process did not take over. It has been ended.
type Failed struct {
	Why  error
	Said string // on its standard error, the last of it; may be empty
}

// Error returns all of it, of one or more lines.
func (f *Failed) Error() string {
	if f.Said == "" {
		return f.Why.Error() + "; it said nothing"
	}
	return f.Why.Error() + "; it said:\n" + f.Said
}

// Unwrap returns why.
func (f *Failed) Unwrap() error { return f.Why }

// Program returns the path of the running program as it was called, which is what
// leads to the next version of it when that has been put in its place: a link is not
// followed. It is to be asked before the working folder changes.
func Program() (string, error) {
	called := os.Args[0]
	if !strings.ContainsRune(called, filepath.Separator) {
		found, err := exec.LookPath(called)
		if err != nil {
			return os.Executable()
		}
		called = found
	}
	path, err := filepath.Abs(called)
	if err != nil {
		return os.Executable()
	}
	if _, err := os.Stat(path); err != nil {
		return os.Executable()
	}
	return path, nil
}

// Successor is the process that has taken over. Close must be called.
type Successor struct {
	PID  int
	Said string // on standard error before it took over

	process  *os.Process
	up, down *os.File
	reloads  chan struct{} // closed when it says no more
}

// Start starts the program with the arguments of this process, hands it the
// sockets and waits until it serves. Where it does not, be it that ctx ends first,
// it is killed, and the error is a [*Failed]. before is the predecessor of this
// process (nil: none), which the new one will tell when settings are read anew.
func Start(ctx context.Context, program string, sockets []Handed, before *Predecessor) (*Successor, error) {
	var give parcel
	defer give.close()
	if err := give.sockets(sockets); err != nil {
		return nil, err
	}
	up, err := give.pipe(upName, false)
	if err != nil {
		return nil, err
	}
	down, err := give.pipe(downName, true)
	if err != nil {
		up.Close()
		return nil, err
	}
	for _, earlier := range before.all() {
		give.add(earlierName, earlier, false)
	}
	give.add(logName, os.Stderr, false)
	heard, stderr, err := os.Pipe()
	if err != nil {
		up.Close()
		down.Close()
		return nil, err
	}
	give.owned = append(give.owned, stderr)

	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.Env = os.Stdout, stderr, give.files, environment(give.names)
	if err := cmd.Start(); err != nil {
		for _, f := range []*os.File{up, down, heard} {
			f.Close()
		}
		return nil, fmt.Errorf("the new process cannot be started: %w", err)
	}
	give.close() // or nobody would see that the other ends are closed
	s := &Successor{PID: cmd.Process.Pid, process: cmd.Process, up: up, down: down, reloads: make(chan struct{}, 1)}
	return s.await(ctx, cmd, heard)
}

// await waits until the process serves.
func (s *Successor) await(ctx context.Context, cmd *exec.Cmd, heard *os.File) (*Successor, error) {
	var said tail
	silent := make(chan struct{})
	go func() {
		defer close(silent)
		_, _ = io.Copy(&said, heard) // until the process has ended, or writes elsewhere
	}()
	ready := make(chan struct{})
	go s.listen(ready)
	ended := make(chan struct{})
	var how, why error
	go func() { // ends with the process, or with this one
		defer close(ended)
		how = cmd.Wait()
	}()
	select {
	case <-ready:
	case <-ended:
		why = errors.New("the new process ended at once")
		if how != nil {
			why = fmt.Errorf("the new process ended: %w", how)
		}
	case <-ctx.Done():
		why = context.Cause(ctx)
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	}
	s.Said = said.until(silent, heard)
	if why != nil {
		s.Close()
		return nil, &Failed{Why: why, Said: s.Said}
	}
	return s, nil
}

// listen hears what the process says: that it serves, then at times that the
// settings are to be read anew.
func (s *Successor) listen(ready chan struct{}) {
	defer close(s.reloads)
	lines := bufio.NewScanner(s.up)
	if !lines.Scan() || lines.Text() != sayReady {
		return // that the process ends is seen elsewhere
	}
	close(ready)
	for lines.Scan() {
		if lines.Text() == sayReload {
			select {
			case s.reloads <- struct{}{}:
			default: // one is due already
			}
		}
	}
}

// Reloads has a value when the settings are to be read anew, and is closed when
// the process has ended, or Close was called.
func (s *Successor) Reloads() <-chan struct{} { return s.reloads }

// Go tells the process that nobody else accepts any more.
func (s *Successor) Go() error {
	_, err := s.down.WriteString(sayGo + "\n")
	return err
}

// Kill ends a process that is not to take over after all.
func (s *Successor) Kill() {
	defer s.Close()
	_ = s.process.Kill() // it may have ended
}

// Hangup has the process read its settings anew. The error is that it has ended, or that
// this system has no such signal.
func (s *Successor) Hangup() error { return s.process.Signal(syscall.SIGHUP) }

// Close closes what leads to the process, which goes on.
func (s *Successor) Close() {
	s.up.Close()
	s.down.Close()
}

// parcel is what a process is given: files, and their names.
type parcel struct {
	files []*os.File
	names []string
	owned []*os.File // to be closed here
}

func (g *parcel) add(name string, f *os.File, own bool) {
	g.files, g.names = append(g.files, f), append(g.names, name)
	if own {
		g.owned = append(g.owned, f)
	}
}

func (g *parcel) sockets(all []Handed) error {
	for _, one := range all {
		f, err := duplicate(one.Socket, one.Name)
		if err != nil {
			return fmt.Errorf("the socket %s cannot be handed over: %w", one.Name, err)
		}
		g.add(one.Name, f, true)
	}
	return nil
}

// pipe adds an end of a pipe, and returns the other.
func (g *parcel) pipe(name string, toRead bool) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if toRead {
		g.add(name, r, true)
		return w, nil
	}
	g.add(name, w, true)
	return r, nil
}

func (g *parcel) close() {
	for _, f := range g.owned {
		f.Close()
	}
	g.owned = nil
}

// tailSize is how much of what a process says is kept, in bytes.
const tailSize = 16 << 10

// tail keeps the last bytes that were written to it.
type tail struct {
	mu   sync.Mutex
	last []byte
}

// Write implements [io.Writer].
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(b), nil
}

// until waits for the last word, for a moment: a child of the process may hold the
// pipe open. It closes from.
func (t *tail) until(silent <-chan struct{}, from *os.File) string {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-silent:
	case <-timer.C:
	}
	from.Close()
	<-silent
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimRight(string(t.last), "\n")
}
