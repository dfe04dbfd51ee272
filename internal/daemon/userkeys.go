package daemon

import (
	"context"
	"errors"
	"strings"

	"github.com/sallyport/sallyport/internal/access"
)

// ErrNoKey says that a user does not have a key.
var ErrNoKey = access.ErrNoKey

// UserKey is a public key of a user.
type UserKey = access.KeyInfo

// KeyFingerprint returns the fingerprint of a public key, as it stands in a file
// such as id_ed25519.pub.
func KeyFingerprint(key string) (string, error) {
	info, err := access.DescribeKey("", key)
	return info.Fingerprint, err
}

// AddKey gives a user a public key to sign in with over ssh. It fails with
// [ErrNoUser] for a user who is not there.
func (u Users) AddKey(ctx context.Context, name, key string) error {
	return u.change(func(s userStore) error { return s.AddKey(ctx, name, key) })
}

// RemoveKey takes a key from a user, or fails with [ErrNoKey].
func (u Users) RemoveKey(ctx context.Context, name, fingerprint string) error {
	return u.change(func(s userStore) error { return s.RemoveKey(ctx, name, fingerprint) })
}

// Keys returns the keys of a user.
func (u Users) Keys(ctx context.Context, name string) ([]UserKey, error) {
	s, err := u.store()
	if err != nil {
		return nil, err
	}
	return s.Keys(ctx, name)
}

func (f fileUsers) AddKey(_ context.Context, name, key string) error {
	return f.UsersEditor.AddKey(name, key)
}

func (f fileUsers) RemoveKey(_ context.Context, name, fingerprint string) error {
	return f.UsersEditor.RemoveKey(name, fingerprint)
}

func (f fileUsers) Keys(_ context.Context, name string) ([]UserKey, error) {
	return f.UsersEditor.Keys(name)
}

func (l ledgerUsers) AddKey(ctx context.Context, name, key string) error {
	key = strings.TrimSpace(key)
	fingerprint, err := KeyFingerprint(key)
	if err != nil {
		return err
	}
	return inAccess(l.PeopleEditor.AddKey(ctx, name, fingerprint, key))
}

func (l ledgerUsers) RemoveKey(ctx context.Context, name, fingerprint string) error {
	return inAccess(l.PeopleEditor.RemoveKey(ctx, name, fingerprint))
}

func (l ledgerUsers) Keys(ctx context.Context, name string) ([]UserKey, error) {
	texts, err := l.PeopleEditor.Keys(ctx, name)
	var all []UserKey
	var faults []error
	for _, text := range texts {
		key, err := access.DescribeKey(name, text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		all = append(all, key)
	}
	return all, errors.Join(append(faults, err)...)
}
