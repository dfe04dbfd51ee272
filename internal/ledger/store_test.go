package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	keepAll = Keep{Minutes: 48 * time.Hour, Hours: 60 * 24 * time.Hour, Days: 3 * 365 * 24 * time.Hour}
	noon    = time.Date(2026, 11, 25, 12, 0, 30, 0, time.UTC)
	alice   = Key{"alice", "192.0.2.1", "lan", "web", "example.com"}
	bob     = Key{"bob", "192.0.2.2", "lan", "web", "example.org"}
)

func opens(t *testing.T, place Place) *store {
	t.Helper()
	s, err := place.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// TestOpenedByManyAtOnce: a new file is opened by all who come for it at the same moment. That
// SQLite does not wait for who turns its journal to WAL is why there is more than one try.
func TestOpenedByManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	first, err := openFile(path, url.Values{"_txlock": {"immediate"}})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	writes, err := first.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t.Context(), path, false); !isLocked(err) {
		t.Errorf("a file that is locked: %v", err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s, err := Place(path).open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			s.close()
		})
	}
	if err := writes.Rollback(); err != nil {
		t.Error(err)
	}
	all.Wait()
}

func (s *store) writes(t *testing.T, seq int64, at time.Time, counts map[Key]Counts) {
	t.Helper()
	if _, err := s.write(t.Context(), writer{"id", "node"}, seq, at, batch{counts: counts}); err != nil {
		t.Fatal(err)
	}
}

func (s *store) folds(t *testing.T) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.fold(t.Context(), noon, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *store) rows(t *testing.T, table string) (n int) {
	t.Helper()
	if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func reads(t *testing.T, place Place, q Query) *Report {
	t.Helper()
	r, err := place.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func text(r *Report) string {
	var all []string
	for _, l := range r.Lines {
		all = append(all, fmt.Sprintf("%s %d %d %d %d", l.Name, l.Sessions, l.Refused, l.Up, l.Down))
	}
	return strings.Join(all, "; ")
}

// TestBatchIsWrittenOnce: of a batch that was written, and whose writer could not
// know it, nothing is counted twice.
func TestBatchIsWrittenOnce(t *testing.T) { everywhere(t, batchIsWrittenOnce) }

func batchIsWrittenOnce(t *testing.T, place Place) {
	s := opens(t, place)
	batch := map[Key]Counts{alice: {1, 0, 10, 20}}
	s.writes(t, 1, noon, batch)
	s.writes(t, 1, noon.Add(time.Second), batch)
	s.folds(t)
	s.writes(t, 1, noon.Add(2*time.Second), batch)
	s.writes(t, 2, noon.Add(3*time.Second), batch)
	if got := text(reads(t, place, Query{By: "user"})); got != "alice 2 0 20 40" {
		t.Errorf("%s", got)
	}
}

// TestQueries: every way of asking, before the journal is folded and after it.
func TestQueries(t *testing.T) { everywhere(t, queries) }

func queries(t *testing.T, place Place) {
	s := opens(t, place)
	s.writes(t, 1, noon, map[Key]Counts{alice: {1, 0, 10, 20}, bob: {1, 0, 5, 5}})
	s.writes(t, 2, noon.Add(30*time.Minute), map[Key]Counts{alice: {0, 0, 1, 0}})
	s.writes(t, 3, noon.Add(12*time.Hour), map[Key]Counts{bob: {2, 0, 100, 0}, {Source: "192.0.2.9", Listener: "lan"}: {0, 7, 0, 0}})
	s.writes(t, 4, noon.Add(10*24*time.Hour), map[Key]Counts{alice: {1, 0, 0, 1000}})
	check := func(when string) {
		t.Helper()
		for _, test := range []struct {
			q    Query
			want string
		}{
			{Query{By: "user"}, "alice 2 0 11 1020; bob 3 0 105 5;  0 7 0 0"},
			{Query{By: "source"}, "192.0.2.1 2 0 11 1020; 192.0.2.2 3 0 105 5; 192.0.2.9 0 7 0 0"},
			{Query{By: "rule"}, "web 5 0 116 1025;  0 7 0 0"},
			{Query{By: "listener"}, "lan 5 7 116 1025"},
			{Query{By: "host", User: "bob"}, "example.org 3 0 105 5"},
			{Query{By: "user", Source: "192.0.2.9"}, " 0 7 0 0"},
			{Query{By: "user", Rule: "none"}, ""},
			{Query{By: "hour", User: "alice"}, "2026-11-25 12:00 1 0 11 20; 2026-12-05 12:00 1 0 0 1000"},
			{Query{By: "day"}, "2026-11-25 2 0 16 25; 2026-11-26 2 7 100 0; 2026-12-05 1 0 0 1000"},
			{Query{By: "month"}, "2026-11 4 7 116 25; 2026-12 1 0 0 1000"},
			{Query{By: "user", Since: noon.Add(10 * time.Minute), Until: noon.Add(time.Hour)}, "alice 0 0 1 0"},
			{Query{By: "user", Until: time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)}, "alice 1 0 11 20; bob 1 0 5 5"},
			{Query{By: "day", Since: time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)}, "2026-11-26 2 7 100 0; 2026-12-05 1 0 0 1000"},
		} {
			if got := text(reads(t, place, test.q)); got != test.want {
				t.Errorf("%s: %+v: %s, want %s", when, test.q, got, test.want)
			}
		}
	}
	check("not folded")
	s.folds(t)
	if n := s.rows(t, "journal"); n != 0 {
		t.Errorf("%d rows in the journal", n)
	}
	check("folded")
}

// TestRetention: each table is dropped in its time, the sums stay as long as the
// days do, and what nothing refers to goes.
func TestRetention(t *testing.T) { everywhere(t, retention) }

func retention(t *testing.T, place Place) {
	s := opens(t, place)
	s.writes(t, 1, noon, map[Key]Counts{alice: {1, 0, 10, 20}})
	s.writes(t, 2, noon.Add(24*time.Hour), map[Key]Counts{bob: {1, 0, 3, 4}})
	s.folds(t)
	for _, step := range []struct {
		days                       int
		minutes, hours, daily, ids int
	}{{1, 2, 2, 2, 2}, {3, 1, 2, 2, 2}, {59, 0, 2, 2, 2}, {61, 0, 1, 2, 2}, {3*365 + 1, 0, 0, 1, 2}, {3*365 + 3, 0, 0, 0, 1}, {3*365 + 4, 0, 0, 0, 0}} {
		if err := s.prune(t.Context(), noon.Add(time.Duration(step.days)*24*time.Hour), keepAll, 0); err != nil {
			t.Fatal(err)
		}
		got := [4]int{s.rows(t, "minutes"), s.rows(t, "hours"), s.rows(t, "days"), s.rows(t, "keys")}
		if want := [4]int{step.minutes, step.hours, step.daily, step.ids}; got != want {
			t.Errorf("after %d days there are %v rows, want %v", step.days, got, want)
		}
		if step.days == 61 {
			// Nothing finer than days reaches back so far.
			r := reads(t, place, Query{By: "user", Since: noon})
			if text(r) != "alice 1 0 10 20; bob 1 0 3 4" || !r.Since.Equal(time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("since %v: %s", r.Since, text(r))
			}
		}
	}
	// A key that was dropped comes again.
	s.since = time.Time{}
	s.writes(t, 3, noon.Add(4*365*24*time.Hour), map[Key]Counts{alice: {1, 0, 1, 1}})
	if got := text(reads(t, place, Query{By: "user"})); got != "alice 1 0 1 1" {
		t.Errorf("%s", got)
	}
}

// opensOld opens a ledger as a version did that knew so many steps.
func opensOld(t *testing.T, place Place, steps int) *store {
	t.Helper()
	all := migrations
	defer func() { migrations = all }()
	migrations = all[:steps]
	return opens(t, place)
}

// TestMigration: a ledger of the version before is taken on with what is in it.
func TestMigration(t *testing.T) { everywhere(t, migration) }

func migration(t *testing.T, place Place) {
	old := opensOld(t, place, 1)
	row := fmt.Sprintf("%x", appendCounts([]byte{blobForm}, 1, Counts{1, 0, 10, 20}))
	if !place.IsShared() {
		row = "x'" + row + "'"
	} else {
		row = `'\x` + row + "'"
	}
	for _, statement := range []string{
		`INSERT INTO keys ("user", source, listener, rule, host, used) VALUES ('alice', '', '', '', '', 1)`,
		`INSERT INTO nodes (id, seq, at) VALUES ('old', 1, 1)`,
		fmt.Sprintf(`INSERT INTO journal (node, at, counts) VALUES ('old', %d, %s)`, noon.Unix(), row),
	} {
		if _, err := old.db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	old.close()
	if _, err := place.Read(t.Context(), Query{By: "user"}); !errors.Is(err, ErrUnusable) {
		t.Errorf("reading before: %v", err)
	}
	s := opens(t, place)
	s.folds(t)
	if got := text(reads(t, place, Query{By: "user"})); got != "alice 1 0 10 20" {
		t.Errorf("%s", got)
	}
}

// TestUnusableFiles: each is refused with what to do, and stays as it is.
func TestUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	with := func(name, statement string) string {
		path := filepath.Join(dir, name)
		s := opens(t, Place(path))
		if _, err := s.db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		s.close()
		return path
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		text: ".recover",
		with("newer", "PRAGMA user_version = 99"):     "newer version",
		with("foreign", "PRAGMA application_id = 77"): "another program",
	} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), Place(path), Options{})
		if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if _, err := Place(path).Read(t.Context(), Query{By: "user"}); !errors.Is(err, ErrUnusable) {
			t.Errorf("reading %s: %v", path, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s is not as it was: %v", path, err)
		}
	}
}

// TestUnopenedFiles: what cannot be opened is named, and what is only asked for is not made.
func TestUnopenedFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(t.Context(), Place(dir), Options{})
	if err == nil || !strings.Contains(err.Error(), dir+" is a folder: name a file") {
		t.Errorf("of a folder: %v", err)
	}
	blocked := filepath.Join(dir, "blocked.db")
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", blocked) // which nobody can open
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	_, err = Open(t.Context(), Place(blocked), Options{})
	if err == nil || !strings.Contains(err.Error(), blocked+" cannot be opened; root may") {
		t.Errorf("of a blocked file: %v", err)
	}
	missing := filepath.Join(dir, "missing.db")
	people := PeopleEditor{Place(missing)}
	if _, err := people.Names(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("names of none: %v", err)
	}
	if hash, err := people.Hash(t.Context(), "alice"); hash != "" || err != nil {
		t.Errorf("somebody of none: %q, %v", hash, err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it was made")
	}
}

// TestFullDisk: what is counted while nothing can be written is written later; the
// log says either once.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	var said lines
	l, err := Open(t.Context(), Place(path), Options{Flush: time.Second, Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	now := noon
	visit := func(full bool) {
		now = now.Add(time.Second)
		if full && l.store == nil {
			l.store = opens(t, Place(path))
		}
		if full {
			// As SQLite behaves when the disk has no room for another page.
			if _, err := l.store.db.ExecContext(t.Context(), "PRAGMA max_page_count = 1"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2000 {
			l.add(Key{User: "alice", Host: fmt.Sprint(now.Unix(), i)}, Counts{Sessions: 1, Up: 3})
		}
		l.visit(t.Context(), now)
	}
	visit(false)
	for range 3 {
		visit(true)
	}
	if got := reads(t, Place(path), Query{By: "user"}).Sum; got != (Counts{Sessions: 2000, Up: 6000}) {
		t.Errorf("while it is full: %+v", got)
	}
	visit(false)
	visit(false)
	if got := reads(t, Place(path), Query{By: "user"}).Sum; got != (Counts{Sessions: 12000, Up: 36000}) {
		t.Errorf("afterwards: %+v", got)
	}
	if text := said.text.String(); strings.Count(text, "cannot be written") != 1 || strings.Count(text, "written again") != 1 {
		t.Errorf("the log says:\n%s", text)
	}
}

// TestTruncatedWAL: a power cut leaves a beginning of SQLite's log. The ledger
// opens, with all flushes up to some moment, and with more the more there is left.
func TestTruncatedWAL(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	s := opens(t, Place(path))
	for i := range 20 {
		s.writes(t, int64(i+1), noon, map[Key]Counts{alice: {1, 0, 1, 2}, {User: fmt.Sprint(i)}: {1, 0, 1, 2}})
	}
	database, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	var before int64
	for cut := range 41 {
		copied := filepath.Join(dir, fmt.Sprintf("cut%d.db", cut))
		for name, content := range map[string][]byte{copied: database, copied + "-wal": wal[:len(wal)*cut/40]} {
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again := opens(t, Place(copied))
		again.folds(t)
		again.close()
		sum := reads(t, Place(copied), Query{By: "user"}).Sum
		if sum.Sessions < before || sum.Up != sum.Sessions || sum.Down != 2*sum.Sessions || sum.Sessions%2 != 0 {
			t.Errorf("with %d/40 of the log: %+v after %d", cut, sum, before)
		}
		before = sum.Sessions
	}
	if before != 40 {
		t.Errorf("with the whole log: %d sessions", before)
	}
}

func FuzzJournalRow(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0})
	f.Add(appendCounts([]byte{blobForm}, 1, Counts{1, 2, 3, 1 << 62}))
	f.Add(appendCounts([]byte{blobForm}, 7, Counts{})[:4])
	f.Fuzz(func(t *testing.T, row []byte) {
		again := []byte{blobForm}
		err := eachCounts(row, func(key int64, c Counts) {
			if min(key, c.Sessions, c.Refused, c.Up, c.Down) < 0 {
				t.Fatalf("%d %+v: a count under zero", key, c)
			}
			again = appendCounts(again, key, c)
		})
		if err == nil && len(again) > len(row) {
			t.Errorf("%x is read as %x", row, again)
		}
	})
}

// BenchmarkFlush9000 is the ledger's work of a second for 9,000 users who all move
// something, with a sixtieth of what is done once a minute.
func BenchmarkFlush9000(b *testing.B) {
	flush9000(b, Place(filepath.Join(b.TempDir(), "ledger.db")))
}

func flush9000(b *testing.B, place Place) {
	l, err := Open(b.Context(), place, Options{Keep: keepAll, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	now := noon
	second := func() {
		now = now.Add(time.Second)
		for i := range 9000 {
			l.add(Key{fmt.Sprint(i), "192.0.2.1", "lan", "web", "example.com"}, Counts{Up: 1 << 10, Down: 1 << 16})
		}
		l.visit(b.Context(), now)
	}
	second() // the keys are looked up once an hour
	for b.Loop() {
		for range 60 {
			second()
		}
	}
	if l.lost {
		b.Fatal("it could not be written")
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(60*b.N), "ms/flush")
}
