package ledger

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
)

// ErrUnusable says that the file or database cannot be used as a ledger, and that no
// later try will make it better. What wraps it says why, and what to do.
var ErrUnusable = errors.New("the ledger cannot be used")

const (
	// freshness is for how long the number of a key is remembered. Whenever it is looked
	// up the key's row is touched, and rows that were not touched for far longer are
	// dropped if nothing refers to them: a number that is remembered is never one of those.
	freshness = time.Hour
	// mostNumbers is how many are remembered, more or less.
	mostNumbers = 4 * mostKeys
)

// store is the database. It is used by one goroutine.
type store struct {
	db      *sql.DB
	dialect dialect
	ids     map[Key]int64
	since   time.Time // ids, and accounts, are remembered since then

	accounts map[limits.Account]int64
}

// dialect is what SQLite and PostgreSQL do not have in common. Statements are
// written so that both take them: with $1 for a value, and "user" in quotes.
type dialect interface {
	// words stand in the place of those in braces in a step of migrations.
	words() *strings.Replacer
	// value is how the value of this number, from 1 on, is written where there are many.
	value(number int) string
	// lock keeps others from taking steps until the transaction ends.
	lock(ctx context.Context, tx *sql.Tx) error
	// version tells how many steps were taken.
	version(ctx context.Context, tx *sql.Tx) (int, error)
	// setVersion remembers it.
	setVersion(ctx context.Context, tx *sql.Tx, version int) error
	// bound sees to it that the transaction ends if its writer is not heard of any more.
	bound(ctx context.Context, tx *sql.Tx) error
	// alone reports whether no other node folds until the transaction ends.
	alone(ctx context.Context, tx *sql.Tx) (bool, error)
	// clock returns the time that all nodes agree in, where it is now for this one.
	clock(ctx context.Context, db *sql.DB, now time.Time) (time.Time, error)
	// shared reports whether several nodes may use the database.
	shared() bool
	// astray tells that the database is not any more where others look for it.
	astray() error
	// again reports that a transaction failed only because of another one.
	again(err error) bool
	// listen returns a function that waits until people may have changed. It is used by
	// one goroutine, and not after end.
	listen(ctx context.Context) (wait func(context.Context) error, end func(), err error)
	// tell has the others told that people have changed, when the transaction holds.
	tell(ctx context.Context, tx *sql.Tx) error
	// explain says what to do about an error.
	explain(err error) error
	// close frees what the database was opened with.
	close()
}

// newStore brings the tables up to date. newer: they may be those of a newer version.
func newStore(ctx context.Context, db *sql.DB, d dialect, newer bool) (*store, error) {
	s := &store{db: db, dialect: d, ids: make(map[Key]int64), accounts: make(map[limits.Account]int64)}
	if err := s.migrate(ctx, migrations, newer); err != nil {
		s.close()
		return nil, d.explain(err)
	}
	return s, nil
}

func (s *store) close() {
	// What it could not say in a transaction it has said there; there is nothing to lose here.
	_ = s.db.Close()
	s.dialect.close()
}

// within runs f in a transaction, and again where another one was in its way: f may be
// called several times.
func (s *store) within(ctx context.Context, f func(tx *sql.Tx) error) error {
	err := s.once(ctx, f)
	for tries := range 5 {
		if err == nil || !s.dialect.again(err) {
			break
		}
		// Two that meet again at once would be in each other's way again.
		if !rest(ctx, mathrand.N(10*time.Millisecond<<tries)) {
			return err
		}
		err = s.once(ctx, f)
	}
	return err
}

// query calls each for the rows of an answer.
func query(ctx context.Context, tx *sql.Tx, each func(*sql.Rows) error, statement string, values ...any) error {
	rows, err := tx.QueryContext(ctx, statement, values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// rest waits, and reports whether ctx has not ended meanwhile.
func rest(ctx context.Context, d time.Duration) bool {
	pause := time.NewTimer(d)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *store) once(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err = s.dialect.bound(ctx, tx); err == nil {
		err = f(tx)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// writer is a process that writes: its number, drawn at random, and the name of its
// node.
type writer struct{ id, node string }

// batch is what is written at once.
type batch struct {
	counts   map[Key]Counts
	dues     []limits.Due
	giveBack []limits.Account // whose leases are not used
	rates    []limits.RateUse // of the rates that nodes share
	fresh    time.Duration    // for how long those of others say anything
}

// isEmpty reports that there is nothing to write.
func (b *batch) isEmpty() bool {
	return len(b.counts) == 0 && len(b.dues) == 0 && len(b.giveBack) == 0 && len(b.rates) == 0
}

// write puts a batch into the journal, all or nothing. A batch that is there
// already, as the number of the writer's last one tells, is not written again: of a
// transaction that failed at its end it is not known whether it holds. It returns how
// the accounts stand of which something was due, where others count towards them.
func (s *store) write(ctx context.Context, by writer, seq int64, now time.Time, b batch) (settlement, error) {
	if now.Sub(s.since).Abs() > freshness || len(s.ids) > mostNumbers || len(s.accounts) > mostNumbers {
		clear(s.ids)
		clear(s.accounts)
		s.since = now
	}
	var fresh map[Key]int64
	var settled settlement
	err := s.within(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `INSERT INTO nodes (id, name, seq, at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, at = excluded.at WHERE nodes.seq < excluded.seq`, by.id, by.node, seq, now.Unix())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return err
		}
		if settled, err = s.settle(ctx, tx, by, now, b); err != nil || len(b.counts) == 0 {
			return err
		}
		var row []byte
		if row, fresh, err = s.encode(ctx, tx, now, b.counts); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO journal (node, at, counts) VALUES ($1, $2, $3)`, by.id, now.Unix(), row)
		return err
	})
	if err != nil {
		return settlement{}, err
	}
	maps.Copy(s.ids, fresh)
	maps.Copy(s.accounts, settled.fresh)
	return settled, nil
}

// encode makes the journal's row. The numbers of keys that it looks up are in fresh:
// they hold when the transaction does.
func (s *store) encode(ctx context.Context, tx *sql.Tx, now time.Time, batch map[Key]Counts) (row []byte, fresh map[Key]int64, err error) {
	var unknown []Key
	row = append(make([]byte, 0, 1+16*len(batch)), blobForm)
	for k, counts := range batch {
		if id, known := s.ids[k]; known {
			row = appendCounts(row, id, counts)
		} else {
			unknown = append(unknown, k)
		}
	}
	if fresh, err = s.number(ctx, tx, now, unknown); err != nil {
		return nil, nil, err
	}
	for _, k := range unknown {
		row = appendCounts(row, fresh[k], batch[k])
	}
	return row, fresh, nil
}

// number looks up the numbers of keys, and gives one to those that have none. All
// nodes do it in the same order, so that they do not wait for each other in a circle.
func (s *store) number(ctx context.Context, tx *sql.Tx, now time.Time, unknown []Key) (map[Key]int64, error) {
	sortKeys(unknown)
	into := insertion{
		head: `INSERT INTO keys ("user", source, listener, rule, host, used) VALUES`,
		tail: ` ON CONFLICT ("user", source, listener, rule, host) DO UPDATE SET used = excluded.used
			RETURNING id, "user", source, listener, rule, host`,
		width: 6,
	}
	for _, k := range unknown {
		into.values = append(into.values, k.User, k.Source, k.Listener, k.Rule, k.Host, now.Unix())
	}
	fresh := make(map[Key]int64, len(unknown))
	err := into.run(ctx, tx, s.dialect, func(rows *sql.Rows) error {
		var id int64
		var k Key
		if err := rows.Scan(&id, &k.User, &k.Source, &k.Listener, &k.Rule, &k.Host); err != nil {
			return err
		}
		fresh[k] = id
		return nil
	})
	if err == nil && len(fresh) != len(unknown) {
		err = errors.New("the database did not keep all keys as they were written")
	}
	return fresh, err
}
