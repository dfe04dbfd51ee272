package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/internal/limits"
)

// QuotaReport is how all stand with the quotas. Its fields are those of [admin.Quotas].
type QuotaReport = admin.Quotas

// QuotaLine is how one stands.
type QuotaLine = admin.Quota

// QuotaGrant is what somebody is to have beyond a quota.
type QuotaGrant = admin.Grant

// askFirst puts something to the running server. It was not answered where there is none: the
// ledger is to be asked in its stead, unless a socket was named.
func (r Remote) askFirst(ctx context.Context, put func(admin.Client) error) (answered bool, err error) {
	socket, unread := r.socket()
	if unread != nil || socket == "" {
		return unread != nil, unread
	}
	if err := r.meant(ctx, socket); err != nil {
		return true, err
	}
	err = put(admin.Client{Socket: socket})
	if errors.Is(err, admin.ErrNobody) && r.Socket == "" {
		return false, nil
	}
	return true, whereElse(err)
}

// Quotas asks the running server, or, where none answers, the ledger.
func (r Remote) Quotas(ctx context.Context) (q QuotaReport, err error) {
	answered, err := r.askFirst(ctx, func(c admin.Client) error {
		q, err = c.Quotas(ctx)
		return err
	})
	if answered && !errors.Is(err, errOtherServer) { // else its own ledger has them
		return q, err
	}
	return r.quotasKept(ctx)
}

// quotasKept is how all stand by the ledger.
func (r Remote) quotasKept(ctx context.Context) (QuotaReport, error) {
	s, err := Source{File: r.File}.load()
	if err != nil {
		return QuotaReport{}, err
	}
	place, err := Usage{File: r.File}.place()
	if err != nil {
		return QuotaReport{}, err
	}
	all, err := place.Balances(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing was used
	}
	var standings []limits.Standing
	known := buildLimits(s)
	for _, b := range all {
		if l := known[b.Limit]; l.Quota > 0 {
			standings = append(standings, l.Standing(b, time.Now()))
		}
	}
	return quotas(standings), err
}

// Grant has the running server allow somebody more than a quota, or, where none
// answers, writes it into the ledger.
func (r Remote) Grant(ctx context.Context, g QuotaGrant) (q QuotaLine, err error) {
	answered, err := r.askFirst(ctx, func(c admin.Client) error {
		q, err = c.Grant(ctx, g)
		return err
	})
	if answered {
		return q, err
	}
	return r.grantKept(ctx, g)
}

// grantKept writes a grant into the ledger.
func (r Remote) grantKept(ctx context.Context, g QuotaGrant) (QuotaLine, error) {
	s, err := Source{File: r.File}.load()
	if err != nil {
		return QuotaLine{}, err
	}
	account, n, err := grant(s, g)
	if err != nil {
		return QuotaLine{}, err
	}
	limit, now := buildLimits(s)[account.Limit], time.Now()
	due, err := limit.Grant(account, n, now)
	if err != nil {
		return QuotaLine{}, err
	}
	place, err := Usage{File: r.File}.place()
	if err != nil {
		return QuotaLine{}, err
	}
	note, err := checkKey(s, account, func() (bool, error) { return r.isUser(ctx, place, account) })
	if err != nil {
		return QuotaLine{}, err
	}
	if err := place.Grant(ctx, due); err != nil {
		return QuotaLine{}, fmt.Errorf("no server answers, and the ledger cannot be written: %w", err)
	}
	all, err := place.Balances(ctx)
	for _, b := range all {
		if b.Account == due.Account {
			q := quotaOf(limit.Standing(b, now))
			q.Note = note
			return q, nil
		}
	}
	return QuotaLine{}, err
}

// isUser asks those who are kept, and the ledger for whom something was counted.
func (r Remote) isUser(ctx context.Context, place ledger.Place, a limits.Account) (bool, error) {
	all, err := place.Balances(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing was used
		return false, err
	}
	var counted []limits.Account
	for _, b := range all {
		counted = append(counted, b.Account)
	}
	store, err := Users{Settings: r.File}.store()
	if err != nil && !errors.Is(err, errNoUsers) {
		return false, err
	}
	return isUser(ctx, store, a, counted)
}
