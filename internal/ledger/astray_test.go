//go:build unix

package ledger

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFileIsMoved: the log says once that the file is not at its place any more, and what
// is counted is written when it is back.
func TestFileIsMoved(t *testing.T) {
	dir := t.TempDir()
	path, away := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "away.db")
	var said lines
	l, err := Open(t.Context(), Place(path), Options{Flush: time.Second, Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	now, want := noon, Counts{}
	visit := func() {
		now = now.Add(time.Second)
		l.add(alice, Counts{1, 0, 1, 2})
		want.add(Counts{1, 0, 1, 2})
		l.visit(t.Context(), now)
	}
	visit()
	renames(t, path, away)
	visit()
	if err := os.WriteFile(path, []byte("another file"), 0o600); err != nil {
		t.Fatal(err)
	}
	visit()
	renames(t, away, path)
	visit()
	if got := reads(t, Place(path), Query{By: "user"}).Sum; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if text := said.text.String(); strings.Count(text, "put it back") != 1 || strings.Count(text, "written again") != 1 {
		t.Errorf("the log says:\n%s", text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	visit()
	if !l.Status().Lost {
		t.Error("the file is gone, and the ledger is not lost")
	}
}

// TestFileOfPeopleIsMoved: who is known stays, and nobody is read from another file.
func TestFileOfPeopleIsMoved(t *testing.T) {
	dir := t.TempDir()
	path, away := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "away.db")
	place := Place(path)
	p := place.People(slog.New(slog.DiscardHandler))
	defer p.Close()
	if err := (PeopleEditor{place}).Add(t.Context(), "alice", "hash"); err != nil {
		t.Fatal(err)
	}
	looks(t, p)
	renames(t, path, away)
	for range 2 {
		if err := p.Look(t.Context(), func(Changed) {}); err == nil {
			t.Error("a look at a file that is not there is no fault")
		}
	}
	if len(p.Hashes()) != 1 {
		t.Errorf("%v are known", p.Hashes())
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("another file was made")
	}
}

func renames(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestLockedFile: the log says what keeps the ledger from being written.
func TestLockedFile(t *testing.T) {
	place := Place(filepath.Join(t.TempDir(), "ledger.db"))
	var said lines
	l, err := Open(t.Context(), place, Options{Flush: time.Second, Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.store.db.ExecContext(t.Context(), "PRAGMA busy_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	other := opens(t, place)
	tx, err := other.db.BeginTx(t.Context(), nil) // it has the file for itself from its beginning
	if err != nil {
		t.Fatal(err)
	}
	l.add(alice, Counts{1, 0, 1, 2})
	l.visit(t.Context(), noon)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	l.visit(t.Context(), noon)
	if got := reads(t, place, Query{By: "user"}).Sum; got != (Counts{1, 0, 1, 2}) || !strings.Contains(said.text.String(), "another program keeps it locked") {
		t.Errorf("%+v was written; the log says:\n%s", got, said.text.String())
	}
}
