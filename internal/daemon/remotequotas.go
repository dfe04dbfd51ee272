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

// Quotas asks the running server, or, where none answers, the ledger.
func (r Remote) Quotas(ctx context.Context) (QuotaReport, error) {
	socket, unread := r.socket()
	if unread != nil {
		return QuotaReport{}, unread
	}
	if socket != "" {
		q, err := admin.Client{Socket: socket}.Quotas(ctx)
		if !errors.Is(err, admin.ErrNobody) || r.Socket != "" {
			return q, err
		}
	}
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
func (r Remote) Grant(ctx context.Context, g QuotaGrant) (QuotaLine, error) {
	socket, unread := r.socket()
	if unread != nil {
		return QuotaLine{}, unread
	}
	if socket != "" {
		q, err := admin.Client{Socket: socket}.Grant(ctx, g)
		if !errors.Is(err, admin.ErrNobody) || r.Socket != "" {
			return q, err
		}
	}
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
