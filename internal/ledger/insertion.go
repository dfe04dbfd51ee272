package ledger

import (
	"context"
	"database/sql"
	"strings"
)

// insertion is many rows that go into a table by few statements.
type insertion struct {
	head, tail string // before and behind the values
	width      int    // values in a row
	values     []any  // of all rows
}

// rowsAtOnce is how many a statement has at the most. Fewer are a power of two, so
// that there are few statements for a database to prepare.
const rowsAtOnce = 128

// run inserts the rows, and calls each for every row that the database answers with;
// nil: it answers with none.
func (in insertion) run(ctx context.Context, tx *sql.Tx, d dialect, each func(*sql.Rows) error) error {
	n := rowsAtOnce
	statement := ""
	for left := in.values; len(left) > 0; {
		for n*in.width > len(left) {
			n, statement = n/2, ""
		}
		if statement == "" {
			statement = in.statement(n, d)
		}
		if err := in.query(ctx, tx, statement, left[:n*in.width], each); err != nil {
			return err
		}
		left = left[n*in.width:]
	}
	return nil
}

func (in insertion) query(ctx context.Context, tx *sql.Tx, statement string, values []any, each func(*sql.Rows) error) error {
	if each == nil {
		_, err := tx.ExecContext(ctx, statement, values...)
		return err
	}
	return query(ctx, tx, each, statement, values...)
}

// statement is the one for n rows.
func (in insertion) statement(n int, d dialect) string {
	var b strings.Builder
	b.WriteString(in.head)
	for i := range n * in.width {
		separator := ", "
		switch {
		case i == 0:
			separator = " ("
		case i%in.width == 0:
			separator = "), ("
		}
		b.WriteString(separator)
		b.WriteString(d.value(i + 1))
	}
	b.WriteString(")")
	b.WriteString(in.tail)
	return b.String()
}
