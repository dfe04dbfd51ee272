package ledger

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations are the steps from nothing to the tables of this version, the same for
// SQLite and PostgreSQL but for the words in braces. A step that was released is never
// changed. While an upgrade lasts, two versions write at once: a step must leave the
// version before able to write and fold. Times are seconds since 1970, UTC, of a bucket its beginning. Numbers of
// keys are never used twice.
var migrations = []string{
	`CREATE TABLE keys (
		id {number},
		"user" TEXT NOT NULL, source TEXT NOT NULL, listener TEXT NOT NULL, rule TEXT NOT NULL, host TEXT NOT NULL,
		used {int} NOT NULL,
		UNIQUE ("user", source, listener, rule, host));
	CREATE TABLE nodes (id TEXT PRIMARY KEY, seq {int} NOT NULL, at {int} NOT NULL);
	CREATE TABLE journal (id {number}, node TEXT NOT NULL, at {int} NOT NULL, counts {bytes} NOT NULL);`,
	table("minutes") + table("hours") + table("days") +
		`CREATE TABLE horizon (name TEXT PRIMARY KEY, at {int} NOT NULL); -- what is older was dropped`,
	`ALTER TABLE nodes ADD COLUMN name TEXT NOT NULL DEFAULT '';`,
	quotaTables,
	peopleTables,
	leaseTables,
	rateTables,
	keyTables,
}

func table(name string) string {
	return `CREATE TABLE ` + name + ` (
		at {int} NOT NULL, key {int} NOT NULL,
		sessions {int} NOT NULL, refused {int} NOT NULL, up {int} NOT NULL, down {int} NOT NULL,
		PRIMARY KEY (at, key)) {compact};`
}

// migrate takes the steps that were not taken yet, in one transaction, while nobody
// else does. Those of a newer version are taken only where newer says so.
func (s *store) migrate(ctx context.Context, steps []string, newer bool) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		if err := s.dialect.lock(ctx, tx); err != nil {
			return err
		}
		version, err := s.dialect.version(ctx, tx)
		switch {
		case err != nil:
			return err
		case version > len(steps) && newer:
			return nil
		case version > len(steps):
			return fmt.Errorf("%w: it is of a newer version of sallyport; use that version, or name another", ErrUnusable)
		case version == len(steps):
			return nil
		}
		for _, step := range steps[version:] {
			if _, err := tx.ExecContext(ctx, s.dialect.words().Replace(step)); err != nil {
				return err
			}
		}
		return s.dialect.setVersion(ctx, tx, len(steps))
	})
}
