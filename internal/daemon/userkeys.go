package daemon

import (
	"errors"

	"github.com/sallyport/sallyport/internal/access"
)

// ErrNoKey says that a user does not have a key.
var ErrNoKey = access.ErrNoKey

// UserKey is a public key of a user.
type UserKey = access.KeyInfo

// KeyFingerprint returns the fingerprint of a public key, as it stands in a file
// such as id_ed25519.pub.
func KeyFingerprint(key string) (string, error) { return access.Fingerprint(key) }

var errKeysOfFiles = errors.New("public keys are kept beside a users file; users in a ledger have passwords only")

// AddKey gives a user a public key to sign in with over ssh. It fails with
// [ErrNoUser] for a user who is not there.
func (u Users) AddKey(name, key string) error {
	e, err := u.keys()
	if err != nil {
		return err
	}
	return e.AddKey(name, key)
}

// RemoveKey takes a key from a user, or fails with [ErrNoKey].
func (u Users) RemoveKey(name, fingerprint string) error {
	e, err := u.keys()
	if err != nil {
		return err
	}
	return e.RemoveKey(name, fingerprint)
}

// Keys returns the keys of a user.
func (u Users) Keys(name string) ([]UserKey, error) {
	e, err := u.keys()
	if err != nil {
		return nil, err
	}
	return e.Keys(name)
}

// keys returns the editor of the users file.
func (u Users) keys() (access.UsersEditor, error) {
	s, err := u.store()
	if err != nil {
		return access.UsersEditor{}, err
	}
	f, ok := s.(fileUsers)
	if !ok {
		return access.UsersEditor{}, errKeysOfFiles
	}
	return f.UsersEditor, nil
}
