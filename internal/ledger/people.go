package ledger

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// peopleTables is a step of migrations.
const peopleTables = `CREATE TABLE users (name TEXT PRIMARY KEY, hash TEXT NOT NULL, version {int} NOT NULL); -- no hash: removed
	CREATE TABLE members ("group" TEXT NOT NULL, name TEXT NOT NULL, present {int} NOT NULL, version {int} NOT NULL, PRIMARY KEY ("group", name));
	CREATE TABLE versions (name TEXT PRIMARY KEY, version {int} NOT NULL);
	CREATE INDEX users_version ON users (version);
	CREATE INDEX members_version ON members (version);`

// keyTables is another.
const keyTables = `CREATE TABLE user_keys (
		name TEXT NOT NULL, fingerprint TEXT NOT NULL, key TEXT NOT NULL, version {int} NOT NULL, -- no key: removed
		PRIMARY KEY (name, fingerprint));
	CREATE INDEX user_keys_version ON user_keys (version);`

// People are the users and groups that a ledger holds, as this process knows them.
// What has changed is read, and nothing else: each change has a number, and the
// transaction that makes it keeps others from making one. Make one with
// [Place.People]. Safe for concurrent use, but for Watch, of which there is one.
type People struct {
	place Place
	log   *slog.Logger

	looking sync.Mutex // held while the ledger is asked and what it says is put in force, and taken before mu
	store   *store     // nil: it is not open. Guarded by looking
	opened  bool       // it was open once. Guarded by looking

	mu      sync.Mutex
	seen    int64             // the last change that is known
	hashes  map[string]string // by user
	keys    userKeys
	members map[string]map[string]bool // by group and user
}

// People returns the people that the ledger at the place holds: nobody yet.
func (p Place) People(log *slog.Logger) *People {
	return &People{place: p, log: log, hashes: map[string]string{}, keys: userKeys{}, members: map[string]map[string]bool{}}
}

// Hashes returns the hashed password of each user.
func (p *People) Hashes() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.hashes)
}

// Keys returns the public keys of each user who has any, in no order.
func (p *People) Keys() map[string][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys.all()
}

// Members returns the names of those in a group, sorted.
func (p *People) Members(group string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.members[group]))
}

// Changed is what a look has found. Users are also those with other keys.
type Changed struct{ Users, Groups bool }

// Look reads what has changed since the last look, and calls changed with it if that is
// anything. Nobody else looks meanwhile, so whoever puts into force what is known then
// never does so after somebody who knew more; changed must not look, or close. It blocks
// while the ledger is asked.
func (p *People) Look(ctx context.Context, changed func(Changed)) error {
	p.looking.Lock()
	defer p.looking.Unlock()
	found, err := p.ask(ctx)
	if err != nil {
		if !errors.Is(err, errAstray) { // which another one would not mend
			p.forsake()
		}
		return err
	}
	if found != (Changed{}) {
		changed(found)
	}
	return nil
}

// ask is Look without its consequences. Callers hold looking.
func (p *People) ask(ctx context.Context) (Changed, error) {
	ctx, cancel := context.WithTimeout(ctx, p.place.patience())
	defer cancel()
	if p.store == nil {
		open := p.place.open
		if p.opened {
			open = p.place.reopen
		}
		var err error
		if p.store, err = open(ctx); err != nil {
			return Changed{}, err
		}
		p.opened = true
	}
	if err := p.store.dialect.astray(); err != nil {
		return Changed{}, err
	}
	return p.look(ctx)
}

// Close closes what Look and Watch have opened. A look after it opens it again.
func (p *People) Close() {
	p.looking.Lock()
	defer p.looking.Unlock()
	p.forsake()
}

// forsake closes the store. Callers hold looking.
func (p *People) forsake() {
	if p.store != nil {
		p.store.close()
		p.store = nil
	}
}

// news is what was read of some changes.
type news struct {
	version int64
	users   map[string]string // no hash: removed
	keys    []userKey
	members []membership
}

type membership struct {
	group, name string
	present     bool
}

func (p *People) look(ctx context.Context) (found Changed, err error) {
	p.mu.Lock()
	seen := p.seen
	p.mu.Unlock()
	var n news
	if version, err := lastChange(ctx, p.store.db); err != nil || version == seen { // the rule
		return Changed{}, err
	}
	err = p.store.within(ctx, func(tx *sql.Tx) error { return n.read(ctx, tx, seen) })
	if err != nil || n.version == seen {
		return Changed{}, err
	}
	return p.take(n, n.version < seen), nil
}

// read reads the changes after one, in the place of what it read before: it may be tried
// again. If there are fewer than that, it is another ledger, such as one from a backup:
// then it reads all there are.
func (n *news) read(ctx context.Context, tx *sql.Tx, seen int64) error {
	version, err := lastChange(ctx, tx)
	if *n = (news{version: version, users: map[string]string{}}); err != nil || version == seen {
		return err
	}
	if n.version < seen {
		seen = 0
	}
	// What is changed meanwhile has a higher number, and is read by the next look.
	err = query(ctx, tx, func(rows *sql.Rows) error {
		var name, hash string
		err := rows.Scan(&name, &hash)
		n.users[name] = hash
		return err
	}, `SELECT name, hash FROM users WHERE version > $1 AND version <= $2`, seen, n.version)
	if err != nil {
		return err
	}
	if n.keys, err = readKeys(ctx, tx, seen, n.version); err != nil {
		return err
	}
	return query(ctx, tx, func(rows *sql.Rows) error {
		var m membership
		err := rows.Scan(&m.group, &m.name, &m.present)
		n.members = append(n.members, m)
		return err
	}, `SELECT "group", name, present <> 0 FROM members WHERE version > $1 AND version <= $2`, seen, n.version)
}

// lastChange returns the number of the last change; 0: there was none.
func lastChange(ctx context.Context, from interface {
	QueryRowContext(ctx context.Context, statement string, values ...any) *sql.Row
},
) (version int64, err error) {
	err = from.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM versions WHERE name = 'people'`).Scan(&version)
	return version, err
}

// take puts news into force; anew: they are all there is.
func (p *People) take(n news, anew bool) Changed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if anew {
		clear(p.hashes)
		clear(p.keys)
		clear(p.members)
	}
	p.seen = n.version
	for name, hash := range n.users {
		if hash == "" {
			delete(p.hashes, name)
		} else {
			p.hashes[name] = hash
		}
	}
	for _, k := range n.keys {
		p.keys.take(k)
	}
	for _, m := range n.members {
		if p.members[m.group] == nil {
			p.members[m.group] = map[string]bool{}
		}
		if m.present {
			p.members[m.group][m.name] = true
		} else {
			delete(p.members[m.group], m.name)
		}
	}
	return Changed{Users: anew || len(n.users)+len(n.keys) > 0, Groups: anew || len(n.members) > 0}
}

// Watch looks whenever somebody has changed people, on whichever node, until ctx ends,
// and calls changed with what it has found, as Look does. A ledger that is away changes nothing: who
// is known stays known, and the log says it once. It blocks.
func (p *People) Watch(ctx context.Context, changed func(Changed)) {
	defer p.Close()
	lost := false
	pause := time.Second
	for ctx.Err() == nil {
		err := p.follow(ctx, changed, func() {
			if lost {
				p.log.Info("the users in the ledger can be read again", "ledger", p.place.String())
			}
			lost, pause = false, time.Second
		})
		if ctx.Err() != nil {
			return
		}
		if !lost {
			lost = true
			p.log.Error("the users in the ledger cannot be read: they stay as they were", "ledger", p.place.String(), "error", p.place.explain(err))
		}
		if rest(ctx, pause) {
			pause = min(2*pause, 10*time.Second)
		}
	}
}

// errForsaken is why it cannot be listened to: another look, in between, has failed, and
// whoever looked knows more.
var errForsaken = errors.New("it was closed again")

// follow is Watch as long as the ledger can be read. It calls well after each look.
func (p *People) follow(ctx context.Context, changed func(Changed), well func()) error {
	look := func() error {
		err := p.Look(ctx, changed)
		if err == nil {
			well()
		}
		return err
	}
	if err := look(); err != nil { // which opens the store
		return err
	}
	p.looking.Lock()
	s := p.store
	p.looking.Unlock()
	if s == nil {
		return errForsaken
	}
	wait, end, err := s.dialect.listen(ctx)
	if err != nil {
		return err
	}
	defer end()
	for {
		if err := look(); err != nil {
			return err
		}
		if err := wait(ctx); err != nil {
			return err
		}
	}
}
