package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/ledger"
)

// people are the users and the groups that the ledger holds, as rules take them.
type people struct {
	place ledger.Place
	kept  *ledger.People
	list  *access.UserList
}

// wantsPeople reports whether the ledger is to have any.
func wantsPeople(s *config.Settings) bool { return s.Users.Ledger || len(s.LedgerGroups) > 0 }

// openPeople reads those that the ledger has; nil: it is to have none. Those before go
// on. The error is that they cannot be read now: they may be later, unless it wraps
// [ledger.ErrUnusable].
func openPeople(ctx context.Context, s *config.Settings, before *inForce, log *slog.Logger) (*people, error) {
	if !wantsPeople(s) {
		return nil, nil
	}
	if before != nil && before.rules.people != nil {
		return before.rules.people, nil // where the ledger is changes only with a restart
	}
	place := placeOf(s.Ledger)
	if place == "" {
		usual := ledger.DefaultPath()
		if usual == "" {
			return nil, errors.New("the ledger is to have the users, and this system has no folder for it; `ledger: sqlite:FILE` names one")
		}
		if err := os.MkdirAll(filepath.Dir(usual), 0o700); err != nil {
			return nil, err
		}
		place = ledger.Place(usual)
	}
	p := &people{place, place.People(log), access.NewUserList(log)}
	defer p.kept.Close() // who watches opens it again
	err := p.kept.Look(ctx, func(ledger.Changed) {})
	p.list.Set(p.kept.Hashes(), p.kept.Keys())
	return p, err
}

// openServed is openPeople for a server, which does without for a while.
func openServed(ctx context.Context, s *config.Settings, before *inForce, log *slog.Logger) (*people, error) {
	p, err := openPeople(ctx, s, before, log)
	if p != nil && err != nil && !errors.Is(err, ledger.ErrUnusable) {
		log.Error("the users in the ledger cannot be read: nobody can sign in until they can", "ledger", p.place.String(), "error", err)
		return p, nil
	}
	return p, err
}

// fill returns the settings with the members of the groups that the ledger has.
func (p *people) fill(s *config.Settings) *config.Settings {
	if p == nil || len(s.LedgerGroups) == 0 {
		return s
	}
	filled := *s
	filled.Groups = maps.Clone(s.Groups)
	for _, group := range s.LedgerGroups {
		filled.Groups[group] = p.kept.Members(group)
	}
	return &filled
}

// watch follows the changes that are made on any node.
func (p *people) watch(ctx context.Context, d *Daemon) {
	p.kept.Watch(ctx, func(found ledger.Changed) { p.follow(found, d) })
}

// look has a change that was made just now hold at once.
func (p *people) look(ctx context.Context, d *Daemon) error {
	return p.kept.Look(ctx, func(found ledger.Changed) { p.follow(found, d) })
}

// follow puts what has changed in force.
func (p *people) follow(found ledger.Changed, d *Daemon) {
	if found.Users {
		hashes := p.kept.Hashes()
		p.list.Set(hashes, p.kept.Keys())
		d.log.Info("the users in the ledger were read again", "users", len(hashes))
	}
	if found.Groups {
		d.regroup()
	}
	d.review()
}

// regroup makes the rules in force anew, now that others are in the groups.
func (d *Daemon) regroup() {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.mu.Lock()
	now := d.inForce
	d.mu.Unlock()
	if len(now.settings.LedgerGroups) == 0 {
		return
	}
	rules, err := buildRules(now.settings, now, now.rules.people, &d.limits, d.log)
	if err != nil {
		d.log.Error("the groups in the ledger have changed, and the rules stay as they were", "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil {
		return
	}
	d.inForce = &inForce{now.settings, rules, now.doors, now.access}
	d.ruling.now.Store(rules)
	d.run.watchRules(rules)
	d.log.Info("the groups in the ledger were read again", "groups", slices.Sorted(slices.Values(now.settings.LedgerGroups)))
}
