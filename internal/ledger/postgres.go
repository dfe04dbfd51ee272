package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresDialect is that of the database that the pool reaches.
type postgresDialect struct {
	pool *pgxpool.Pool
	name string // without a password
}

const (
	// connectPatience bounds the way to the database, unless its URL says otherwise.
	connectPatience = 5 * time.Second
	// mostConnections are one that writes, and one for whoever else asks.
	mostConnections = 2
)

// openPostgres reaches the database with this URL, and brings its tables up to date.
func openPostgres(ctx context.Context, address string, newer bool) (*store, error) {
	pool, err := newPool(ctx, address)
	if err != nil {
		return nil, err
	}
	return newStore(ctx, stdlib.OpenDBFromPool(pool), postgresDialect{pool, hidePassword(address)}, newer)
}

// newPool connects to nothing yet. A URL without a password has the one that libpq
// would take: PGPASSWORD, or that of the PGPASSFILE.
func newPool(ctx context.Context, address string) (*pgxpool.Pool, error) {
	c, err := poolConfig(address)
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, c)
}

func poolConfig(address string) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(address)
	if err != nil {
		// What it says may quote the URL, and a URL that is written wrong may have its password anywhere.
		return nil, fmt.Errorf("%w: %s is not written as PostgreSQL's libpq takes it: postgres://USER@HOST:5432/DATABASE?sslmode=verify-full", ErrUnusable, hidePassword(address))
	}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectPatience
	}
	if !strings.Contains(address, "pool_max_conns") {
		c.MaxConns = mostConnections
	}
	if _, named := c.ConnConfig.RuntimeParams["application_name"]; !named {
		c.ConnConfig.RuntimeParams["application_name"] = "sallyport"
	}
	return c, nil
}

// hidePassword returns the URL as it may be shown.
func hidePassword(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the URL of the database"
	}
	u.RawQuery = "" // which may have one, too
	return u.Redacted()
}

func (postgresDialect) words() *strings.Replacer {
	return strings.NewReplacer("{number}", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "{int}", "BIGINT", "{bytes}", "BYTEA", "{compact}", "")
}

func (postgresDialect) value(number int) string { return "$" + strconv.Itoa(number) }

// The numbers of our advisory locks.
const (
	lockSchema = 0x53616c6c_00000001 // "Sall"
	lockFold   = 0x53616c6c_00000002
)

func (postgresDialect) lock(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockSchema))
	return err
}

func (postgresDialect) version(ctx context.Context, tx *sql.Tx) (version int, err error) {
	var there bool
	if err := tx.QueryRowContext(ctx, `SELECT to_regclass('sallyport') IS NOT NULL`).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM sallyport`).Scan(&version)
	return version, err
}

func (postgresDialect) setVersion(ctx context.Context, tx *sql.Tx, version int) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS sallyport (version BIGINT NOT NULL);
		DELETE FROM sallyport; INSERT INTO sallyport VALUES (%d)`, version))
	return err
}

// silence is for how long a node that has begun a transaction may say nothing. Rows that
// it has locked are those that other nodes wait for, and a node whose way to the database
// was cut in the middle would keep them locked until TCP gives up, hours later. It is
// less than a visit's patience, so that the others' next write comes through.
const silence = 3 * time.Second

// bound goes by the transaction and not by the connection: a proxy such as PgBouncer may
// give each transaction another one.
func (postgresDialect) bound(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf(`SET LOCAL idle_in_transaction_session_timeout = %d`, silence.Milliseconds()))
	return err
}

func (postgresDialect) alone(ctx context.Context, tx *sql.Tx) (alone bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(lockFold)).Scan(&alone)
	return alone, err
}

// Codes of errors: Appendix A of PostgreSQL's manual.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	invalidAuthorization = "28000"
	invalidPassword      = "28P01"
	noSuchDatabase       = "3D000"
	noPrivilege          = "42501"
	duplicateTable       = "42P07"
	noSuchTable          = "42P01"
)

func (postgresDialect) clock(ctx context.Context, db *sql.DB, _ time.Time) (time.Time, error) {
	var now int64
	err := db.QueryRowContext(ctx, `SELECT CAST(extract(epoch FROM clock_timestamp()) AS BIGINT)`).Scan(&now)
	return time.Unix(now, 0), err
}

func (postgresDialect) shared() bool { return true }

func (postgresDialect) astray() error { return nil }

func (postgresDialect) again(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == serializationFailure || e.Code == deadlockDetected)
}

func (d postgresDialect) explain(err error) error {
	hint := ""
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case invalidAuthorization, invalidPassword:
			hint = "the database does not let us in; the password is that of the URL, of $PGPASSWORD, or of the file that $PGPASSFILE names (~/.pgpass)"
		case noSuchDatabase:
			hint = "make it with `createdb --owner=USER DATABASE`"
		case noPrivilege:
			hint = "the user needs a database, or a schema, of its own: `createdb --owner=USER DATABASE`"
		case duplicateTable:
			hint = "the database has tables of another program; name one that is empty"
		}
	}
	switch {
	case hint != "":
		return fmt.Errorf("%w: %s: %w; %s", ErrUnusable, d.name, err, hint)
	case errors.Is(err, ErrUnusable):
		return fmt.Errorf("%w: %s", err, d.name)
	}
	return err
}

// channel is what nodes tell each other by that people have changed.
const channel = "sallyport_people"

// lookSlowly is how often the database is looked at where nobody told of a change: a
// proxy such as PgBouncer may not pass that on.
const lookSlowly = 5 * time.Second

func (d postgresDialect) listen(ctx context.Context) (wait func(context.Context) error, end func(), err error) {
	one, err := d.pool.Acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	c := one.Hijack() // it listens: nobody else is to have it, and the pool's end must not wait for it
	end = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	}
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		end()
		return nil, nil, err
	}
	wait = func(ctx context.Context) error {
		waiting, cancel := context.WithTimeout(ctx, lookSlowly)
		defer cancel()
		_, err := c.WaitForNotification(waiting)
		if err != nil && ctx.Err() == nil && waiting.Err() != nil {
			return nil
		}
		return err
	}
	return wait, end, nil
}

func (postgresDialect) tell(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_notify($1, '')`, channel)
	return err
}

// lastWords is for how long a connection may take to say that it ends.
const lastWords = time.Second

// close waits for connections to end, but not for those to a database that is silent:
// they end by themselves, within 15 seconds.
func (d postgresDialect) close() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		d.pool.Close()
	}()
	wait := time.NewTimer(lastWords)
	defer wait.Stop()
	select {
	case <-closed:
	case <-wait.C:
	}
}
