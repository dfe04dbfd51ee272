package ledger

import (
	"context"
	"database/sql"
)

// userKey is a public key of a user, as it stands in a file such as id_ed25519.pub.
type userKey struct{ name, fingerprint, key string } // no key: removed

// userKeys are those of all users, by user and fingerprint.
type userKeys map[string]map[string]string

// take puts a change into force.
func (u userKeys) take(k userKey) {
	if k.key == "" {
		if delete(u[k.name], k.fingerprint); len(u[k.name]) == 0 {
			delete(u, k.name)
		}
		return
	}
	if u[k.name] == nil {
		u[k.name] = map[string]string{}
	}
	u[k.name][k.fingerprint] = k.key
}

func (u userKeys) all() map[string][]string {
	all := make(map[string][]string, len(u))
	for name, keys := range u {
		for _, key := range keys {
			all[name] = append(all[name], key)
		}
	}
	return all
}

// readKeys reads the changes after one, up to another.
func readKeys(ctx context.Context, tx *sql.Tx, after, upTo int64) (all []userKey, err error) {
	err = query(ctx, tx, func(rows *sql.Rows) error {
		var k userKey
		err := rows.Scan(&k.name, &k.fingerprint, &k.key)
		all = append(all, k)
		return err
	}, `SELECT name, fingerprint, key FROM user_keys WHERE version > $1 AND version <= $2`, after, upTo)
	return all, err
}

// AddKey gives a user a public key, by its fingerprint, or fails with [ErrNoUser]. One
// that the user has already stays as it is.
func (e PeopleEditor) AddKey(ctx context.Context, name, fingerprint, key string) error {
	return e.change(ctx, func(tx *sql.Tx, version int64) error {
		hash, err := hashOf(ctx, tx, name)
		if err == nil {
			err = mustBe(hash)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO user_keys (name, fingerprint, key, version) VALUES ($1, $2, $3, $4)
			ON CONFLICT (name, fingerprint) DO UPDATE SET key = excluded.key, version = excluded.version WHERE user_keys.key = ''`, name, fingerprint, key, version)
		return err
	})
}

// RemoveKey takes a key from a user, or fails with [ErrNoKey].
func (e PeopleEditor) RemoveKey(ctx context.Context, name, fingerprint string) error {
	return e.change(ctx, func(tx *sql.Tx, version int64) error {
		done, err := tx.ExecContext(ctx, `UPDATE user_keys SET key = '', version = $1 WHERE name = $2 AND fingerprint = $3 AND key <> ''`, version, name, fingerprint)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return ErrNoKey
	})
}

// Keys returns the public keys of a user, sorted by their fingerprints.
func (e PeopleEditor) Keys(ctx context.Context, name string) (keys []string, err error) {
	err = e.within(ctx, func(tx *sql.Tx) error {
		keys = nil
		return query(ctx, tx, func(rows *sql.Rows) error {
			var key string
			err := rows.Scan(&key)
			keys = append(keys, key)
			return err
		}, `SELECT key FROM user_keys WHERE name = $1 AND key <> '' ORDER BY fingerprint`, name)
	})
	return keys, err
}

// dropKeys takes all keys from a user.
func dropKeys(ctx context.Context, tx *sql.Tx, version int64, name string) error {
	_, err := tx.ExecContext(ctx, `UPDATE user_keys SET key = '', version = $1 WHERE name = $2 AND key <> ''`, version, name)
	return err
}
