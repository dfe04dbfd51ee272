package ledger

import (
	"context"
	"database/sql"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
)

// leaseTables is a step of migrations. A lease is what a writer may use of an account,
// in the quota's measure; at is by the database's clock.
const leaseTables = `CREATE TABLE leases (
		account {int} NOT NULL, node TEXT NOT NULL, amount {int} NOT NULL, at {int} NOT NULL,
		PRIMARY KEY (account, node)) {compact};
	CREATE INDEX leases_node ON leases (node);`

// debtor is an account of which something is due, in all its slots.
type debtor struct {
	account limits.Account
	id      int64
	since   int64 // slots from here on count
	most    int64 // the quota, without what was granted
	recent  int64 // what is due, in the quota's measure
	measure limits.Measure
}

// debtors returns those of whom something is due, each once, in the order of their
// numbers.
func (s *store) debtors(dues []limits.Due, fresh map[limits.Account]int64) []debtor {
	var all []debtor
	at := make(map[limits.Account]int, len(dues))
	for _, d := range dues {
		i, known := at[d.Account]
		if !known {
			i = len(all)
			at[d.Account] = i
			id, ok := fresh[d.Account]
			if !ok {
				id = s.accounts[d.Account]
			}
			all = append(all, debtor{account: d.Account, id: id, since: d.Since, most: d.Most, measure: d.Counts})
		}
		if d.Start >= all[i].since {
			all[i].recent += d.Counts.Of(d.Used)
		}
	}
	return all
}

// lease decides how much each of those may use now, and writes it down. Their rows in
// the table of quotas are locked by this transaction: no two nodes do it for one
// account at the same time. What others have leased counts as used, unless they have
// not been here for long.
func (s *store) lease(ctx context.Context, tx *sql.Tx, node string, all []debtor) ([]limits.Balance, error) {
	balances := make([]limits.Balance, len(all))
	at := make(map[int64]int, len(all))
	ids, since := make([]int64, len(all)), make([]int64, len(all))
	for i, d := range all {
		balances[i].Account = d.account
		at[d.id], ids[i], since[i] = i, d.id, d.since
	}
	var now int64
	err := query(ctx, tx, func(rows *sql.Rows) error {
		var id int64
		var slot limits.Slot
		var isOne bool // else nothing is used of those that count now, and the row says only what time it is
		err := rows.Scan(&now, &id, &isOne, &slot.Start, &slot.Used.Up, &slot.Used.Down, (*int64)(&slot.Used.Online), &slot.Granted)
		if b := &balances[at[id]]; isOne {
			b.Slots = append(b.Slots, slot)
		}
		return err
	}, `SELECT CAST(extract(epoch FROM clock_timestamp()) AS BIGINT), d.account, q.slot IS NOT NULL,
			coalesce(q.slot, 0), coalesce(q.up, 0), coalesce(q.down, 0), coalesce(q.online, 0), coalesce(q.granted, 0)
		FROM unnest($1::bigint[], $2::bigint[]) AS d (account, since) LEFT JOIN quotas q ON q.account = d.account AND q.slot >= d.since`, ids, since)
	if err != nil {
		return nil, err
	}
	others := make([]int64, len(all))
	err = query(ctx, tx, func(rows *sql.Rows) error {
		var id, sum int64
		err := rows.Scan(&id, &sum)
		others[at[id]] = sum
		return err
	}, `SELECT account, CAST(sum(amount) AS BIGINT) FROM leases WHERE account = ANY($1::bigint[]) AND node <> $2 AND at > $3 GROUP BY account`,
		ids, node, now-int64(deadLease/time.Second))
	if err != nil {
		return nil, err
	}
	into := insertion{
		head:  `INSERT INTO leases (account, node, amount, at) VALUES`,
		tail:  ` ON CONFLICT (account, node) DO UPDATE SET amount = excluded.amount, at = excluded.at`,
		width: 4,
	}
	for i, d := range all {
		left := d.most - others[i]
		for _, slot := range balances[i].Slots {
			left += slot.Granted - d.measure.Of(slot.Used)
		}
		balances[i].Lease = lend(d.most, left, d.recent)
		into.values = append(into.values, d.id, node, balances[i].Lease, now)
	}
	return balances, into.run(ctx, tx, s.dialect, nil)
}

// giveBack ends leases of the node.
func (s *store) giveBack(ctx context.Context, tx *sql.Tx, node string, all []limits.Account) error {
	var ids []int64
	for _, a := range all {
		if id, known := s.accounts[a]; known { // else it is so long ago that it has ended
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM leases WHERE node = $1 AND account = ANY($2::bigint[])`, node, ids)
	return err
}

// giveAllBack ends all leases of a node that stops.
func (s *store) giveAllBack(ctx context.Context, node string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM leases WHERE node = $1`, node)
	return err
}

// leased is what this node has leased, as far as it was not given back.
type leased map[limits.Account]*loan

type loan struct {
	most  int64
	since time.Time // nothing was used of it since then
}

// use remembers that there is a lease for each account of which something is due.
func (l leased) use(dues []limits.Due, now time.Time) {
	for _, d := range dues {
		one := l[d.Account]
		if one == nil {
			one = &loan{}
			l[d.Account] = one
		}
		one.most, one.since = d.Most, now
	}
}

// idle returns those of which nothing was used for long, up to a number.
func (l leased) idle(now time.Time) (all []limits.Account) {
	const atOnce = 10_000
	for a, one := range l {
		if now.Sub(one.since).Abs() >= idleLease && len(all) < atOnce {
			all = append(all, a)
		}
	}
	return all
}

// end forgets leases that were given back, and returns what may be used all the same
// before the node asks again.
func (l leased) end(all []limits.Account) (balances []limits.Balance) {
	for _, a := range all {
		if one := l[a]; one != nil {
			balances = append(balances, limits.Balance{Account: a, Lease: int64(float64(one.most) * firstShare)})
			delete(l, a)
		}
	}
	return balances
}
