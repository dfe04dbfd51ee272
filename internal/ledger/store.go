package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrUnusable says that the file cannot be used as a ledger, and that no later
// try will make it better. What wraps it says why, and what to do.
var ErrUnusable = errors.New("the ledger cannot be used")

// freshness is for how long the number of a key is remembered. Whenever it is looked
// up the key's row is touched, and rows that were not touched for far longer are
// dropped if nothing refers to them: a number that is remembered is never one of those.
const freshness = time.Hour

// store is the database. It is used by one goroutine.
type store struct {
	db    *sql.DB
	ids   map[Key]int64
	since time.Time // ids are remembered since then
}

// openStore opens the SQLite file at path, makes it if it is not there, and brings
// its tables up to date.
func openStore(ctx context.Context, path string) (*store, error) {
	// The journal of SQLite takes over the rights of the file.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close()
	// FULL: what was written outlives a power cut too. It costs one fsync a flush.
	db, err := openDB(path, url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}})
	if err != nil {
		return nil, err
	}
	s := &store{db: db, ids: make(map[Key]int64)}
	if err := s.migrate(ctx, migrations); err != nil {
		s.close()
		return nil, explain(path, err)
	}
	return s, nil
}

func openDB(path string, options url.Values) (*sql.DB, error) {
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

// explain says what to do where a file is of no use.
func explain(path string, err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%w: %s is damaged, or is no SQLite file (%w). Nothing was changed in it. "+
				"`sqlite3 FILE .recover` gets out what can be read; move the file away, with its -wal and -shm, to begin a new ledger", ErrUnusable, path, err)
		}
	}
	if errors.Is(err, ErrUnusable) {
		return fmt.Errorf("%w: %s", err, path)
	}
	return err
}

func (s *store) close() {
	// What it could not say in a transaction it has said there; there is nothing to lose here.
	_ = s.db.Close()
}

// within runs f in a transaction.
func (s *store) within(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// write puts a batch into the journal, all or nothing. A batch that is there
// already, as the number of the node's last one tells, is not written again: of a
// transaction that failed at its end it is not known whether it holds.
func (s *store) write(ctx context.Context, node string, seq int64, now time.Time, batch map[Key]Counts) error {
	if now.Sub(s.since).Abs() > freshness {
		clear(s.ids)
		s.since = now
	}
	fresh := make(map[Key]int64)
	err := s.within(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `INSERT INTO nodes (id, seq, at) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, at = excluded.at WHERE nodes.seq < excluded.seq`, node, seq, now.Unix())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return err
		}
		row, err := s.encode(ctx, tx, now, batch, fresh)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO journal (node, at, counts) VALUES (?, ?, ?)`, node, now.Unix(), row)
		return err
	})
	if err != nil {
		return err
	}
	for k, id := range fresh {
		s.ids[k] = id
	}
	return nil
}

// encode makes the journal's row. The numbers of keys that it looks up are in fresh:
// they hold when the transaction does.
func (s *store) encode(ctx context.Context, tx *sql.Tx, now time.Time, batch map[Key]Counts, fresh map[Key]int64) ([]byte, error) {
	number, err := tx.PrepareContext(ctx, `INSERT INTO keys (user, source, listener, rule, host, used) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (user, source, listener, rule, host) DO UPDATE SET used = excluded.used RETURNING id`)
	if err != nil {
		return nil, err
	}
	defer number.Close()
	row := append(make([]byte, 0, 1+16*len(batch)), blobForm)
	for k, counts := range batch {
		id, known := s.ids[k]
		if !known {
			if err := number.QueryRowContext(ctx, k.User, k.Source, k.Listener, k.Rule, k.Host, now.Unix()).Scan(&id); err != nil {
				return nil, err
			}
			fresh[k] = id
		}
		row = appendCounts(row, id, counts)
	}
	return row, nil
}
