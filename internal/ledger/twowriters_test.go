package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
)

// TestTwoWriters: while an upgrade lasts, two processes write and fold, and the tables
// may be the newer one's. Nothing is lost or counted twice, not even where the older
// one has to open them anew.
func TestTwoWriters(t *testing.T) { everywhere(t, twoWriters) }

func twoWriters(t *testing.T, place Place) {
	before, after := opens(t, place), opens(t, place)
	isVersion := func(version int) {
		t.Helper()
		if err := after.within(t.Context(), func(tx *sql.Tx) error { return after.dialect.setVersion(t.Context(), tx, version) }); err != nil {
			t.Fatal(err)
		}
	}
	isVersion(99)
	if _, err := place.open(t.Context()); !errors.Is(err, ErrUnusable) {
		t.Errorf("a newer version's, that was not open before: %v", err)
	}
	const each = 100
	failed := make(chan error, 2)
	go func() { failed <- before.uses(t.Context(), "before", 1, each) }()
	go func() { failed <- after.uses(t.Context(), "after", 1, each) }()
	if err := errors.Join(<-failed, <-failed); err != nil {
		t.Fatal(err)
	}
	again, err := place.reopen(t.Context())
	if err != nil {
		t.Fatalf("a newer version's, that was open before: %v", err)
	}
	defer again.close()
	if err := again.uses(t.Context(), "before", each+1, each+1); err != nil {
		t.Fatal(err)
	}
	again.folds(t)
	isVersion(len(migrations))
	if got := text(reads(t, place, Query{By: "user"})); got != fmt.Sprintf("alice %d 0 %d %d", 2*each+1, 3*(2*each+1), 5*(2*each+1)) {
		t.Errorf("%s", got)
	}
}

// uses writes batches as one process does, and folds now and then.
func (s *store) uses(ctx context.Context, node string, first, last int64) error {
	for seq := first; seq <= last; seq++ {
		if _, err := s.write(ctx, writer{node, "gw"}, seq, noon, batch{counts: map[Key]Counts{alice: {1, 0, 3, 5}}}); err != nil {
			return err
		}
		if seq%25 != 0 {
			continue
		}
		if _, err := s.fold(ctx, noon, 0); err != nil {
			return err
		}
	}
	return nil
}
