package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"
)

// What is folded in one transaction at the most: rows of the journal, and what is in
// them, but for a single row.
const (
	foldRows  = 500
	foldBytes = 4 << 20
)

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

// turn reports whether it is this node's turn to do what is done once in a while by
// one node for all: nobody else is at it until the transaction ends, nor did it lately.
func (s *store) turn(ctx context.Context, tx *sql.Tx, what string, now time.Time, every time.Duration) (bool, error) {
	if alone, err := s.dialect.alone(ctx, tx); err != nil || !alone {
		return false, err
	}
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(at), 0) FROM horizon WHERE name = $1`, what).Scan(&last); err != nil {
		return false, err
	}
	return now.Sub(time.Unix(last, 0)).Abs() >= every, nil // Abs: clocks may be set back
}

// done remembers when it was done.
func done(ctx context.Context, tx *sql.Tx, what string, at int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO horizon (name, at) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET at = excluded.at`, what, at)
	return err
}

// fold moves the oldest rows of the journal into the tables, if no node has done that
// within the time, and tells whether more are left.
func (s *store) fold(ctx context.Context, now time.Time, every time.Duration) (more bool, err error) {
	err = s.within(ctx, func(tx *sql.Tx) error {
		more = false
		mine, err := s.turn(ctx, tx, "folded", now, every)
		if err != nil || !mine {
			return err
		}
		if more, err = s.foldSome(ctx, tx); err != nil || more {
			return err
		}
		return done(ctx, tx, "folded", now.Unix())
	})
	return more, err
}

// foldSome folds as many rows as one transaction should.
func (s *store) foldSome(ctx context.Context, tx *sql.Tx) (more bool, err error) {
	limit, more, err := foldable(ctx, tx)
	if err != nil || limit == 0 {
		return false, err
	}
	minutes := spans()[0]
	sums := make(map[cell]Counts)
	// Not the rows up to some number: of another node a lower one may come later.
	taken, err := tx.QueryContext(ctx, `DELETE FROM journal WHERE id IN (SELECT id FROM journal ORDER BY id LIMIT $1) RETURNING id, at, counts`, limit)
	if err != nil {
		return false, err
	}
	if err := eachRow(taken, func(at, key int64, c Counts) { addTo(sums, cell{minutes.start(at), key}, c) }); err != nil {
		return false, err
	}
	for _, to := range spans() {
		coarser := make(map[cell]Counts, len(sums))
		for at, c := range sums {
			addTo(coarser, cell{to.start(at.at), at.key}, c)
		}
		sums = coarser
		if err := s.put(ctx, tx, to, sums); err != nil {
			return false, err
		}
	}
	return more, nil
}

// foldable tells how many rows, from the oldest on, are folded in one transaction, and
// whether there are more.
func foldable(ctx context.Context, tx *sql.Tx) (rows int, more bool, err error) {
	sizes, err := tx.QueryContext(ctx, `SELECT length(counts) FROM journal ORDER BY id LIMIT $1`, foldRows+1)
	if err != nil {
		return 0, false, err
	}
	defer sizes.Close()
	for sum := 0; sizes.Next(); rows++ {
		var size int
		if err := sizes.Scan(&size); err != nil {
			return 0, false, err
		}
		if sum += size; rows > 0 && sum > foldBytes || rows == foldRows {
			return rows, true, nil
		}
	}
	return rows, false, sizes.Err()
}

func addTo[K comparable](sums map[K]Counts, k K, more Counts) {
	sum := sums[k]
	sum.add(more)
	sums[k] = sum
}

// eachRow calls f for the counts in rows of the journal, and closes them.
func eachRow(rows *sql.Rows, f func(at, key int64, c Counts)) error {
	defer rows.Close()
	for rows.Next() {
		var id, at int64
		var counts []byte
		if err := rows.Scan(&id, &at, &counts); err != nil {
			return err
		}
		if err := eachCounts(counts, func(key int64, c Counts) { f(at, key, c) }); err != nil {
			return fmt.Errorf("row %d of the journal: %w", id, err)
		}
	}
	return rows.Err()
}

// put adds the sums to a table.
func (s *store) put(ctx context.Context, tx *sql.Tx, to span, sums map[cell]Counts) error {
	into := insertion{
		head: `INSERT INTO ` + to.table + ` (at, key, sessions, refused, up, down) VALUES`,
		tail: fmt.Sprintf(` ON CONFLICT (at, key) DO UPDATE SET sessions = %[1]s.sessions + excluded.sessions,
			refused = %[1]s.refused + excluded.refused, up = %[1]s.up + excluded.up, down = %[1]s.down + excluded.down`, to.table),
		width: 6,
	}
	cells := slices.SortedFunc(maps.Keys(sums), func(a, b cell) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key)) })
	for _, at := range cells {
		c := sums[at]
		into.values = append(into.values, at.at, at.key, c.Sessions, c.Refused, c.Up, c.Down)
	}
	return into.run(ctx, tx, s.dialect, nil)
}

// prune drops what is older than it is to be kept, if no node has done that within the
// time.
func (s *store) prune(ctx context.Context, now time.Time, keep Keep, every time.Duration) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		mine, err := s.turn(ctx, tx, "pruned", now, every)
		if err != nil || !mine {
			return err
		}
		ages := []time.Duration{keep.Minutes, keep.Hours, keep.Days}
		for i, one := range spans() {
			if err := one.drop(ctx, tx, one.start(now.Add(-ages[i]).Unix())); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM nodes WHERE at < $1`, now.Add(-unused).Unix()); err != nil {
			return err
		}
		if err := pruneQuotas(ctx, tx, now, keep.Minutes); err != nil {
			return err
		}
		// Days are kept the longest. Whatever refers to a key is younger than its last look-up, but for freshness.
		if _, err := tx.ExecContext(ctx, `DELETE FROM keys WHERE used < $1`, now.Add(-keep.Days-unused).Unix()); err != nil {
			return err
		}
		return done(ctx, tx, "pruned", now.Unix())
	})
}

// drop drops what is of before a time, and remembers that.
func (s span) drop(ctx context.Context, tx *sql.Tx, before int64) error {
	dropped, err := tx.ExecContext(ctx, `DELETE FROM `+s.table+` WHERE at < $1`, before)
	if err != nil {
		return err
	}
	if n, err := dropped.RowsAffected(); err != nil || n == 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO horizon (name, at) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE horizon.at < excluded.at`, s.table, before)
	return err
}
