package access

import (
	"log/slog"
	"sync/atomic"
)

// Directory is where [Passwords] has its users from: a [*UsersFile], or a
// [*UserList].
type Directory interface {
	current() *users // as they are now, give or take a second; may read a file
	latest() *users  // as they were last seen
}

// UserList is users that somebody else keeps, as a database does. Make one with
// [NewUserList]. Safe for concurrent use.
type UserList struct {
	log *slog.Logger
	now atomic.Pointer[users]
}

// NewUserList returns a list of nobody. What is wrong with a user is a line in log.
func NewUserList(log *slog.Logger) *UserList {
	l := &UserList{log: log}
	l.now.Store(&users{newAccounts(nil, nil), newVerified(), &keys{}})
	return l
}

// Set puts other users in the place of those before: for each name the hashed
// password, as a users file would have it, and the public keys, as they stand in a file
// such as id_ed25519.pub. A user whose name or hash is no good cannot sign in, nor with
// a key that is none, and all others can. One call at a time.
func (l *UserList) Set(texts map[string]string, keysOf map[string][]string) {
	before := l.now.Load().accounts
	hashes, marks := make(map[string]hash, len(texts)), make(map[string]uint64, len(texts))
	for name, text := range texts {
		mark := markOf(text)
		h, known := before.hashes[name]
		if !known || before.marks[name] != mark {
			err := checkName(name)
			if err == nil {
				h, err = parseHash(text)
			}
			if err != nil {
				l.log.Error("a user cannot sign in: what the ledger has is no good", "user", Escape(name), "error", Escape(err.Error()))
				continue
			}
		}
		hashes[name], marks[name] = h, mark
	}
	l.now.Store(&users{newAccounts(hashes, marks), newVerified(), l.readKeys(keysOf)})
}

// readKeys leaves out those that are no good.
func (l *UserList) readKeys(of map[string][]string) *keys {
	k := &keys{byName: make(map[string]map[string]uint64, len(of))}
	for name, texts := range of {
		k.byName[name] = make(map[string]uint64, len(texts))
		for _, text := range texts {
			key, err := parseKey(text)
			if err != nil {
				l.log.Error("a user cannot sign in with a key: what the ledger has is no good", "user", Escape(name), "error", Escape(err.Error()))
				continue
			}
			k.byName[name][string(key.Marshal())] = markOf(text)
		}
	}
	return k
}

func (l *UserList) current() *users { return l.now.Load() }
func (l *UserList) latest() *users  { return l.now.Load() }

// HashPassword returns the hash of a password as a users file has it. It takes as
// long as a login.
func HashPassword(password string) string { return newHash(password).String() }
