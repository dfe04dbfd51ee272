//go:build unix

package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestUsualLedger: it is kept where that can be, and done without where not; a file
// that is of no use is for a person to look at.
func TestUsualLedger(t *testing.T) {
	var said lockedBuffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.db")
	if err := os.WriteFile(broken, []byte(strings.Repeat("no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := config.Ledger{Flush: time.Second}
	l, err := openLedger(t.Context(), settings, filepath.Join(dir, "state", "ledger.db"), nil, log)
	if l == nil || err != nil {
		t.Fatalf("%v, %v; want the usual ledger", l, err)
	}
	l.Close()
	for path, want := range map[string]string{"": "no folder", filepath.Join(broken, "ledger.db"): "not a directory"} {
		if l, err := openLedger(t.Context(), settings, path, nil, log); l != nil || err != nil || !strings.Contains(said.String(), want) {
			t.Errorf("at %q: %v, %v; want none, no error, and %q in the log: %s", path, l, err, want, said.String())
		}
	}
	if _, err := openLedger(t.Context(), settings, broken, nil, log); !errors.Is(err, ledger.ErrUnusable) {
		t.Errorf("a damaged file: %v", err)
	}
	settings.Path = filepath.Join(dir, "nowhere", "ledger.db")
	if _, err := openLedger(t.Context(), settings, "", nil, log); err == nil {
		t.Error("a ledger that is named and cannot be had is no fault")
	}
	if l, err := openLedger(t.Context(), config.Ledger{Off: true}, broken, nil, log); l != nil || err != nil {
		t.Errorf("off: %v, %v", l, err)
	}
}

// TestDamagedLedger: the server does not start, and leaves nothing open.
func TestDamagedLedger(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte(oneListener+"ledger: 'sqlite:s.yaml'\n"+strings.Repeat("# more\n", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Source{File: file, Admin: "off"}, io.Discard); !errors.Is(err, ledger.ErrUnusable) {
		t.Errorf("%v", err)
	}
}

// TestLedgerOfServer: sessions that the end of the server cuts are in it, and
// another ledger waits for a restart.
func TestLedgerOfServer(t *testing.T) {
	const rules = "rules: {allow: all, to: any}\n"
	s := serveIn(t, oneListener+rules+"ledger: {store: 'sqlite:used.db', flush: 1m}\ntimeouts: {drain: 0s}\n")
	target := proxytest.Echo(t, "127.0.0.1")
	c := s.connects(s.at("lan"), "alice", target)
	proxytest.Granted4(t, c)
	lives(t, "alice", c)
	s.reloads(oneListener + rules + "ledger: off\ntimeouts: {drain: 0s}\n")
	s.end()
	if !strings.Contains(s.said.String(), "another ledger is used only after a restart") {
		t.Errorf("the log says %s", s.said.String())
	}
	r, err := Usage{Store: "sqlite:" + filepath.Join(s.dir, "used.db")}.Read(context.Background(), UsageQuery{By: "user"})
	if err != nil || len(r.Lines) != 1 || r.Lines[0].Name != "alice" || r.Sum.Sessions != 1 || r.Sum.Up == 0 || r.Sum.Up != r.Sum.Down {
		t.Errorf("%+v, %v", r, err)
	}
}
