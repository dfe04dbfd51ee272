package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/limits"
)

// Quotas implements [admin.Daemon].
func (d *Daemon) Quotas() admin.Quotas {
	standings, tallies := d.limits.Standings(time.Now())
	all := quotas(standings)
	for _, t := range tallies {
		all.Counts = append(all.Counts, admin.QuotaCounts{Limit: t.Limit, Warned: t.Warned, Refused: t.Refused, Ended: t.Ended})
	}
	return all
}

// Grant implements [admin.Daemon].
func (d *Daemon) Grant(ctx context.Context, g admin.Grant) (admin.Quota, error) {
	d.mu.Lock()
	now := d.inForce
	d.mu.Unlock()
	account, n, err := grant(now.settings, g)
	if err != nil {
		return admin.Quota{}, err
	}
	note, err := checkKey(now.settings, account, func() (bool, error) {
		standings, _ := d.limits.Standings(time.Now())
		var counted []limits.Account
		for _, s := range standings {
			counted = append(counted, s.Account)
		}
		store, _ := now.storeOfUsers()
		return isUser(ctx, store, account, counted)
	})
	if err != nil {
		return admin.Quota{}, err
	}
	standing, err := d.limits.Grant(account, n, time.Now())
	if err != nil {
		return admin.Quota{}, err
	}
	d.log.Info("more than a quota is allowed", "limit", account.Limit, "key", account.Key, "granted", g.Amount)
	q := quotaOf(standing)
	q.Note = note
	return q, nil
}

// SetRate implements [admin.Daemon].
func (d *Daemon) SetRate(r admin.Rate) error {
	var bits [3]int64
	for i, text := range []string{r.Rate, r.Up, r.Down} {
		if text == "" {
			continue
		}
		var err error
		if bits[i], err = config.ParseRate(text); err != nil {
			return err
		}
	}
	err := d.limits.SetRate(r.Limit, bits[0], bits[1], bits[2])
	if errors.Is(err, limits.ErrNoLimit) {
		return d.noRate(err)
	}
	if err == nil {
		d.log.Info("a rate was changed, until the settings are read anew", "limit", r.Limit, "rate", r.Rate, "up", r.Up, "down", r.Down)
	}
	return err
}

// noRate adds to the error of a limit that has no such rate which limits have any.
func (d *Daemon) noRate(err error) error {
	d.mu.Lock()
	settings := d.inForce.settings
	d.mu.Unlock()
	var rated []string
	for name, l := range settings.Limits {
		switch {
		case l.Rate > 0:
			rated = append(rated, fmt.Sprintf("%q (`rate`)", name))
		case l.Up > 0 || l.Down > 0:
			rated = append(rated, fmt.Sprintf("%q (`up` and `down`)", name))
		}
	}
	if len(rated) == 0 {
		return fmt.Errorf("%w; no limit of the settings has a rate", err)
	}
	slices.Sort(rated)
	return fmt.Errorf("%w; limits with a rate are %s", err, strings.Join(rated, ", "))
}

// grant makes of what a person says what the limits understand.
func grant(s *config.Settings, g admin.Grant) (limits.Account, int64, error) {
	name, err := chooseQuota(s, g.Limit)
	if err != nil {
		return limits.Account{}, 0, err
	}
	bytes, online, err := config.ParseQuota(g.Amount)
	switch isTime := s.Limits[name].QuotaTime > 0; {
	case err != nil:
		return limits.Account{}, 0, err
	case isTime && online == 0:
		return limits.Account{}, 0, fmt.Errorf("the limit %q is one of time: grant a time, such as 30m or 2h", name)
	case !isTime && bytes == 0:
		return limits.Account{}, 0, fmt.Errorf("the limit %q counts bytes: grant a size, such as 2 GiB", name)
	}
	return limits.Account{Limit: name, Key: g.Key, Claimed: g.Claimed}, bytes + int64(online), nil
}

// chooseQuota returns the limit that is meant: by its name, or the only one by user.
func chooseQuota(s *config.Settings, name string) (string, error) {
	var all, byUser []string
	for one, l := range s.Limits {
		if !l.IsQuota() || l.Per == string(limits.Session) {
			continue
		}
		all = append(all, one)
		if l.Per == string(limits.User) {
			byUser = append(byUser, one)
		}
	}
	slices.Sort(all)
	switch {
	case len(all) == 0:
		return "", errors.New("the settings have no quota that more could be granted of")
	case name != "" && slices.Contains(all, name):
		return name, nil
	case name != "":
		return "", fmt.Errorf("no quota is called %q; there are: %s", name, strings.Join(all, ", "))
	case len(byUser) == 1:
		return byUser[0], nil
	}
	return "", fmt.Errorf("which limit is meant? Say it with --limit: %s", strings.Join(all, ", "))
}

func quotas(standings []limits.Standing) admin.Quotas {
	all := admin.Quotas{Quotas: []admin.Quota{}, Counts: []admin.QuotaCounts{}}
	for _, s := range standings {
		all.Quotas = append(all.Quotas, quotaOf(s))
	}
	return all
}

func quotaOf(s limits.Standing) admin.Quota {
	q := admin.Quota{
		Limit: s.Limit, Per: string(s.Per), Key: s.Key, Claimed: s.Claimed, Unit: "bytes",
		Used: s.Used, Left: s.Left(), Most: s.Most, Granted: s.Granted, Then: s.Then, Sessions: s.Sessions,
	}
	if !s.Until.IsZero() {
		q.Until = &s.Until
	}
	switch s.Counts {
	case limits.Both:
		q.Counts = "both"
	case limits.Up:
		q.Counts = "up"
	case limits.Down:
		q.Counts = "down"
	case limits.Online:
		q.Counts, q.Unit = "time", "seconds"
		for _, n := range []*int64{&q.Used, &q.Left, &q.Most, &q.Granted} {
			*n = int64(time.Duration(*n).Seconds())
		}
	}
	return q
}
