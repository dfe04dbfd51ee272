//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestReloadByCommand: from the socket that the settings name, with the faults
// as check has them.
func TestReloadByCommand(t *testing.T) {
	dir, err := os.MkdirTemp("", "daemon") // short: it goes into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "s.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(oneListener+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const named = "admin: {socket: admin.sock}\n"
	write(named)
	src := Source{File: file}
	d, err := Open(t.Context(), src, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), src, io.Discard); !errors.Is(err, admin.ErrTaken) {
		t.Errorf("a second server with the same socket: %v, want that it is taken", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, ctx) }()
	byFile, bySocket := Remote{File: file}, Remote{Socket: filepath.Join(dir, "admin.sock")}
	proxytest.Eventually(t, "it runs", func() bool { return byFile.Reload(t.Context()) == nil })
	write(named + "rulez: 1\n")
	err = bySocket.Reload(t.Context())
	if _, ok := errors.AsType[*SettingsError](err); !ok || err.Error() != Check(file).Error() {
		t.Errorf("reload says\n%v\nand check\n%v", err, Check(file))
	}
	write(named)
	if err := bySocket.Reload(t.Context()); err != nil {
		t.Errorf("reload: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := byFile.Reload(t.Context()); !errors.Is(err, admin.ErrNobody) || !strings.Contains(err.Error(), "sallyport serve") {
		t.Errorf("without a server: %v", err)
	}
	write("admin: off\n")
	if err := byFile.Reload(t.Context()); !errors.Is(err, errNoSocket) {
		t.Errorf("with admin: off: %v", err)
	}
}

// TestOtherServer: who names a settings file is not shown, and does not change, what the server of another
// file has that serves at the usual socket.
func TestOtherServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t.Setenv("RUNTIME_DIRECTORY", dir)
	const settings = oneListener + "admin: {listen: 'off'}\nledger: %s\nrules: {allow: all, to: any, users: alice, proof: claimed, limits: daily}\n" +
		"limits: {daily: {quota: 1 MB, every: day, per: user}}\n"
	ours, other, linked := filepath.Join(dir, "ours.yaml"), filepath.Join(dir, "other.yaml"), filepath.Join(dir, "linked.yaml")
	err = errors.Join(
		os.WriteFile(ours, fmt.Appendf(nil, settings, "off"), 0o600),
		os.WriteFile(other, fmt.Appendf(nil, settings, "'sqlite:other.db'"), 0o600),
		os.Symlink(ours, linked),
	)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), Source{File: ours}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, ctx) }()
	defer func() { stop(); <-ended }()
	proxytest.Eventually(t, "it runs", func() bool { return Remote{}.Reload(t.Context()) == nil })
	alice := QuotaGrant{Key: "alice", Amount: "1 MB"}
	if _, err := (Remote{}).Grant(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{ours, linked} {
		q, err := Remote{File: file}.Quotas(t.Context())
		if err != nil || len(q.Quotas) != 1 {
			t.Errorf("by %s: %+v, %v", file, q, err)
		}
	}

	remote := Remote{File: other}
	if q, err := remote.Quotas(t.Context()); err != nil || len(q.Quotas) != 0 {
		t.Errorf("of a server that is not there: %+v, %v; want what its ledger has", q, err)
	}
	_, watch := remote.Watch(t.Context())
	_, grant := remote.Grant(t.Context(), alice)
	for name, err := range map[string]error{"reload": remote.Reload(t.Context()), "watch": watch, "grant": grant, "rate": remote.SetRate(t.Context(), NewRate{Limit: "daily", Rate: "1 Mbit/s"})} {
		if !errors.Is(err, errOtherServer) || !strings.Contains(err.Error(), "was started with "+ours+", and not with "+other) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Remote{Socket: filepath.Join(dir, "admin.sock")}).Reload(t.Context()); err != nil {
		t.Errorf("a socket that is named is meant: %v", err)
	}
}

func TestIsSameFile(t *testing.T) {
	for _, test := range []struct {
		file, served string
		want         bool
	}{
		{"control_test.go", Source{File: "control_test.go"}.fromRoot(), true},
		{"../daemon/control_test.go", Source{File: "control_test.go"}.fromRoot(), true},
		{"control.go", Source{File: "control_test.go"}.fromRoot(), false},
		{"control.go", "", false},
		{"/not/there", "/not/there", true}, // to who has another view of the files
		{"/not/../not/here", "/not/there", false},
	} {
		if got := isSameFile(test.file, test.served); got != test.want {
			t.Errorf("%s is %s: %v", test.file, test.served, got)
		}
	}
}

// TestUsualSocket: it is taken where it can be had, and done without where not.
func TestUsualSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var said lockedBuffer
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	usual := filepath.Join(dir, "sallyport", "admin.sock")
	l, err := openControl(t.Context(), config.Admin{}, usual, nil, log)
	if l == nil || err != nil {
		t.Fatalf("%v, %v; want the usual socket", l, err)
	}
	defer l.Close()
	for path, want := range map[string]string{"": "XDG_RUNTIME_DIR", filepath.Join(file, "admin.sock"): "not a directory", usual: "another server has it"} {
		if l, err := openControl(t.Context(), config.Admin{}, path, nil, log); l != nil || err != nil {
			t.Errorf("at %q: %v, %v; want none, and no error", path, l, err)
		}
		if !strings.Contains(said.String(), want) {
			t.Errorf("at %q the log does not say %q: %s", path, want, said.String())
		}
	}
	if l, err := openControl(t.Context(), config.Admin{Off: true}, usual, nil, log); l != nil || err != nil {
		t.Errorf("off: %v, %v", l, err)
	}
	if _, err := openControl(t.Context(), config.Admin{Socket: filepath.Join(file, "x")}, usual, nil, log); err == nil {
		t.Error("a socket that is named and cannot be had is no fault")
	}
}
