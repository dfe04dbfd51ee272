package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// Query asks what was used.
type Query struct {
	Since, Until time.Time // from, and up to; zero: all there is
	// Only what is of this user, source, and rule; empty: of any.
	User, Source, Rule string
	By                 string // what to sum up by, one of [Groups]
}

// Groups are the words for what to sum up by. Times are those of UTC.
func Groups() []string {
	return []string{"user", "source", "rule", "listener", "host", "hour", "day", "month"}
}

// Line is what was used by one of those that were asked for.
type Line struct {
	Name string // a user, a host, ..., or a time: "2026-11-25 13:00", "2026-11-25", "2026-11"
	Counts
}

// Report is the answer to a query.
type Report struct {
	// Since and Until are what was asked for, widened to whole minutes, hours or days
	// where nothing finer is kept; zero: all there is.
	Since, Until time.Time
	Lines        []Line // by time, or else those who used most first
	Sum          Counts
}

// Read answers the query from the ledger, and changes nothing in it. Servers may
// write to it meanwhile. Without an SQLite file the error wraps fs.ErrNotExist.
func (p Place) Read(ctx context.Context, q Query) (*Report, error) {
	if !slices.Contains(Groups(), q.By) {
		return nil, fmt.Errorf("there is no summing up by %q", q.By)
	}
	var r *Report
	err := p.look(ctx, func(tx *sql.Tx) (err error) {
		r, err = read(ctx, tx, q)
		return err
	})
	return r, err
}

// look has f read in one view of all tables. Without an SQLite file the error wraps
// fs.ErrNotExist.
func (p Place) look(ctx context.Context, f func(tx *sql.Tx) error) error {
	s, options, err := p.openToRead(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	tx, err := s.db.BeginTx(ctx, options)
	if err != nil {
		return s.dialect.explain(err)
	}
	version, err := s.dialect.version(ctx, tx)
	if err == nil && version != len(migrations) {
		err = fmt.Errorf("%w: it is no ledger, or one of another version of sallyport", ErrUnusable)
	}
	if err == nil {
		err = f(tx)
	}
	if undo := tx.Rollback(); err == nil {
		err = undo
	}
	if err != nil {
		return s.dialect.explain(err)
	}
	return nil
}

func (p Place) openToRead(ctx context.Context) (*store, *sql.TxOptions, error) {
	if p.IsShared() {
		pool, err := newPool(ctx, string(p))
		if err != nil {
			return nil, nil, err
		}
		return &store{db: stdlib.OpenDBFromPool(pool), dialect: postgresDialect{pool, p.String()}},
			&sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, nil
	}
	if _, err := os.Stat(p.File()); err != nil {
		return nil, nil, err
	}
	db, err := openFile(p.File(), url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(5000)", "query_only(1)"}})
	return &store{db: db, dialect: sqliteDialect{path: p.File()}}, nil, err
}

func read(ctx context.Context, tx *sql.Tx, q Query) (*Report, error) {
	from, err := q.table(ctx, tx)
	if err != nil {
		return nil, err
	}
	since, until := q.bounds(from)
	sums := make(map[string]Counts)
	if err := q.sumTable(ctx, tx, from, since, until, sums); err != nil {
		return nil, err
	}
	if err := q.sumJournal(ctx, tx, from, since, until, sums); err != nil {
		return nil, err
	}
	r := &Report{}
	if !q.Since.IsZero() {
		r.Since = time.Unix(since, 0).UTC()
	}
	if !q.Until.IsZero() {
		r.Until = time.Unix(until, 0).UTC()
	}
	for name, c := range sums {
		r.Lines = append(r.Lines, Line{name, c})
		r.Sum.add(c)
	}
	slices.SortFunc(r.Lines, func(a, b Line) int {
		byName := strings.Compare(a.Name, b.Name)
		if q.layout() != "" {
			return byName
		}
		return cmp.Or(cmp.Compare(b.Up+b.Down, a.Up+a.Down), cmp.Compare(b.Sessions, a.Sessions), byName)
	})
	return r, nil
}

// layout is how a time is written that is summed up by; empty: it is no time.
func (q Query) layout() string {
	return map[string]string{"hour": "2006-01-02 15:00", "day": "2006-01-02", "month": "2006-01"}[q.By]
}

// table chooses the coarsest table that gives the exact answer. Where that was
// dropped already, it is the finest of those that still reach back so far.
func (q Query) table(ctx context.Context, tx *sql.Tx) (span, error) {
	all := spans()
	best := len(all) - 1
	exact := func(s span) bool {
		whole := func(t time.Time) bool { return t.IsZero() || t.Nanosecond() == 0 && t.Unix()%s.seconds == 0 }
		return whole(q.Since) && whole(q.Until) && (q.By != "hour" || s.seconds <= 3600)
	}
	for best > 0 && !exact(all[best]) {
		best--
	}
	for ; best < len(all)-1; best++ {
		var horizon int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(at), 0) FROM horizon WHERE name = $1`, all[best].table).Scan(&horizon); err != nil {
			return span{}, err
		}
		if horizon == 0 || !q.Since.IsZero() && q.Since.Unix() >= horizon || q.By == "hour" && all[best].seconds == 3600 {
			break
		}
	}
	return all[best], nil
}

// bounds are those of whole buckets; a query without a bound has one that nothing
// reaches.
func (q Query) bounds(s span) (since, until int64) {
	until = 1<<63 - 1
	if !q.Since.IsZero() {
		since = s.start(q.Since.Unix())
	}
	if !q.Until.IsZero() {
		until = s.start(q.Until.Add(time.Duration(s.seconds)*time.Second - 1).Unix())
	}
	return since, until
}

// condition is the one that the query has for keys, with its values behind those
// that the statement has before.
func (q Query) condition(before ...any) (where string, values []any) {
	where, values = "true", before
	for _, one := range []struct{ column, value string }{{"user", q.User}, {"source", q.Source}, {"rule", q.Rule}} {
		if one.value != "" {
			values = append(values, one.value)
			where += fmt.Sprintf(` AND k."%s" = $%d`, one.column, len(values))
		}
	}
	return where, values
}

// column is what SQL groups by: a column of keys, or the bucket's time.
func (q Query) column() string {
	if q.layout() != "" {
		return "t.at"
	}
	return `k."` + q.By + `"`
}

// name is that of the line which a value of the column goes to.
func (q Query) name(column any) string {
	if at, ok := column.(int64); ok {
		return time.Unix(at, 0).UTC().Format(q.layout())
	}
	text, _ := column.(string) // keys are text
	return text
}

func (q Query) sumTable(ctx context.Context, tx *sql.Tx, from span, since, until int64, sums map[string]Counts) error {
	where, values := q.condition(since, until)
	sum := func(column string) string { return `, CAST(sum(t.` + column + `) AS BIGINT)` }
	rows, err := tx.QueryContext(ctx, `SELECT `+q.column()+sum("sessions")+sum("refused")+sum("up")+sum("down")+`
		FROM `+from.table+` t JOIN keys k ON k.id = t.key WHERE t.at >= $1 AND t.at < $2 AND `+where+` GROUP BY 1`, values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var column any
		var c Counts
		if err := rows.Scan(&column, &c.Sessions, &c.Refused, &c.Up, &c.Down); err != nil {
			return err
		}
		addTo(sums, q.name(column), c)
	}
	return rows.Err()
}

// sumJournal adds what was not folded yet.
func (q Query) sumJournal(ctx context.Context, tx *sql.Tx, from span, since, until int64, sums map[string]Counts) error {
	unfolded := make(map[cell]Counts)
	journal, err := tx.QueryContext(ctx, `SELECT id, at, counts FROM journal`)
	if err != nil {
		return err
	}
	err = eachRow(journal, func(at, key int64, c Counts) {
		if at = from.start(at); at >= since && at < until {
			addTo(unfolded, cell{at, key}, c)
		}
	})
	if err != nil || len(unfolded) == 0 {
		return err
	}
	names := make(map[int64]any)
	where, values := q.condition()
	column := "k.id" // of a time it only matters that the key is wanted
	if q.layout() == "" {
		column = q.column()
	}
	rows, err := tx.QueryContext(ctx, `SELECT k.id, `+column+` FROM keys k WHERE `+where, values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var value any
		if err := rows.Scan(&id, &value); err != nil {
			return err
		}
		names[id] = value
	}
	for at, c := range unfolded {
		value, wanted := names[at.key]
		if !wanted {
			continue
		}
		if q.layout() != "" {
			value = at.at
		}
		addTo(sums, q.name(value), c)
	}
	return rows.Err()
}
