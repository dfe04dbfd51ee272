package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
)

// Quotas counts what is used of quotas, and has it settled with each write of the
// ledger, in the same transaction. [limits.Table] is one, and says what the methods do.
type Quotas interface {
	Restore(all []limits.Balance, first float64)
	Due(now time.Time) []limits.Due
	Settled(all []limits.Balance)
	Away(allow bool)
	Rates(now time.Time) []limits.RateUse
	Shared(all []limits.RateOfOthers)
}

// quotaTables is a step of migrations. A slot is known by its beginning. Times online
// are nanoseconds, and what was granted is in the measure of the quota. What is in dues
// goes into quotas once a minute: a row for each user and second would be too many.
const quotaTables = `CREATE TABLE accounts (
		id {number}, "limit" TEXT NOT NULL, key TEXT NOT NULL, claimed {int} NOT NULL, used {int} NOT NULL,
		UNIQUE ("limit", key, claimed));
	CREATE TABLE quotas (
		account {int} NOT NULL, slot {int} NOT NULL, until {int} NOT NULL,
		up {int} NOT NULL, down {int} NOT NULL, online {int} NOT NULL, granted {int} NOT NULL,
		PRIMARY KEY (account, slot)) {compact};
	CREATE TABLE dues (id {number}, due {bytes} NOT NULL);`

// share is what was used of a quota in a slot.
type share struct {
	until   int64
	used    limits.Amount
	granted int64
}

// place of a share.
type accountSlot struct{ account, slot int64 }

type shares map[accountSlot]share

func (all shares) add(at accountSlot, more share) {
	s := all[at]
	s.until = more.until
	s.used.Up += more.used.Up
	s.used.Down += more.used.Down
	s.used.Online += more.used.Online
	s.granted += more.granted
	all[at] = s
}

// settlement is what comes of writing what is due: the numbers of accounts that were
// looked up, which hold when the transaction does, and how the accounts stand, where
// others count towards them.
type settlement struct {
	fresh    map[limits.Account]int64
	balances []limits.Balance
	others   []limits.RateOfOthers
}

// settle writes what there is of accounts: leases that are given back, what is due, and
// how fast they were.
func (s *store) settle(ctx context.Context, tx *sql.Tx, by writer, now time.Time, b batch) (settlement, error) {
	if err := s.giveBack(ctx, tx, by.id, b.giveBack); err != nil {
		return settlement{}, err
	}
	done, err := s.settleDues(ctx, tx, by, now, b.dues)
	if err != nil {
		return settlement{}, err
	}
	others, fresh, err := s.shareRates(ctx, tx, by, now, b.rates, b.fresh)
	if err != nil {
		return settlement{}, err
	}
	done.others = others
	maps.Copy(done.fresh, fresh)
	return done, nil
}

// settleDues writes what is due.
func (s *store) settleDues(ctx context.Context, tx *sql.Tx, by writer, now time.Time, dues []limits.Due) (done settlement, err error) {
	done.fresh = map[limits.Account]int64{}
	if len(dues) == 0 {
		return done, nil
	}
	accounts := make([]limits.Account, len(dues))
	for i, d := range dues {
		accounts[i] = d.Account
	}
	fresh, err := s.numberAccounts(ctx, tx, now, accounts)
	if err != nil {
		return done, err
	}
	done.fresh = fresh
	all := make(shares, len(dues))
	for _, d := range dues {
		id, ok := fresh[d.Account]
		if !ok {
			id = s.accounts[d.Account]
		}
		all.add(accountSlot{id, d.Start}, share{d.Until, d.Used, d.Granted})
	}
	if !s.dialect.shared() {
		done.balances, err = s.settleAlone(ctx, tx, by, now, all, s.debtors(dues, fresh))
		return done, err
	}
	if err := s.putShares(ctx, tx, all); err != nil { // the others must see it
		return done, err
	}
	done.balances, err = s.lease(ctx, tx, by.id, s.debtors(dues, fresh))
	return done, err
}

// settleAlone writes the shares where no other node does. Another process may, while an
// upgrade lasts.
func (s *store) settleAlone(ctx context.Context, tx *sql.Tx, by writer, now time.Time, all shares, of []debtor) ([]limits.Balance, error) {
	others, err := hasCompany(ctx, tx, by, now)
	switch {
	case err != nil:
		return nil, err
	case others:
		return s.settleInCompany(ctx, tx, all, of)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO dues (due) VALUES ($1)`, all.blob())
	return nil, err
}

// numberAccounts looks up the numbers of accounts, and gives one to those that have
// none.
func (s *store) numberAccounts(ctx context.Context, tx *sql.Tx, now time.Time, all []limits.Account) (map[limits.Account]int64, error) {
	var unknown []limits.Account
	for _, a := range all {
		if _, known := s.accounts[a]; !known {
			unknown = append(unknown, a)
		}
	}
	slices.SortFunc(unknown, compareAccounts)
	unknown = slices.Compact(unknown)
	into := insertion{
		head:  `INSERT INTO accounts ("limit", key, claimed, used) VALUES`,
		tail:  ` ON CONFLICT ("limit", key, claimed) DO UPDATE SET used = excluded.used RETURNING id, "limit", key, claimed`,
		width: 4,
	}
	for _, a := range unknown {
		into.values = append(into.values, legible(a.Limit), legible(a.Key), asInt(a.Claimed), now.Unix())
	}
	fresh := make(map[limits.Account]int64, len(unknown))
	written := make(map[limits.Account]limits.Account, len(unknown)) // not all can be read back: a long key is cut
	for _, a := range unknown {
		written[limits.Account{Limit: legible(a.Limit), Key: legible(a.Key), Claimed: a.Claimed}] = a
	}
	err := into.run(ctx, tx, s.dialect, func(rows *sql.Rows) error {
		var id int64
		var a limits.Account
		var claimed int
		err := rows.Scan(&id, &a.Limit, &a.Key, &claimed)
		a.Claimed = claimed != 0
		fresh[written[a]] = id
		return err
	})
	if err == nil && len(fresh) != len(unknown) {
		err = errors.New("the database did not keep all accounts of quotas as they were written")
	}
	return fresh, err
}

// scanAccount reads what the columns "limit", key and claimed say, between others.
func scanAccount(rows *sql.Rows, before any, after ...any) (a limits.Account, err error) {
	var claimed int
	err = rows.Scan(append([]any{before, &a.Limit, &a.Key, &claimed}, after...)...)
	a.Limit, a.Key, a.Claimed = illegible(a.Limit), illegible(a.Key), claimed != 0
	return a, err
}

func compareAccounts(a, b limits.Account) int {
	return cmp.Or(strings.Compare(a.Limit, b.Limit), strings.Compare(a.Key, b.Key), cmp.Compare(asInt(a.Claimed), asInt(b.Claimed)))
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// illegible is the inverse of legible.
func illegible(name string) string {
	if !strings.Contains(name, `\`) {
		return name
	}
	text, err := strconv.Unquote(`"` + name + `"`)
	if err != nil {
		return name
	}
	return text
}

// putShares adds the shares to the table. All nodes do it in the same order.
func (s *store) putShares(ctx context.Context, tx *sql.Tx, all shares) error {
	into := insertion{
		head: `INSERT INTO quotas (account, slot, until, up, down, online, granted) VALUES`,
		tail: ` ON CONFLICT (account, slot) DO UPDATE SET until = excluded.until, up = quotas.up + excluded.up,
			down = quotas.down + excluded.down, online = quotas.online + excluded.online, granted = quotas.granted + excluded.granted`,
		width: 7,
	}
	places := slices.SortedFunc(maps.Keys(all), func(a, b accountSlot) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.slot, b.slot))
	})
	for _, at := range places {
		one := all[at]
		into.values = append(into.values, at.account, at.slot, one.until, one.used.Up, one.used.Down, int64(one.used.Online), one.granted)
	}
	return into.run(ctx, tx, s.dialect, nil)
}

// A row of dues is a byte for the form (1), then seven signed varints for each share.
const dueForm = 1

var errDue = errors.New("what is due of quotas is damaged in the ledger")

func (all shares) blob() []byte {
	b := append(make([]byte, 0, 1+32*len(all)), dueForm)
	for at, s := range all {
		for _, n := range [...]int64{at.account, at.slot, s.until, s.used.Up, s.used.Down, int64(s.used.Online), s.granted} {
			b = binary.AppendVarint(b, n)
		}
	}
	return b
}

// addBlob adds what a row of dues says. After an error it may have added a part.
func (all shares) addBlob(b []byte) error {
	if len(b) == 0 || b[0] != dueForm {
		return errDue
	}
	for b = b[1:]; len(b) > 0; {
		var n [7]int64
		for i := range n {
			value, size := binary.Varint(b)
			if size <= 0 {
				return errDue
			}
			n[i], b = value, b[size:]
		}
		all.add(accountSlot{n[0], n[1]}, share{n[2], limits.Amount{Up: n[3], Down: n[4], Online: time.Duration(n[5])}, n[6]})
	}
	return nil
}

// duesAtOnce is how many rows of dues are folded in a transaction.
const duesAtOnce = 500

// foldDues moves what is in dues into the table of quotas.
func (s *store) foldDues(ctx context.Context) error {
	for more := true; more; {
		err := s.within(ctx, func(tx *sql.Tx) (err error) {
			all := make(shares)
			n, err := takeDues(ctx, tx, all)
			more = n == duesAtOnce
			if err != nil || n == 0 {
				return err
			}
			return s.putShares(ctx, tx, all)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// takeDues takes some rows out of dues, the oldest first, adds what they say, and tells
// how many they were.
func takeDues(ctx context.Context, tx *sql.Tx, all shares) (n int, err error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM dues WHERE id IN (SELECT id FROM dues ORDER BY id LIMIT $1) RETURNING due`, duesAtOnce)
	if err != nil {
		return 0, err
	}
	return all.addRows(rows)
}

// addRows adds what rows of dues say, closes them, and tells how many they were.
func (all shares) addRows(rows *sql.Rows) (n int, err error) {
	defer rows.Close()
	for ; rows.Next(); n++ {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return n, err
		}
		if err := all.addBlob(b); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

// pruneQuotas drops what counts for nothing any more, after a while.
func pruneQuotas(ctx context.Context, tx *sql.Tx, now time.Time, keep time.Duration) error {
	for _, table := range []string{"leases", "rates"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE at < $1`, now.Add(-unused).Unix()); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM quotas WHERE until < $1`, now.Add(-keep).Unix()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM accounts WHERE used < $1 AND id NOT IN (SELECT account FROM quotas)`, now.Add(-unused).Unix())
	return err
}

// mostBalances bounds how many slots are read at start.
const mostBalances = 1_000_000

// balances returns what was used of quotas in the slots that still count at a time.
func balances(ctx context.Context, tx *sql.Tx, now time.Time) ([]limits.Balance, error) {
	unfolded := make(shares)
	rows, err := tx.QueryContext(ctx, `SELECT due FROM dues`)
	if err != nil {
		return nil, err
	}
	if _, err := unfolded.addRows(rows); err != nil {
		return nil, err
	}
	names, err := accountNames(ctx, tx)
	if err != nil {
		return nil, err
	}
	all, err := countingShares(ctx, tx, now, unfolded)
	if err != nil {
		return nil, err
	}
	found := make(map[limits.Account]*limits.Balance)
	for at, s := range all {
		a, known := names[at.account]
		if !known || s.until <= now.Unix() {
			continue
		}
		b := found[a]
		if b == nil {
			b = &limits.Balance{Account: a, Lease: -1}
			found[a] = b
		}
		b.Slots = append(b.Slots, limits.Slot{Start: at.slot, Used: s.used, Granted: s.granted})
	}
	list := make([]limits.Balance, 0, len(found))
	for _, a := range slices.SortedFunc(maps.Keys(found), compareAccounts) {
		slices.SortFunc(found[a].Slots, func(a, b limits.Slot) int { return cmp.Compare(a.Start, b.Start) })
		list = append(list, *found[a])
	}
	return list, nil
}

// countingShares adds what the table has to what it has not yet.
func countingShares(ctx context.Context, tx *sql.Tx, now time.Time, all shares) (shares, error) {
	rows, err := tx.QueryContext(ctx, `SELECT account, slot, until, up, down, online, granted FROM quotas WHERE until > $1 LIMIT $2`, now.Unix(), mostBalances)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var at accountSlot
		var s share
		if err := rows.Scan(&at.account, &at.slot, &s.until, &s.used.Up, &s.used.Down, &s.used.Online, &s.granted); err != nil {
			return nil, err
		}
		all.add(at, s)
	}
	return all, rows.Err()
}

func accountNames(ctx context.Context, tx *sql.Tx) (map[int64]limits.Account, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, "limit", key, claimed FROM accounts`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names := make(map[int64]limits.Account)
	for rows.Next() {
		var id int64
		a, err := scanAccount(rows, &id)
		if err != nil {
			return nil, err
		}
		names[id] = a
	}
	return names, rows.Err()
}

// restore tells the quotas what was used before this process began. Where the database
// cannot be reached yet they begin without.
func (l *Ledger) restore(ctx context.Context) (err error) {
	switch {
	case l.options.Quotas == nil:
		return nil
	case l.place.IsShared(): // it will ask for each account that somebody comes for
		l.options.Quotas.Restore(nil, firstShare)
		return nil
	}
	var all []limits.Balance
	if l.store != nil {
		err = l.store.within(ctx, func(tx *sql.Tx) (err error) {
			all, err = balances(ctx, tx, time.Now())
			return err
		})
	}
	l.options.Quotas.Restore(all, 1)
	return err
}

// Balances returns what was used of quotas in the windows that are not over, and what
// was granted. It changes nothing; otherwise it is like Read.
func (p Place) Balances(ctx context.Context) (all []limits.Balance, err error) {
	err = p.look(ctx, func(tx *sql.Tx) (err error) {
		all, err = balances(ctx, tx, time.Now())
		return err
	})
	return all, err
}

// Grant has something more allowed than a quota, in the slot that d is of, for as long
// as that counts. A server that runs learns of it when it starts again; where several
// share the ledger, soon.
func (p Place) Grant(ctx context.Context, d limits.Due) error {
	s, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	return s.within(ctx, func(tx *sql.Tx) error {
		fresh, err := s.numberAccounts(ctx, tx, time.Now(), []limits.Account{d.Account})
		if err != nil {
			return err
		}
		return s.putShares(ctx, tx, shares{{fresh[d.Account], d.Start}: {d.Until, d.Used, d.Granted}})
	})
}
