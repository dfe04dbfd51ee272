//go:build unix

package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestNodesStartAtOnce: the tables of an empty database are made once.
func TestNodesStartAtOnce(t *testing.T) {
	place := postgres(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := place.open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			s.close()
		})
	}
	all.Wait()
	if r := reads(t, place, Query{By: "user"}); len(r.Lines) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestNodesWriteAndFoldAtOnce: many write, all of them fold, in no order, and each
// byte is counted once.
func TestNodesWriteAndFoldAtOnce(t *testing.T) {
	place := postgres(t)
	const nodes, rounds = 4, 20
	var all sync.WaitGroup
	var want int64
	for node := range nodes {
		s := opens(t, place)
		want += int64(rounds * len(mixed(node, 0)))
		all.Go(func() {
			for round := range rounds {
				at := noon.Add(time.Duration(round) * 10 * time.Second)
				if _, err := s.write(t.Context(), writer{fmt.Sprint(node), "node"}, int64(round+1), at, batch{counts: mixed(node, round)}); err != nil {
					t.Error(err)
				}
				clear(s.ids) // so that the same keys are looked up by all, again and again
				if _, err := s.fold(t.Context(), at, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, by := range []string{"user", "host", "day"} {
		if r := reads(t, place, Query{By: by}); r.Sum != (Counts{want, want, want, 2 * want}) {
			t.Errorf("by %s: %+v, want %d sessions", by, r.Sum, want)
		}
	}
}

// mixed is what a node counts: keys that others have as well, in an order of its own.
func mixed(node, round int) map[Key]Counts {
	const keys = 50
	counts := make(map[Key]Counts)
	for i := range keys {
		counts[Key{User: fmt.Sprint((i * (node + 1)) % keys), Host: fmt.Sprint(round)}] = Counts{1, 1, 1, 2}
	}
	return counts
}

// TestFoldsInTurn: what one node has folded is not folded again by the next until it
// is time.
func TestFoldsInTurn(t *testing.T) {
	place := postgres(t)
	one, other := opens(t, place), opens(t, place)
	for i, step := range []struct {
		s     *store
		after time.Duration
		left  int // rows in the journal
	}{{one, 0, 0}, {other, 30 * time.Second, 1}, {other, 59 * time.Second, 2}, {other, time.Minute, 0}, {one, 61 * time.Second, 1}} {
		step.s.writes(t, int64(i+1), noon, map[Key]Counts{alice: {1, 0, 0, 0}})
		if more, err := step.s.fold(t.Context(), noon.Add(step.after), foldEvery); more || err != nil {
			t.Errorf("after %v: %v, %v", step.after, more, err)
		}
		if n := step.s.rows(t, "journal"); n != step.left {
			t.Errorf("after %v the journal has %d rows, want %d", step.after, n, step.left)
		}
	}
}

// TestDeadlock: a transaction that the database ends in favour of another one is tried
// again.
func TestDeadlock(t *testing.T) {
	place := postgres(t)
	one, other := opens(t, place), opens(t, place)
	one.writes(t, 1, noon, map[Key]Counts{alice: {}, bob: {}})
	touch := func(tx *sql.Tx, user string) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE keys SET used = used + 1 WHERE "user" = $1`, user)
		return err
	}
	var both, all sync.WaitGroup
	both.Add(2)
	tries := make(chan string, 10)
	for s, users := range map[*store][2]string{one: {"alice", "bob"}, other: {"bob", "alice"}} {
		first := true
		all.Go(func() {
			err := s.within(t.Context(), func(tx *sql.Tx) error {
				tries <- users[0]
				if err := touch(tx, users[0]); err != nil {
					return err
				}
				if first {
					first = false
					both.Done()
					both.Wait()
				}
				return touch(tx, users[1])
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(tries) < 3 {
		t.Errorf("there were %d tries: nothing was in the way of the other", len(tries))
	}
}

// TestSilentWriter: a node that is not heard of any more in the middle of a write keeps
// others from writing for a few seconds and no longer, and writes when it is back.
func TestSilentWriter(t *testing.T) {
	place := postgres(t)
	silent, other := opens(t, place), opens(t, place)
	silent.writes(t, 1, noon, map[Key]Counts{alice: {}})
	locked, back := make(chan struct{}), make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		failed <- silent.once(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), `UPDATE keys SET used = used + 1 WHERE "user" = 'alice'`)
			close(locked)
			<-back
			return err
		})
	}()
	<-locked
	ctx, cancel := context.WithTimeout(t.Context(), place.patience())
	defer cancel()
	_, err := other.write(ctx, writer{"other", "node"}, 1, noon, batch{counts: map[Key]Counts{alice: {Sessions: 1}}})
	close(back)
	if err != nil {
		t.Errorf("the other cannot write: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the silent one has written all the same")
	}
	silent.writes(t, 2, noon, map[Key]Counts{alice: {Sessions: 1}})
	if got := reads(t, place, Query{By: "user"}).Sum.Sessions; got != 2 {
		t.Errorf("%d sessions were counted, want 2", got)
	}
}

// TestDatabaseIsLost: what is counted while the database is away is kept, however long
// that is, and is there when it is back; the log says either once.
func TestDatabaseIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs Debian's PostgreSQL")
	}
	t.Setenv("PGPASSWORD", proxytest.PostgresPassword)
	p, err := proxytest.StartPostgres("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	}()
	place := Place(p.Database(t).String())
	if err := p.Stop(false); err != nil {
		t.Fatal(err)
	}
	var said lines
	l, err := Open(t.Context(), place, Options{Flush: time.Second, Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err) // it may come later
	}
	defer l.Close()
	now, want := noon, Counts{}
	visit := func() {
		now = now.Add(time.Second)
		l.add(alice, Counts{1, 0, 1, 2})
		want.add(Counts{1, 0, 1, 2})
		l.visit(t.Context(), now)
	}
	for round := range 3 {
		visit()
		visit()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		visit()
		visit()
		if got := reads(t, place, Query{By: "user"}).Sum; got != want {
			t.Errorf("round %d: %+v, want %+v", round, got, want)
		}
		if err := p.Stop(round == 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if s := l.Status(); s.Lost || s.Since.IsZero() || s.Writes < 6 || s.Failed < 6 || s.Place != place.String() {
		t.Errorf("the status is %+v", s)
	}
	if text := said.text.String(); strings.Count(text, "cannot be written") != 3 || strings.Count(text, "written again") != 3 {
		t.Errorf("the log says:\n%s", text)
	}
}

// TestNothingToWrite: while the database is away, a flush that has nothing to write is no
// news of it.
func TestNothingToWrite(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	var said lines
	place := Place("postgres://sallyport@" + nobody.Addr().String() + "/sallyport?sslmode=disable")
	l, err := Open(t.Context(), place, Options{Flush: time.Second, Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err) // it may come later
	}
	defer l.Close()
	for i := range 3 {
		l.visit(t.Context(), noon.Add(time.Duration(i)*time.Second))
	}
	if text := said.text.String(); strings.Count(text, "cannot be written") != 1 || strings.Contains(text, "written again") || !l.Status().Lost {
		t.Errorf("lost: %v; the log says:\n%s", l.Status().Lost, text)
	}
}

// TestPasswords: the URL's, $PGPASSWORD and the file that $PGPASSFILE names let us in;
// no error has one.
func TestPasswords(t *testing.T) {
	place := postgres(t)
	t.Setenv("PGPASSWORD", "")
	u, err := url.Parse(string(place))
	if err != nil {
		t.Fatal(err)
	}
	with := func(password string) Place {
		changed := *u
		changed.User = url.UserPassword(u.User.Username(), password)
		return Place(changed.String())
	}
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte("*:*:*:"+proxytest.PostgresUser+":"+proxytest.PostgresPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opens(t, with(proxytest.PostgresPassword)).close()
	const wrong = "hush-hush"
	for name, place := range map[string]Place{
		"no password": place, "a wrong one": with(wrong), "no URL": "postgres://alice:" + wrong + "@h:port/x",
		"no such database": Place(strings.Replace(string(with(proxytest.PostgresPassword)), "/test", "/none", 1)),
	} {
		_, err := Open(t.Context(), place, Options{Log: slog.New(slog.DiscardHandler)})
		if !errors.Is(err, ErrUnusable) || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, place.String()), wrong) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("PGPASSFILE", file)
	opens(t, place).close()
}

// TestForeignDatabase: another program's tables stay as they are.
func TestForeignDatabase(t *testing.T) {
	place := postgres(t)
	database := databaseOf(t, place)
	p := proxytest.SharedPostgres(t)
	p.SQL(t, database, "CREATE TABLE keys (door TEXT); INSERT INTO keys VALUES ('front')")
	if _, err := Open(t.Context(), place, Options{Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("%v", err)
	}
	if got := p.SQL(t, database, "SELECT * FROM keys"); got != "front" {
		t.Errorf("%q", got)
	}
	p.SQL(t, database, "DROP TABLE keys")
	opens(t, place)
	p.SQL(t, database, "UPDATE sallyport SET version = 99")
	if _, err := Open(t.Context(), place, Options{Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("%v", err)
	}
}

// BenchmarkPostgresFlush9000 is BenchmarkFlush9000 with a database.
func BenchmarkPostgresFlush9000(b *testing.B) { flush9000(b, postgres(b)) }

// TestOneTransactionAFlush: however many move something, and a fold is one more.
func TestOneTransactionAFlush(t *testing.T) {
	place := postgres(t)
	l, err := Open(t.Context(), place, Options{Keep: keepAll, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := proxytest.SharedPostgres(t)
	database := databaseOf(t, place)
	now := noon
	second := func() {
		now = now.Add(time.Second)
		for i := range 2000 {
			l.add(Key{User: fmt.Sprint(i)}, Counts{Up: 1 << 10, Down: 1 << 16})
		}
		l.visit(t.Context(), now)
	}
	second() // it folds, as at each start
	p.SQL(t, database, noteTransactions)
	const flushes = 10
	for range flushes {
		second()
	}
	var n int
	if _, err := fmt.Sscan(p.SQL(t, database, "SELECT count(DISTINCT id) FROM noted"), &n); err != nil {
		t.Fatal(err)
	}
	if n != flushes {
		t.Errorf("%d transactions for %d flushes", n, flushes)
	}
}

// noteTransactions has the transactions noted that change anything in the tables that
// are there. The numbers that the server gives them are of no use: it takes some for
// its own housekeeping.
const noteTransactions = `DO $$ DECLARE name text; BEGIN
	CREATE TABLE noted (id bigint);
	GRANT INSERT ON noted TO PUBLIC;
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO noted VALUES (txid_current()); RETURN NULL; END';
	FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'noted' LOOP
		EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH STATEMENT EXECUTE FUNCTION note()', name);
	END LOOP;
END $$`

func databaseOf(tb testing.TB, place Place) string {
	tb.Helper()
	u, err := url.Parse(string(place))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}
