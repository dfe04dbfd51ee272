//go:build unix

package ledger

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestWrongClock: a node whose clock is years ahead drops nothing of what others have
// counted, nor their leases, and the log says what is amiss, once.
func TestWrongClock(t *testing.T) {
	place := postgres(t)
	now := time.Now()
	other := opens(t, place)
	other.writes(t, 1, now, map[Key]Counts{alice: {1, 0, 1, 2}})
	if _, err := other.fold(t.Context(), now, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := other.db.ExecContext(t.Context(), `INSERT INTO leases (account, node, amount, at) VALUES (1, 'id', 1, $1)`, now.Unix()); err != nil {
		t.Fatal(err)
	}
	var said lines
	l, err := Open(t.Context(), place, Options{Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ahead := now.Add(10 * 365 * 24 * time.Hour)
	for range 3 {
		l.add(bob, Counts{1, 0, 1, 2})
		l.visit(t.Context(), ahead)
		ahead = ahead.Add(2 * pruneEvery)
	}
	for table, want := range map[string]int{"minutes": 1, "days": 1, "keys": 2, "nodes": 2, "leases": 1} {
		if n := other.rows(t, table); n < want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	if by := text(reads(t, place, Query{By: "user"})); !strings.Contains(by, "alice 1 0 1 2") {
		t.Errorf("what is left is %s", by)
	}
	l.visit(t.Context(), time.Now())
	if text := said.text.String(); strings.Count(text, "set by NTP") != 1 || strings.Count(text, "is that of the ledger's database again") != 1 {
		t.Errorf("the log says:\n%s", text)
	}
}
