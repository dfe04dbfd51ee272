package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// lookEvery is how often a file is looked at for other users.
	lookEvery = time.Second / 2
	// lockPatience is for how long somebody else's lock on the file is waited out.
	lockPatience = 5 * time.Second
)

// sqliteDialect is that of the file of this name.
type sqliteDialect struct {
	path string
	file fs.FileInfo // what is open
}

// openSQLite opens the file at path, makes it if it is not there, and brings its
// tables up to date.
func openSQLite(ctx context.Context, path string, newer bool) (*store, error) {
	// The journal of SQLite takes over the rights of the file. One that is there is not
	// opened here: to close it would end the locks that this process has on it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case err == nil:
		f.Close()
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	// SQLite waits for a lock, but not where two who have opened a new file at once both turn
	// its journal to WAL: one of them hears at once that it is locked.
	for began := time.Now(); ; {
		s, err := openStore(ctx, path, newer)
		if !isLocked(err) || time.Since(began) > lockPatience || !rest(ctx, mathrand.N(50*time.Millisecond)) {
			return s, err
		}
	}
}

func openStore(ctx context.Context, path string, newer bool) (*store, error) {
	// FULL: what was written outlives a power cut too. It costs one fsync a flush.
	db, err := openFile(path, url.Values{"_txlock": {"immediate"}, "_pragma": {fmt.Sprintf("busy_timeout(%d)", lockPatience.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)"}})
	if err != nil {
		return nil, err
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return newStore(ctx, db, sqliteDialect{path, file}, newer)
}

// isLocked reports whether an error is that somebody else has locked the file.
func isLocked(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

func openFile(path string, options url.Values) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: options.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// AUTOINCREMENT: numbers of keys are never used twice.
func (sqliteDialect) words() *strings.Replacer {
	return strings.NewReplacer("{number}", "INTEGER PRIMARY KEY AUTOINCREMENT", "{int}", "INTEGER", "{bytes}", "BLOB", "{compact}", "WITHOUT ROWID")
}

// application marks the file as a ledger, for `file` and for us.
const application = 0x53616c6c // "Sall"

// value: names of values take time by the square of how many there are.
func (sqliteDialect) value(int) string { return "?" }

// lock: the transactions of who writes begin with it.
func (sqliteDialect) lock(context.Context, *sql.Tx) error { return nil }

func (sqliteDialect) version(ctx context.Context, tx *sql.Tx) (version int, err error) {
	var mark, tables int
	err = tx.QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&version, &mark, &tables)
	if err == nil && tables > 0 && mark != application {
		err = fmt.Errorf("%w: the file is the database of another program; name another file", ErrUnusable)
	}
	return version, err
}

func (sqliteDialect) setVersion(ctx context.Context, tx *sql.Tx, version int) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", application, version))
	return err
}

// bound: the system ends what a process that is gone has locked.
func (sqliteDialect) bound(context.Context, *sql.Tx) error { return nil }

func (sqliteDialect) alone(context.Context, *sql.Tx) (bool, error) { return true, nil }

// clock: there is no other.
func (sqliteDialect) clock(_ context.Context, _ *sql.DB, now time.Time) (time.Time, error) {
	return now, nil
}

func (sqliteDialect) shared() bool { return false }

func (sqliteDialect) again(error) bool { return false }

func (d sqliteDialect) explain(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%w: %s is damaged, or is no SQLite file (%w). Nothing was changed in it. "+
				"`sqlite3 FILE .recover` gets out what can be read; move the file away, with its -wal and -shm, to begin a new ledger", ErrUnusable, d.path, err)
		case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
			return d.unopened(err)
		}
	}
	if errors.Is(err, ErrUnusable) {
		return fmt.Errorf("%w: %s", err, d.path)
	}
	return err
}

// unopened says what may be wrong with a file that cannot be opened.
func (d sqliteDialect) unopened(err error) error {
	if at, missing := os.Stat(d.path); missing == nil && at.IsDir() {
		return fmt.Errorf("%s is a folder: name a file (%w)", d.path, err)
	}
	return fmt.Errorf("%s cannot be opened; root may, and the user that the server runs as: %w", d.path, err)
}

// listen: nobody tells that a file was changed.
func (sqliteDialect) listen(context.Context) (wait func(context.Context) error, end func(), err error) {
	wait = func(ctx context.Context) error {
		if !rest(ctx, lookEvery) {
			return ctx.Err()
		}
		return nil
	}
	return wait, func() {}, nil
}

// errAstray says that whoever looks for the ledger does not find what is written. Another
// one is not begun beside it: the files of a journal are known by their names, and who
// closes the one before would remove those of the new one.
var errAstray = errors.New("its file was moved, removed or replaced while the server runs; put it back, or restart the server to begin with what is there")

func (d sqliteDialect) astray() error {
	there, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(d.file, there) {
		return errAstray
	}
	return nil
}

func (sqliteDialect) tell(context.Context, *sql.Tx) error { return nil }

func (sqliteDialect) close() {}
