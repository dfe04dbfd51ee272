package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
)

// errNobody is why nothing is granted to a name that nobody can have.
var errNobody = errors.New("nobody is called that")

// storeOfUsers is where the users are kept by settings that are in force; false: nowhere.
func (f *inForce) storeOfUsers() (userStore, bool) {
	switch s := f.settings.Users; {
	case s.File != "":
		return fileUsers{access.UsersEditor{Path: s.File}}, true
	case s.Ledger && f.rules.people != nil:
		return ledgerUsers{ledger.PeopleEditor{Place: f.rules.people.place}}, true
	}
	return nil, false
}

// checkKey looks whether an account that is to have more can be anybody's: a name with a
// mistake in it would else be granted something in silence. has says whether there is
// such a user. The error is that nobody can be meant; the note is for a
// person where it cannot be told, since others than we know who has that name.
func checkKey(s *config.Settings, a limits.Account, has func() (bool, error)) (note string, err error) {
	switch limits.Per(s.Limits[a.Limit].Per) {
	case limits.Group:
		if groups := groupNames(s); a.Key != "" && !slices.Contains(groups, a.Key) {
			return "", fmt.Errorf("the settings have no group %q; there are: %s", a.Key, strings.Join(groups, ", "))
		}
		return "", nil
	case limits.User:
		if a.Key == "" || a.Claimed || isNamed(s, a.Key) { // who only claims a name can claim any
			return "", nil
		}
	default:
		return "", nil
	}
	there, err := has()
	switch {
	case err != nil:
		return fmt.Sprintf("whether there is a user %q cannot be told now: %v", a.Key, err), nil
	case there:
		return "", nil
	case namesElsewhere(s):
		return fmt.Sprintf("no user is called %q, and no rule names one: it is granted to whom a certificate or an identd will call so", a.Key), nil
	}
	return "", fmt.Errorf("%w: %q is no user, no rule names one, and nothing was counted for one; "+
		"`sallyport user list` and `sallyport usage quotas` show who there is (a name that is only claimed needs --claimed)", errNobody, a.Key)
}

// groupNames returns the names of all groups.
func groupNames(s *config.Settings) []string {
	groups := slices.Clone(s.LedgerGroups)
	for name := range s.Groups {
		if !slices.Contains(groups, name) {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return groups
}

// isNamed reports whether the settings name this user.
func isNamed(s *config.Settings, name string) bool {
	for _, members := range s.Groups {
		if slices.Contains(members, name) {
			return true
		}
	}
	return slices.ContainsFunc(s.Rules, func(r config.Rule) bool { return slices.Contains(r.Users, name) }) ||
		slices.ContainsFunc(s.VirtualPorts, func(p config.VirtualPort) bool { return slices.Contains(p.Users, name) })
}

// namesElsewhere reports whether clients can prove names of which neither the settings
// nor the users tell: by certificates, by an identd, or as members of groups that the ledger has.
func namesElsewhere(s *config.Settings) bool {
	byCertificate := func(l config.Listener) bool { return l.TLS.ClientCA != "" }
	byIdentd := func(r config.Rule) bool {
		asks := slices.Contains(r.Users, "any") || len(r.Users) == 0 && len(r.Proof) > 0
		return asks && !r.Deny && (len(r.Proof) == 0 || slices.Contains(r.Proof, string(server.Ident)))
	}
	return len(s.LedgerGroups) > 0 || slices.ContainsFunc(s.Listeners, byCertificate) || slices.ContainsFunc(s.Rules, byIdentd)
}

// isUser reports whether the store has such a user, or something was counted for one.
func isUser(ctx context.Context, store userStore, a limits.Account, counted []limits.Account) (bool, error) {
	if slices.Contains(counted, a) {
		return true, nil
	}
	if store == nil {
		return false, nil
	}
	return store.Has(ctx, a.Key)
}
