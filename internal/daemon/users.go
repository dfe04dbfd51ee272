package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/ledger"
)

// Users changes who may sign in, for the command line: in a users file, or in a
// ledger.
type Users struct {
	File     string // a users file
	Store    string // a ledger, in its place, as in [Usage]
	Settings string // the settings file, which says which of them; empty: File or Store
}

// What is asked of Users and cannot be.
var (
	ErrUserExists = access.ErrUserExists
	ErrNoUser     = access.ErrNoUser
	ErrNoMember   = ledger.ErrNoMember
	errNoGroups   = errors.New("the groups are in the settings, not in a users file: `groups: {NAME: {ledger: true}}` and `sallyport user --config FILE` have them in the ledger")
	errNoUsers    = errors.New("the settings name no users: `users: {file: users}` or `users: {ledger: true}`")
)

// CheckUserName returns why nobody can be called name; nil: somebody can.
func CheckUserName(name string) error { return access.CheckUserName(name) }

// userStore is where users are kept.
type userStore interface {
	Has(ctx context.Context, name string) (bool, error)
	Names(ctx context.Context) ([]string, error)
	Add(ctx context.Context, name, password string) error
	SetPassword(ctx context.Context, name, password string) error
	Enable(ctx context.Context, name string, on bool) error
	Remove(ctx context.Context, name string) error
	AddKey(ctx context.Context, name, key string) error
	RemoveKey(ctx context.Context, name, fingerprint string) error
	Keys(ctx context.Context, name string) ([]UserKey, error)
}

// Where says where the users are, without a password.
func (u Users) Where() string {
	if s, err := u.store(); err == nil {
		if l, ok := s.(ledgerUsers); ok {
			return l.Place.String()
		}
		if f, ok := s.(fileUsers); ok {
			return f.Path
		}
	}
	return u.File
}

// Has reports whether there is such a user.
func (u Users) Has(ctx context.Context, name string) (bool, error) {
	s, err := u.store()
	if err != nil {
		return false, err
	}
	return s.Has(ctx, name)
}

// Names returns the names of all users.
func (u Users) Names(ctx context.Context) ([]string, error) {
	s, err := u.store()
	if err != nil {
		return nil, err
	}
	names, err := s.Names(ctx)
	return names, u.unlessNew(err)
}

// unlessNew is err, unless that is because there is nothing yet where the settings say: then
// there is nobody. Of a place that was typed it may be a slip.
func (u Users) unlessNew(err error) error {
	if u.Settings != "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Add adds a user, or fails with [ErrUserExists].
func (u Users) Add(ctx context.Context, name, password string) error {
	return u.change(func(s userStore) error { return s.Add(ctx, name, password) })
}

// SetPassword sets another password, or fails with [ErrNoUser].
func (u Users) SetPassword(ctx context.Context, name, password string) error {
	return u.change(func(s userStore) error { return s.SetPassword(ctx, name, password) })
}

// Enable lets a user sign in again, or not any more, or fails with [ErrNoUser].
func (u Users) Enable(ctx context.Context, name string, on bool) error {
	return u.change(func(s userStore) error { return s.Enable(ctx, name, on) })
}

// Remove takes a user out, or fails with [ErrNoUser].
func (u Users) Remove(ctx context.Context, name string) error {
	return u.change(func(s userStore) error { return s.Remove(ctx, name) })
}

func (u Users) change(f func(userStore) error) error {
	s, err := u.store()
	if err != nil {
		return err
	}
	return f(s)
}

// Join puts somebody into a group of the ledger's.
func (u Users) Join(ctx context.Context, name, group string) error {
	e, err := u.groups()
	if err == nil {
		err = cmp.Or(CheckUserName(name), access.CheckGroupName(group), u.hasGroup(group))
	}
	if err != nil {
		return err
	}
	return e.Join(ctx, name, group)
}

// hasGroup returns why the settings, if they are known, have no use for a group of the
// ledger's.
func (u Users) hasGroup(group string) error {
	if u.Settings == "" {
		return nil
	}
	s, err := Source{File: u.Settings}.load()
	if err != nil || slices.Contains(s.LedgerGroups, group) {
		return err
	}
	return fmt.Errorf("the settings have no group %q in the ledger; `groups: {%s: {ledger: true}}` makes it one", group, group)
}

// Leave takes somebody out of a group of the ledger's, or fails with [ErrNoMember].
func (u Users) Leave(ctx context.Context, name, group string) error {
	e, err := u.groups()
	if err != nil {
		return err
	}
	return e.Leave(ctx, name, group)
}

// Groups returns who is in each group of the ledger's.
func (u Users) Groups(ctx context.Context) (map[string][]string, error) {
	e, err := u.groups()
	if err != nil {
		return nil, err
	}
	groups, err := e.Groups(ctx)
	return groups, u.unlessNew(err)
}

func (u Users) groups() (ledger.PeopleEditor, error) {
	if u.Settings == "" && u.Store == "" {
		return ledger.PeopleEditor{}, errNoGroups
	}
	place, err := Usage{File: u.Settings, Store: u.Store}.place()
	return ledger.PeopleEditor{Place: place}, err
}

func (u Users) store() (userStore, error) {
	if u.Store == "" && u.Settings == "" {
		return fileUsers{access.UsersEditor{Path: u.File}}, nil
	}
	if u.Settings != "" {
		s, err := Source{File: u.Settings}.load()
		switch {
		case err != nil:
			return nil, err
		case s.Users.File != "":
			return fileUsers{access.UsersEditor{Path: s.Users.File}}, nil
		case !s.Users.Ledger:
			return nil, errNoUsers
		}
	}
	place, err := Usage{File: u.Settings, Store: u.Store}.place()
	return ledgerUsers{ledger.PeopleEditor{Place: place}}, err
}

// fileUsers are those of a users file.
type fileUsers struct{ access.UsersEditor }

func (f fileUsers) Has(_ context.Context, name string) (bool, error) { return f.UsersEditor.Has(name) }

func (f fileUsers) Names(context.Context) ([]string, error) { return f.UsersEditor.Names() }

func (f fileUsers) Add(_ context.Context, name, password string) error {
	return f.UsersEditor.Add(name, password)
}

func (f fileUsers) Remove(_ context.Context, name string) error { return f.UsersEditor.Remove(name) }

func (f fileUsers) SetPassword(_ context.Context, name, password string) error {
	return f.UsersEditor.SetPassword(name, password)
}

func (f fileUsers) Enable(_ context.Context, name string, on bool) error {
	return f.UsersEditor.Enable(name, on)
}

// ledgerUsers are those of a ledger.
type ledgerUsers struct{ ledger.PeopleEditor }

func (l ledgerUsers) Has(ctx context.Context, name string) (bool, error) {
	hash, err := l.Hash(ctx, name)
	return hash != "", err
}

func (l ledgerUsers) Add(ctx context.Context, name, password string) error {
	if err := cmp.Or(access.CheckUserName(name), access.CheckPassword(password)); err != nil {
		return err
	}
	return inAccess(l.PeopleEditor.Add(ctx, name, access.HashPassword(password)))
}

func (l ledgerUsers) SetPassword(ctx context.Context, name, password string) error {
	if err := access.CheckPassword(password); err != nil {
		return err
	}
	hash := access.HashPassword(password)
	return inAccess(l.ChangeHash(ctx, name, func(old string) string { return access.Enable(hash, access.IsEnabled(old)) }))
}

func (l ledgerUsers) Enable(ctx context.Context, name string, on bool) error {
	return inAccess(l.ChangeHash(ctx, name, func(old string) string { return access.Enable(old, on) }))
}

func (l ledgerUsers) Remove(ctx context.Context, name string) error {
	return inAccess(l.PeopleEditor.Remove(ctx, name))
}

// inAccess says in the words for a users file what the ledger has said.
func inAccess(err error) error {
	switch {
	case errors.Is(err, ledger.ErrUserExists):
		return ErrUserExists
	case errors.Is(err, ledger.ErrNoUser):
		return ErrNoUser
	case errors.Is(err, ledger.ErrNoKey):
		return ErrNoKey
	}
	return err
}
