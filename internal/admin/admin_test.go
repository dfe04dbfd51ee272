//go:build unix

package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fake is a Daemon that answers with what it holds.
type fake struct {
	err    error
	status Status
	quotas Quotas
	grant  Grant // the last one
	rate   Rate  // likewise
}

func (f *fake) Reload(context.Context) error { return f.err }
func (f *fake) Status() Status               { return f.status }

func (f *fake) Upgrade(context.Context) (Upgrade, error) {
	return Upgrade{Before: 1, PID: 2, Sessions: 3}, f.err
}

// socketIn is the name of a socket in a folder of the test's own, short enough
// for its address.
func socketIn(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "run", "admin.sock")
}

func mustListen(t *testing.T, path string) *Socket {
	t.Helper()
	l, err := Listen(t.Context(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAPI(t *testing.T) {
	path := socketIn(t)
	d := &fake{status: Status{
		Version: "1", Started: time.Now().UTC().Round(0), Sessions: 3,
		Listeners: []Listener{{"lan", "127.0.0.1:1080", []string{"socks4"}}},
		Reload:    &Reload{At: time.Now().UTC().Round(0), Faults: "a: b"},
	}}
	ctx, stop := context.WithCancel(t.Context())
	l := mustListen(t, path)
	var served sync.WaitGroup
	served.Go(func() { Serve(ctx, l, (&Panel{Daemon: d}).Here(), slog.New(slog.DiscardHandler)) })
	c := Client{Socket: path}
	if s, err := c.Status(t.Context()); err != nil || !reflect.DeepEqual(s, d.status) {
		t.Errorf("status: %+v, %v; want %+v", s, err, d.status)
	}
	if err := c.Reload(t.Context()); err != nil {
		t.Errorf("reload: %v", err)
	}
	d.err = &Faults{"x.yaml:1:1: a\n  b"}
	if f, ok := errors.AsType[*Faults](c.Reload(t.Context())); !ok || f.Text != "x.yaml:1:1: a\n  b" {
		t.Errorf("reload with faults: %v", f)
	}
	d.err = errors.New("stopping")
	if err := c.Reload(t.Context()); err == nil || err.Error() != "stopping" {
		t.Errorf("reload that was not tried: %v", err)
	}
	if _, err := c.Upgrade(t.Context()); err == nil || err.Error() != "stopping" {
		t.Errorf("an upgrade that came to nothing: %v", err)
	}
	d.err = nil
	if u, err := c.Upgrade(t.Context()); err != nil || u != (Upgrade{Before: 1, PID: 2, Sessions: 3}) {
		t.Errorf("upgrade: %+v, %v", u, err)
	}
	checkMethods(t, c)
	stop()
	served.Wait()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := c.Reload(t.Context()); !errors.Is(err, ErrNobody) || !strings.Contains(err.Error(), path) {
		t.Errorf("without a server: %v", err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := c.Reload(gone); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNobody) {
		t.Errorf("whoever asks has left: %v", err)
	}
	denied := c.unreached(&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)})
	if errors.Is(denied, ErrNobody) || !strings.Contains(denied.Error(), "for root and for the user") {
		t.Errorf("as somebody who may not ask: %v", denied)
	}
}

// TestClientOfAnotherVersion: an answer that is no JSON is said to be one.
func TestClientOfAnotherVersion(t *testing.T) {
	path := socketIn(t)
	ctx, stop := context.WithCancel(t.Context())
	l := mustListen(t, path)
	var served sync.WaitGroup
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	served.Go(func() { Serve(ctx, l, answers, slog.New(slog.DiscardHandler)) })
	if _, err := (Client{Socket: path}).Status(t.Context()); err == nil || !strings.Contains(err.Error(), path+", which may be of another version") {
		t.Errorf("%v", err)
	}
	stop()
	served.Wait()
}

// checkMethods: what is no operation is none, and says so.
func checkMethods(t *testing.T, c Client) {
	t.Helper()
	for method, want := range map[string]string{"GET": "405", "DELETE": "405"} {
		if err := c.do(t.Context(), method, "reload", nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s reload: %v, want %s", method, err, want)
		}
	}
	if err := c.do(t.Context(), "GET", "nothing", nil, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an operation that is none: %v", err)
	}
}

// TestListen: only this user may use the socket; a living server keeps it, a
// dead one does not, and nothing else is removed for it.
func TestListen(t *testing.T) {
	path := socketIn(t)
	first := mustListen(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want the mode 0600", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want the folder's mode 0700", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), path, true); !errors.Is(err, ErrTaken) {
		t.Errorf("beside a living server: %v, want ErrTaken", err)
	}
	first.SetUnlinkOnClose(false) // as one that was killed
	first.Close()
	mustListen(t, path)

	file := filepath.Join(filepath.Dir(path), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file, true); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file: %q, %v", text, err)
	}
	if _, err := Listen(t.Context(), filepath.Join(filepath.Dir(path), "none", "x"), false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}

// TestPeer is who this process runs as; of what is no unix socket, nobody.
func TestPeer(t *testing.T) {
	path := socketIn(t)
	l := mustListen(t, path)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if uid, known := peer(far); known && uid != os.Geteuid() {
		t.Errorf("user %d, want %d", uid, os.Geteuid())
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if uid, known := peer(a); known && uid != -1 {
		t.Errorf("of a pipe: user %d, want nobody", uid)
	}
}
