package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// foldRows is how many rows of the journal are folded in one transaction.
const foldRows = 500

// unused is for how long the row of a key, or of a node, is kept beyond its last
// use. Far more than freshness, so that clocks need not agree.
const unused = 48 * time.Hour

// span is one of the tables, and how long a bucket of it is, in seconds.
type span struct {
	table   string
	seconds int64
}

// spans are the tables, from the finest on.
func spans() []span { return []span{{"minutes", 60}, {"hours", 3600}, {"days", 86400}} }

// start returns when the bucket begins that the moment is in.
func (s span) start(at int64) int64 { return at - at%s.seconds }

// cell is a row of a table.
type cell struct{ at, key int64 }

// fold moves what is in the journal into the tables.
func (s *store) fold(ctx context.Context) error {
	for {
		var rows int
		err := s.within(ctx, func(tx *sql.Tx) (err error) {
			rows, err = foldSome(ctx, tx)
			return err
		})
		if err != nil || rows < foldRows {
			return err
		}
	}
}

// foldSome folds the oldest rows, and tells how many they were.
func foldSome(ctx context.Context, tx *sql.Tx) (rows int, err error) {
	minutes := spans()[0]
	sums := make(map[cell]Counts)
	var last int64
	rows, err = eachRow(ctx, tx, fmt.Sprintf("ORDER BY id LIMIT %d", foldRows), func(id, at, key int64, c Counts) {
		last = id
		addTo(sums, cell{minutes.start(at), key}, c)
	})
	if err != nil || rows == 0 {
		return 0, err
	}
	for _, to := range spans() {
		coarser := make(map[cell]Counts, len(sums))
		for at, c := range sums {
			addTo(coarser, cell{to.start(at.at), at.key}, c)
		}
		sums = coarser
		if err := put(ctx, tx, to, sums); err != nil {
			return 0, err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM journal WHERE id <= ?`, last)
	return rows, err
}

func addTo[K comparable](sums map[K]Counts, k K, more Counts) {
	sum := sums[k]
	sum.add(more)
	sums[k] = sum
}

// eachRow calls f for the counts in the rows of the journal that the end of a query
// selects, and tells how many rows there are.
func eachRow(ctx context.Context, tx *sql.Tx, which string, f func(id, at, key int64, c Counts)) (n int, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, at, counts FROM journal `+which)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, at int64
		var counts sql.RawBytes
		if err := rows.Scan(&id, &at, &counts); err != nil {
			return 0, err
		}
		if err := eachCounts(counts, func(key int64, c Counts) { f(id, at, key, c) }); err != nil {
			return 0, fmt.Errorf("row %d of the journal: %w", id, err)
		}
		n++
	}
	return n, rows.Err()
}

// put adds the sums to a table.
func put(ctx context.Context, tx *sql.Tx, to span, sums map[cell]Counts) error {
	add, err := tx.PrepareContext(ctx, `INSERT INTO `+to.table+` (at, key, sessions, refused, up, down) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (at, key) DO UPDATE SET sessions = sessions + excluded.sessions, refused = refused + excluded.refused,
			up = up + excluded.up, down = down + excluded.down`)
	if err != nil {
		return err
	}
	defer add.Close()
	for at, c := range sums {
		if _, err := add.ExecContext(ctx, at.at, at.key, c.Sessions, c.Refused, c.Up, c.Down); err != nil {
			return err
		}
	}
	return nil
}

// prune drops what is older than it is to be kept, then the keys that nothing refers
// to any more. The journal must be folded before.
func (s *store) prune(ctx context.Context, now time.Time, keep Keep) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		ages := []time.Duration{keep.Minutes, keep.Hours, keep.Days}
		for i, one := range spans() {
			before := one.start(now.Add(-ages[i]).Unix())
			done, err := tx.ExecContext(ctx, `DELETE FROM `+one.table+` WHERE at < ?`, before)
			if err != nil {
				return err
			}
			n, err := done.RowsAffected()
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO horizon (name, at) VALUES (?, ?)
				ON CONFLICT (name) DO UPDATE SET at = max(at, excluded.at)`, one.table, before); err != nil {
				return err
			}
		}
		long := now.Add(-unused).Unix()
		if _, err := tx.ExecContext(ctx, `DELETE FROM nodes WHERE at < ?`, long); err != nil {
			return err
		}
		// Days are kept the longest: what the other tables refer to, they do too.
		_, err := tx.ExecContext(ctx, `DELETE FROM keys WHERE used < ? AND id NOT IN (SELECT key FROM days)`, long)
		return err
	})
}
