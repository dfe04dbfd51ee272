package ledger

import (
	"context"
	"database/sql"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
)

// While an upgrade lasts, two processes write to an SQLite file and count towards the
// same quotas. There are no leases: each of them learns with its writes what both have
// used, so that a quota is overrun by what is moved between two writes, and not by what
// was left of it when the other process began.

// company is for how long a process that has written is thought to go on.
const company = time.Minute

// hasCompany reports whether another process has written lately.
func hasCompany(ctx context.Context, tx *sql.Tx, by writer, now time.Time) (others bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM nodes WHERE id <> $1 AND at > $2)`, by.id, now.Add(-company).Unix()).Scan(&others)
	return others, err
}

// settleInCompany writes the shares, with all that is in dues, to the table of quotas,
// and returns how those stand of whom something is due.
func (s *store) settleInCompany(ctx context.Context, tx *sql.Tx, mine shares, all []debtor) ([]limits.Balance, error) {
	sum := make(shares, len(mine))
	for more := true; more; {
		n, err := takeDues(ctx, tx, sum)
		if err != nil {
			return nil, err
		}
		more = n == duesAtOnce
	}
	for at, one := range mine {
		sum.add(at, one)
	}
	if err := s.putShares(ctx, tx, sum); err != nil {
		return nil, err
	}
	slots, err := tx.PrepareContext(ctx, `SELECT slot, up, down, online, granted FROM quotas WHERE account = $1 AND slot >= $2`)
	if err != nil {
		return nil, err
	}
	defer slots.Close()
	balances := make([]limits.Balance, len(all))
	for i, d := range all {
		balances[i] = limits.Balance{Account: d.account, Lease: -1}
		if balances[i].Slots, err = readSlots(ctx, slots, d); err != nil {
			return nil, err
		}
	}
	return balances, nil
}

// readSlots returns what was used of an account in the slots that count.
func readSlots(ctx context.Context, slots *sql.Stmt, d debtor) (all []limits.Slot, err error) {
	rows, err := slots.QueryContext(ctx, d.id, d.since)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var one limits.Slot
		if err := rows.Scan(&one.Start, &one.Used.Up, &one.Used.Down, (*int64)(&one.Used.Online), &one.Granted); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
