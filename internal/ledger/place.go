package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Place says where a ledger is kept: in an SQLite file, if it is written
// "sqlite:FILE", or in a PostgreSQL database, if it is written as a URL of libpq:
// "postgres://USER@HOST/DATABASE".
type Place string

// IsShared reports whether other nodes may keep their ledger there as well: whether it
// is in PostgreSQL.
func (p Place) IsShared() bool {
	return strings.HasPrefix(string(p), "postgres://") || strings.HasPrefix(string(p), "postgresql://")
}

// File returns the name of the SQLite file; empty: it is kept elsewhere.
func (p Place) File() string {
	if p.IsShared() {
		return ""
	}
	return strings.TrimPrefix(string(p), "sqlite:")
}

// String returns the place as it may be shown: without a password.
func (p Place) String() string {
	if p.IsShared() {
		return hidePassword(string(p))
	}
	return p.File()
}

// patience bounds one visit to the database. Nothing waits for it but the next.
func (p Place) patience() time.Duration {
	if p.IsShared() {
		return 10 * time.Second // a way that was cut says nothing
	}
	return 30 * time.Second
}

// explain says what to do about an error that a later try may not meet.
func (p Place) explain(err error) error {
	switch {
	case p.IsShared() && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("it does not answer in time: it is cut off or too busy, or somebody keeps a table locked: %w", err)
	case isLocked(err):
		return fmt.Errorf("another program keeps it locked, and is to end that: %w", err)
	}
	return err
}

func (p Place) open(ctx context.Context) (*store, error) { return p.openFor(ctx, false) }

// reopen is open for who had it open before: a newer version may have taken further
// steps since, which leave the version before able to write.
func (p Place) reopen(ctx context.Context) (*store, error) { return p.openFor(ctx, true) }

func (p Place) openFor(ctx context.Context, newer bool) (*store, error) {
	if p.IsShared() {
		return openPostgres(ctx, string(p), newer)
	}
	return openSQLite(ctx, p.File(), newer)
}
