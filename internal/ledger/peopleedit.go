package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Faults of what is asked of a PeopleEditor.
var (
	ErrUserExists = errors.New("the user is there already")
	ErrNoUser     = errors.New("there is no such user")
	ErrNoMember   = errors.New("the user is not in the group")
	ErrNoKey      = errors.New("the user has no such key")
)

// PeopleEditor changes the people that the ledger at the place holds, whether servers
// run or not. Each change is a transaction. Safe for concurrent use; each call blocks
// while the ledger is asked.
type PeopleEditor struct{ Place Place }

// Hash returns the hashed password of a user; empty: there is no such user.
func (e PeopleEditor) Hash(ctx context.Context, name string) (hash string, err error) {
	err = e.within(ctx, func(tx *sql.Tx) (err error) {
		hash, err = hashOf(ctx, tx, name)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return hash, err
}

// Names returns the names of all users, sorted as the database sorts them.
func (e PeopleEditor) Names(ctx context.Context) (names []string, err error) {
	err = e.within(ctx, func(tx *sql.Tx) error {
		names = nil
		return query(ctx, tx, func(rows *sql.Rows) error {
			var name string
			err := rows.Scan(&name)
			names = append(names, name)
			return err
		}, `SELECT name FROM users WHERE hash <> '' ORDER BY name`)
	})
	return names, err
}

// Groups returns who is in each group.
func (e PeopleEditor) Groups(ctx context.Context) (groups map[string][]string, err error) {
	err = e.within(ctx, func(tx *sql.Tx) error {
		groups = map[string][]string{}
		return query(ctx, tx, func(rows *sql.Rows) error {
			var group, name string
			err := rows.Scan(&group, &name)
			groups[group] = append(groups[group], name)
			return err
		}, `SELECT "group", name FROM members WHERE present <> 0 ORDER BY name`)
	})
	return groups, err
}

// Add adds a user with a hashed password, or fails with [ErrUserExists].
func (e PeopleEditor) Add(ctx context.Context, name, hash string) error {
	return e.setHash(ctx, name, func(old string) (string, error) {
		if old != "" {
			return "", ErrUserExists
		}
		return hash, nil
	})
}

// ChangeHash puts another hashed password in the place of a user's, which change makes of the
// one before, or fails with [ErrNoUser]. Nobody else changes it meanwhile; change may be
// called several times.
func (e PeopleEditor) ChangeHash(ctx context.Context, name string, change func(old string) string) error {
	return e.setHash(ctx, name, func(old string) (string, error) { return change(old), mustBe(old) })
}

// Remove takes a user out, with all keys and also of all groups, or fails with
// [ErrNoUser].
func (e PeopleEditor) Remove(ctx context.Context, name string) error {
	return e.setHash(ctx, name, func(old string) (string, error) { return "", mustBe(old) })
}

func mustBe(old string) error {
	if old == "" {
		return ErrNoUser
	}
	return nil
}

// setHash puts the hash in the place of a user's that next returns for it; empty: there is no
// such user.
func (e PeopleEditor) setHash(ctx context.Context, name string, next func(old string) (string, error)) error {
	return e.change(ctx, func(tx *sql.Tx, version int64) error {
		old, err := hashOf(ctx, tx, name)
		if err != nil {
			return err
		}
		hash, err := next(old)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO users (name, hash, version) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, version = excluded.version`, name, hash, version)
		if err == nil && (old == "" || hash == "") { // an older version takes users out and leaves their keys
			err = dropKeys(ctx, tx, version, name)
		}
		if err != nil || hash != "" {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE members SET present = 0, version = $1 WHERE name = $2 AND present <> 0`, version, name)
		return err
	})
}

// Join puts somebody into a group. That he is no user of the ledger's is no error:
// groups may be about names that identd tells.
func (e PeopleEditor) Join(ctx context.Context, name, group string) error {
	return e.change(ctx, func(tx *sql.Tx, version int64) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO members ("group", name, present, version) VALUES ($1, $2, 1, $3)
			ON CONFLICT ("group", name) DO UPDATE SET present = 1, version = excluded.version`, group, name, version)
		return err
	})
}

// Leave takes somebody out of a group, or fails with [ErrNoMember].
func (e PeopleEditor) Leave(ctx context.Context, name, group string) error {
	return e.change(ctx, func(tx *sql.Tx, version int64) error {
		done, err := tx.ExecContext(ctx, `UPDATE members SET present = 0, version = $1 WHERE "group" = $2 AND name = $3 AND present <> 0`, version, group, name)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return ErrNoMember
	})
}

func hashOf(ctx context.Context, tx *sql.Tx, name string) (hash string, err error) {
	err = tx.QueryRowContext(ctx, `SELECT hash FROM users WHERE name = $1`, name).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return hash, err
}

// change makes a change, and gives it the next number. Who makes another one waits.
func (e PeopleEditor) change(ctx context.Context, f func(tx *sql.Tx, version int64) error) error {
	return e.withStore(ctx, func(s *store) error {
		return s.within(ctx, func(tx *sql.Tx) error {
			var version int64
			err := tx.QueryRowContext(ctx, `INSERT INTO versions (name, version) VALUES ('people', 1)
				ON CONFLICT (name) DO UPDATE SET version = versions.version + 1 RETURNING version`).Scan(&version)
			if err != nil {
				return err
			}
			if err := f(tx, version); err != nil {
				return err
			}
			return s.dialect.tell(ctx, tx)
		})
	})
}

// within has f read in a transaction. Who only asks makes no SQLite file: without one the
// error wraps fs.ErrNotExist.
func (e PeopleEditor) within(ctx context.Context, f func(tx *sql.Tx) error) error {
	if file := e.Place.File(); file != "" {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the ledger %s: %w; the server makes it, or `sallyport user add`", file, fs.ErrNotExist)
		}
	}
	return e.withStore(ctx, func(s *store) error { return s.within(ctx, f) })
}

func (e PeopleEditor) withStore(ctx context.Context, f func(*store) error) error {
	s, err := e.Place.open(ctx)
	if err != nil {
		return fmt.Errorf("the ledger %s: %w", e.Place, err)
	}
	defer s.close()
	return f(s)
}
