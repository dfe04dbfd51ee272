package ledger

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
)

// rateTables is a step of migrations. A row is how fast an account was on a node, in
// bytes a second; at is by the database's clock.
const rateTables = `CREATE TABLE rates (
		account {int} NOT NULL, node TEXT NOT NULL, up {int} NOT NULL, down {int} NOT NULL, at {int} NOT NULL,
		PRIMARY KEY (account, node)) {compact};`

// shareRates writes how fast accounts were here, and returns how fast they were
// elsewhere, as far as that was written no longer ago than fresh.
func (s *store) shareRates(ctx context.Context, tx *sql.Tx, by writer, now time.Time, uses []limits.RateUse, fresh time.Duration) ([]limits.RateOfOthers, map[limits.Account]int64, error) {
	if len(uses) == 0 {
		return nil, nil, nil
	}
	accounts := make([]limits.Account, len(uses))
	for i, u := range uses {
		accounts[i] = u.Account
	}
	numbers, err := s.numberAccounts(ctx, tx, now, accounts)
	if err != nil {
		return nil, nil, err
	}
	var clock int64
	if err := tx.QueryRowContext(ctx, `SELECT CAST(extract(epoch FROM clock_timestamp()) AS BIGINT)`).Scan(&clock); err != nil {
		return nil, nil, err
	}
	into := insertion{
		head:  `INSERT INTO rates (account, node, up, down, at) VALUES`,
		tail:  ` ON CONFLICT (account, node) DO UPDATE SET up = excluded.up, down = excluded.down, at = excluded.at`,
		width: 5,
	}
	ids, at := make([]int64, len(uses)), make(map[int64]int, len(uses))
	others := make([]limits.RateOfOthers, len(uses))
	for i, u := range uses {
		id, looked := numbers[u.Account]
		if !looked {
			id = s.accounts[u.Account]
		}
		ids[i], at[id], others[i].Account = id, i, u.Account
		into.values = append(into.values, id, by.id, int64(u.Up), int64(u.Down), clock)
	}
	if err := into.run(ctx, tx, s.dialect, nil); err != nil {
		return nil, nil, err
	}
	err = query(ctx, tx, func(rows *sql.Rows) error {
		var id, up, down int64
		var nodes int
		err := rows.Scan(&id, &nodes, &up, &down)
		o := &others[at[id]]
		o.Nodes, o.Up, o.Down = nodes, float64(up), float64(down)
		return err
	}, `SELECT account, count(*), CAST(sum(up) AS BIGINT), CAST(sum(down) AS BIGINT) FROM rates
		WHERE account = ANY($1::bigint[]) AND node <> $2 AND at >= $3 GROUP BY account`,
		ids, by.id, clock-int64(math.Ceil(fresh.Seconds())))
	return others, numbers, err
}
