package ledger

import (
	"context"
	"database/sql"
	"fmt"
)

// application marks the file as a ledger, for `file` and for us.
const application = 0x53616c6c // "Sall"

// migrations are the steps from an empty file to the tables of this version. A step
// that was released is never changed. Times are seconds since 1970, UTC, of a
// bucket its beginning. Numbers of keys are never used twice (AUTOINCREMENT).
var migrations = []string{
	`CREATE TABLE keys (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		user TEXT NOT NULL, source TEXT NOT NULL, listener TEXT NOT NULL, rule TEXT NOT NULL, host TEXT NOT NULL,
		used INTEGER NOT NULL,
		UNIQUE (user, source, listener, rule, host));
	CREATE TABLE nodes (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL);
	CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL, at INTEGER NOT NULL, counts BLOB NOT NULL);`,
	table("minutes") + table("hours") + table("days") +
		`CREATE TABLE horizon (name TEXT PRIMARY KEY, at INTEGER NOT NULL); -- what is older was dropped`,
}

func table(name string) string {
	return `CREATE TABLE ` + name + ` (
		at INTEGER NOT NULL, key INTEGER NOT NULL,
		sessions INTEGER NOT NULL, refused INTEGER NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL,
		PRIMARY KEY (at, key)) WITHOUT ROWID;`
}

// migrate takes the steps that the file has not taken yet, in one transaction,
// which keeps others from doing the same at the same time.
func (s *store) migrate(ctx context.Context, steps []string) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		var version, mark, tables int
		err := tx.QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),
			(SELECT count(*) FROM sqlite_schema)`).Scan(&version, &mark, &tables)
		switch {
		case err != nil:
			return err
		case tables > 0 && mark != application:
			return fmt.Errorf("%w: the file is the database of another program; name another file", ErrUnusable)
		case version > len(steps):
			return fmt.Errorf("%w: the file is of a newer version of sallyport; use that version, or name another file", ErrUnusable)
		case version == len(steps):
			return nil
		}
		for _, step := range steps[version:] {
			if _, err := tx.ExecContext(ctx, step); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", application, len(steps)))
		return err
	})
}
