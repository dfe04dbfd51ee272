package daemon

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/upstream"
	"github.com/sallyport/sallyport/server"
)

// manager is a daemon as administrators see it: it implements [admin.Users],
// [admin.Rules], [admin.History], [admin.Health] and [admin.Meters].
type manager struct{ *Daemon }

// current returns what is in force.
func (m manager) current() *inForce {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inForce
}

// Users implements [admin.Users].
func (m manager) Users(ctx context.Context) (admin.UserList, error) {
	now := m.current()
	hashes, kept, err := m.hashes(now)
	list := admin.UserList{Kept: kept, Users: []admin.User{}, Groups: now.settings.LedgerGroups}
	if err != nil || !kept {
		return list, err
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	ofDay := m.useSince(ctx, today)
	ofMonth := m.useSince(ctx, today.AddDate(0, 0, 1-today.Day()))
	open := map[string]int{}
	for _, s := range m.live.Sessions() {
		open[s.Now().Identity.Name]++
	}
	quotas := map[string][]admin.Quota{}
	for _, q := range m.Quotas().Quotas {
		if q.Per == string(limits.User) && !q.Claimed {
			quotas[q.Key] = append(quotas[q.Key], q)
		}
	}
	groups := groupsOf(now.rules.people.fill(now.settings).Groups)
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		list.Users = append(list.Users, admin.User{
			Name: name, Disabled: !access.IsEnabled(hashes[name]), Groups: groups[name], Sessions: open[name],
			Today: ofDay[name], Month: ofMonth[name], Quotas: quotas[name],
		})
	}
	return list, nil
}

// hashes returns the users with their hashes; kept is false where the settings have
// no place for any.
func (m manager) hashes(now *inForce) (_ map[string]string, kept bool, err error) {
	switch s := now.settings.Users; {
	case s.File != "":
		hashes, err := access.UsersEditor{Path: s.File}.Hashes()
		return hashes, true, err
	case s.Ledger && now.rules.people != nil:
		return now.rules.people.kept.Hashes(), true, nil
	}
	return nil, false, nil
}

// useSince returns what each user has used; nothing where that is not kept.
func (m manager) useSince(ctx context.Context, since time.Time) map[string]admin.Use {
	all := map[string]admin.Use{}
	place, err := m.place()
	if err != nil {
		return all
	}
	r, err := place.Read(ctx, ledger.Query{By: "user", Since: since})
	if err != nil {
		m.log.Debug("the ledger cannot be read", "error", err)
		return all
	}
	for _, line := range r.Lines {
		all[line.Name] = admin.Use(line.Counts)
	}
	return all
}

// change does something to where the users are kept, and has it hold at once.
func (m manager) change(ctx context.Context, do func(userStore) error) error {
	now := m.current()
	store, kept := now.storeOfUsers()
	if !kept {
		return admin.ErrNoUsers
	}
	err := do(store)
	switch {
	case errors.Is(err, ErrUserExists):
		return admin.ErrUserExists
	case errors.Is(err, ErrNoUser):
		return admin.ErrNoUser
	case err != nil:
		return err
	}
	if now.rules.file != nil {
		now.rules.file.Look()
		m.review()
		return nil
	}
	return now.rules.people.look(ctx, m.Daemon)
}

// AddUser implements [admin.Users].
func (m manager) AddUser(ctx context.Context, name, password string) error {
	if err := cmp.Or(access.CheckUserName(name), access.CheckPassword(password)); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrBadUser, err)
	}
	return m.change(ctx, func(s userStore) error { return s.Add(ctx, name, password) })
}

// SetPassword implements [admin.Users].
func (m manager) SetPassword(ctx context.Context, name, password string) error {
	if err := access.CheckPassword(password); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrBadUser, err)
	}
	return m.change(ctx, func(s userStore) error { return s.SetPassword(ctx, name, password) })
}

// EnableUser implements [admin.Users].
func (m manager) EnableUser(ctx context.Context, name string, on bool) error {
	return m.change(ctx, func(s userStore) error { return s.Enable(ctx, name, on) })
}

// RemoveUser implements [admin.Users].
func (m manager) RemoveUser(ctx context.Context, name string) error {
	return m.change(ctx, func(s userStore) error { return s.Remove(ctx, name) })
}

// SetGroups implements [admin.Users].
func (m manager) SetGroups(ctx context.Context, name string, wanted []string) error {
	now := m.current()
	hashes, _, err := m.hashes(now)
	if err != nil {
		return err
	}
	if hashes[name] == "" {
		return admin.ErrNoUser
	}
	kept := now.settings.LedgerGroups
	if slices.ContainsFunc(wanted, func(group string) bool { return !slices.Contains(kept, group) }) {
		return admin.ErrNoGroup
	}
	people := now.rules.people
	if people == nil {
		return nil // there are no groups to be in
	}
	for _, group := range kept {
		isIn, toBe := slices.Contains(people.kept.Members(group), name), slices.Contains(wanted, group)
		edit := ledger.PeopleEditor{Place: people.place}
		switch {
		case isIn && !toBe:
			err = edit.Leave(ctx, name, group)
		case !isIn && toBe:
			err = edit.Join(ctx, name, group)
		}
		if err != nil && !errors.Is(err, ledger.ErrNoMember) { // somebody else was quicker
			return err
		}
	}
	return people.look(ctx, m.Daemon)
}

// Rules implements [admin.Rules].
func (m manager) Rules() []admin.Rule {
	hits := m.live.Rules()
	all := []admin.Rule{}
	for _, r := range m.current().settings.Rules {
		all = append(all, admin.Rule{
			Name: r.Name, Deny: r.Deny, Limits: r.Limits, Via: r.Via, Hits: hits[r.Name].Hits, Last: hits[r.Name].Last,
		})
	}
	return all
}

// Listeners implements [admin.Rules].
func (m manager) Listeners() []string {
	var names []string
	for _, l := range m.current().settings.Listeners {
		if name := nameOf(l); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Explain implements [admin.Rules]. It is `sallyport explain` by the rules in force.
func (m manager) Explain(ctx context.Context, q admin.Question) (*admin.Explanation, error) {
	ask, err := ParseQuestion(q, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadQuestion, err)
	}
	now := m.current()
	e, err := rehearse(now.settings, now.rules).explain(ctx, ask)
	if bad, ok := errors.AsType[*QuestionError](err); ok {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadQuestion, bad)
	}
	return e, err
}

// Limits implements [admin.Rules].
func (m manager) Limits() []admin.Limit {
	all := []admin.Limit{}
	written := m.current().settings.Limits
	for _, name := range slices.Sorted(maps.Keys(written)) {
		l := written[name]
		all = append(all, admin.Limit{Name: name, Per: l.Per, Text: limitText(l), Kind: limitKind(l)})
	}
	return all
}

// Usage implements [admin.History].
func (m manager) Usage(ctx context.Context, q admin.UsageQuery) (*admin.UsageReport, error) {
	ask := ledger.Query{By: cmp.Or(q.By, "day"), User: q.User, Source: q.Source, Rule: q.Rule}
	if !slices.Contains(ledger.Groups(), ask.By) {
		return nil, fmt.Errorf("%w: by: it is one of %s", admin.ErrBadQuestion, strings.Join(ledger.Groups(), ", "))
	}
	now := time.Now()
	for _, one := range []struct {
		name, text string
		to         *time.Time
	}{{"since", cmp.Or(q.Since, "30d"), &ask.Since}, {"until", q.Until, &ask.Until}} {
		if one.text == "" {
			continue
		}
		var err error
		if *one.to, err = ParseTime(one.text, now); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", admin.ErrBadQuestion, one.name, err)
		}
	}
	place, err := m.place()
	if err != nil {
		return nil, err
	}
	found, err := place.Read(ctx, ask)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, admin.ErrNoLedger
	}
	if err != nil {
		return nil, err
	}
	report := &admin.UsageReport{Since: found.Since, Until: found.Until, Sum: admin.Use(found.Sum), Lines: []admin.UsageLine{}}
	for _, l := range found.Lines {
		report.Lines = append(report.Lines, admin.UsageLine{Name: l.Name, Use: admin.Use(l.Counts)})
	}
	return report, nil
}

// place is where the ledger is.
func (m manager) place() (ledger.Place, error) {
	if m.ledger == nil {
		return "", admin.ErrNoLedger
	}
	return cmp.Or(placeOf(m.current().settings.Ledger), ledger.Place(ledger.DefaultPath())), nil
}

// Health implements [admin.Health].
func (m manager) Health() admin.HealthReport {
	now := m.current()
	refused, status := m.live.Totals().Refused, m.Status()
	h := admin.HealthReport{
		Resolver: "the system's resolver", NoName: refused[server.NoName], NoIdentd: refused[server.NoIdentd], OtherUser: refused[server.OtherUser],
		Upstreams: []admin.Upstream{}, Certificates: certificates(now.settings), Reload: status.Reload, Ledger: status.Ledger,
	}
	var servers []string
	for _, at := range now.settings.Resolver.Servers {
		servers = append(servers, at.String())
	}
	if len(servers) > 0 {
		h.Resolver = strings.Join(servers, ", ")
	}
	for _, way := range now.rules.ways {
		if pool, ok := way.Upstream.(*upstream.Pool); ok {
			for _, p := range pool.Proxies() {
				h.Upstreams = append(h.Upstreams, admin.Upstream{Name: way.Via, Proxy: p.Name, Up: p.Up})
			}
		}
	}
	slices.SortStableFunc(h.Upstreams, func(a, b admin.Upstream) int { return strings.Compare(a.Name, b.Name) })
	return h
}

// certificates are those in the files of the settings, as they are now.
func certificates(s *config.Settings) []admin.Certificate {
	all := []admin.Certificate{}
	add := func(listener string, t config.TLS) {
		if t.Certificate == "" {
			return
		}
		c := admin.Certificate{Listener: listener, File: t.Certificate}
		if leaf, err := readCertificate(t); err != nil {
			c.Fault = err.Error()
		} else {
			c.Subject, c.Expires = access.Escape(leaf.Subject.String()), leaf.NotAfter
		}
		all = append(all, c)
	}
	for _, l := range s.Listeners {
		add(nameOf(l), l.TLS)
	}
	add("(dashboard)", s.Admin.TLS)
	return all
}

func readCertificate(t config.TLS) (*x509.Certificate, error) {
	pair, err := readPair(t)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

// panel is what administrators see and steer.
func (d *Daemon) panel(keeper admin.Doorkeeper) *admin.Panel {
	m := manager{d}
	written := m.current().settings.Admin
	return &admin.Panel{
		Daemon: d, Live: seen{d.live, d.started}, Users: m, Rules: m, History: m, Health: m, Meters: m,
		Doorkeeper: keeper, Version: d.source.Version, Hosts: written.Hosts, OpenMetrics: written.OpenMetrics,
	}
}
