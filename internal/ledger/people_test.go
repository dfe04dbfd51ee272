package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

func looks(t *testing.T, p *People) Changed {
	t.Helper()
	var found Changed
	if err := p.Look(t.Context(), func(c Changed) { found = c }); err != nil {
		t.Fatal(err)
	}
	return found
}

// changeOfPeople is one, and what is known after it.
type changeOfPeople struct {
	do     func() error
	want   error
	found  Changed
	hashes string
	staff  string
}

func changesOfPeople(ctx context.Context, e PeopleEditor) []changeOfPeople {
	users, groups := Changed{Users: true}, Changed{Groups: true}
	return []changeOfPeople{
		{func() error { return e.Add(ctx, "alice", "h1") }, nil, users, "alice=h1", ""},
		{func() error { return e.Add(ctx, "alice", "h2") }, ErrUserExists, Changed{}, "alice=h1", ""},
		{func() error { return e.Add(ctx, "bob", "h3") }, nil, users, "alice=h1 bob=h3", ""},
		{func() error { return e.Join(ctx, "alice", "staff") }, nil, groups, "alice=h1 bob=h3", "alice"},
		{func() error { return e.Join(ctx, "eve", "staff") }, nil, groups, "alice=h1 bob=h3", "alice eve"},
		{func() error { return setsHash(ctx, e, "alice", "h4") }, nil, users, "alice=h4 bob=h3", "alice eve"},
		{func() error { return setsHash(ctx, e, "carol", "h4") }, ErrNoUser, Changed{}, "alice=h4 bob=h3", "alice eve"},
		{func() error { return e.Leave(ctx, "eve", "staff") }, nil, groups, "alice=h4 bob=h3", "alice"},
		{func() error { return e.Leave(ctx, "eve", "staff") }, ErrNoMember, Changed{}, "alice=h4 bob=h3", "alice"},
		{func() error { return e.Remove(ctx, "alice") }, nil, Changed{Users: true, Groups: true}, "bob=h3", ""},
		{func() error { return e.Remove(ctx, "alice") }, ErrNoUser, Changed{}, "bob=h3", ""},
		{func() error { return e.Add(ctx, "alice", "h5") }, nil, users, "alice=h5 bob=h3", ""},
		{func() error { return e.AddKey(ctx, "alice", "f1", "k1") }, nil, users, "alice=h5+k1 bob=h3", ""},
		{func() error { return e.AddKey(ctx, "alice", "f1", "k1 again") }, nil, Changed{}, "alice=h5+k1 bob=h3", ""},
		{func() error { return e.AddKey(ctx, "alice", "f2", "k2") }, nil, users, "alice=h5+k1+k2 bob=h3", ""},
		{func() error { return e.AddKey(ctx, "carol", "f1", "k1") }, ErrNoUser, Changed{}, "alice=h5+k1+k2 bob=h3", ""},
		{func() error { return e.RemoveKey(ctx, "bob", "f1") }, ErrNoKey, Changed{}, "alice=h5+k1+k2 bob=h3", ""},
		{func() error { return e.RemoveKey(ctx, "alice", "f1") }, nil, users, "alice=h5+k2 bob=h3", ""},
		{func() error { return e.RemoveKey(ctx, "alice", "f1") }, ErrNoKey, Changed{}, "alice=h5+k2 bob=h3", ""},
		{func() error { return e.AddKey(ctx, "alice", "f1", "k3") }, nil, users, "alice=h5+k2+k3 bob=h3", ""},
		{func() error { return setsHash(ctx, e, "alice", "h6") }, nil, users, "alice=h6+k2+k3 bob=h3", ""},
		{func() error { return e.Remove(ctx, "alice") }, nil, users, "bob=h3", ""},
		{func() error { return e.Add(ctx, "alice", "h5") }, nil, users, "alice=h5 bob=h3", ""},
		{func() error { return e.AddKey(ctx, "alice", "f1", "k4") }, nil, users, "alice=h5+k4 bob=h3", ""},
	}
}

func setsHash(ctx context.Context, e PeopleEditor, name, hash string) error {
	return e.ChangeHash(ctx, name, func(string) string { return hash })
}

// TestHashesAreChangedInTurn: of changes at the same time none is made of what another has
// replaced already.
func TestHashesAreChangedInTurn(t *testing.T) { everywhere(t, hashesAreChangedInTurn) }

func hashesAreChangedInTurn(t *testing.T, place Place) {
	e, ctx := PeopleEditor{place}, t.Context()
	if err := e.Add(ctx, "alice", "h"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				if err := e.ChangeHash(ctx, "alice", func(old string) string { return old + "+" }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if hash, err := e.Hash(ctx, "alice"); err != nil || hash != "h"+strings.Repeat("+", 20) {
		t.Errorf("%q, %v", hash, err)
	}
}

// TestPeople: each kind of change is seen by who looked before it and by who did not,
// and what cannot be done is refused.
func TestPeople(t *testing.T) { everywhere(t, peopleChange) }

func peopleChange(t *testing.T, place Place) {
	quiet := slog.New(slog.DiscardHandler)
	always := place.People(quiet)
	defer always.Close()
	if found := looks(t, always); found != (Changed{}) {
		t.Errorf("in an empty ledger: %+v", found)
	}
	e, ctx := PeopleEditor{place}, t.Context()
	for i, step := range changesOfPeople(ctx, e) {
		if err := step.do(); !errors.Is(err, step.want) {
			t.Fatalf("step %d: %v, want %v", i, err, step.want)
		}
		if found := looks(t, always); found != step.found {
			t.Errorf("step %d: %+v, want %+v", i, found, step.found)
		}
		fresh := place.People(quiet)
		looks(t, fresh)
		fresh.Close()
		for who, p := range map[string]*People{"who looked": always, "who did not": fresh} {
			if got := fmt.Sprint(pairs(withKeys(p)), p.Members("staff")); got != fmt.Sprintf("[%s] [%s]", step.hashes, step.staff) {
				t.Errorf("step %d: %s knows %s", i, who, got)
			}
		}
	}
	if keys, err := e.Keys(ctx, "alice"); err != nil || !slices.Equal(keys, []string{"k4"}) {
		t.Errorf("%v, %v", keys, err)
	}
	names, err := e.Names(ctx)
	if err != nil || !slices.Equal(names, []string{"alice", "bob"}) {
		t.Errorf("%v, %v", names, err)
	}
	hash, err := e.Hash(ctx, "bob")
	if err != nil || hash != "h3" {
		t.Errorf("%q, %v", hash, err)
	}
	if all, err := e.Groups(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// withKeys returns the hash of each user and the keys behind it.
func withKeys(p *People) map[string]string {
	all := p.Hashes()
	for name, keys := range p.Keys() {
		all[name] += "+" + strings.Join(slices.Sorted(slices.Values(keys)), "+")
	}
	return all
}

// TestKeysOfAnOlderVersion: it takes a user out and leaves the keys, which whoever is
// called so next does not get.
func TestKeysOfAnOlderVersion(t *testing.T) { everywhere(t, keysOfAnOlderVersion) }

func keysOfAnOlderVersion(t *testing.T, place Place) {
	e, ctx := PeopleEditor{place}, t.Context()
	if err := errors.Join(e.Add(ctx, "alice", "h1"), e.AddKey(ctx, "alice", "f1", "k1")); err != nil {
		t.Fatal(err)
	}
	p := place.People(slog.New(slog.DiscardHandler))
	defer p.Close()
	looks(t, p)
	s := opens(t, place)
	for _, statement := range []string{`UPDATE versions SET version = version + 1`, `UPDATE users SET hash = '', version = (SELECT version FROM versions)`} {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	looks(t, p)
	if err := e.Add(ctx, "alice", "h2"); err != nil {
		t.Fatal(err)
	}
	if looks(t, p); len(p.Keys()) > 0 || len(p.Hashes()) != 1 {
		t.Errorf("%v, %v", p.Hashes(), p.Keys())
	}
}

func pairs(m map[string]string) (all []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return all
}

// TestPeopleOfABackup: a ledger that went back in time is read from its beginning.
func TestPeopleOfABackup(t *testing.T) { everywhere(t, peopleOfABackup) }

func peopleOfABackup(t *testing.T, place Place) {
	e, ctx := PeopleEditor{place}, t.Context()
	for _, name := range []string{"alice", "bob", "carol"} {
		if err := e.Add(ctx, name, "h"); err != nil {
			t.Fatal(err)
		}
	}
	p := place.People(slog.New(slog.DiscardHandler))
	defer p.Close()
	looks(t, p)
	s := opens(t, place)
	for _, statement := range []string{`DELETE FROM users WHERE version > 1`, `UPDATE versions SET version = 1`} {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	if found := looks(t, p); !found.Users || fmt.Sprint(pairs(p.Hashes())) != "[alice=h]" {
		t.Errorf("%+v: %v", found, p.Hashes())
	}
}

// TestPeopleAreWatched: what many change at once is known to all that watch, to the
// last of it.
func TestPeopleAreWatched(t *testing.T) { everywhere(t, peopleAreWatched) }

func peopleAreWatched(t *testing.T, place Place) {
	const nodes, editors, each = 2, 3, 4
	ctx, cancel := context.WithCancel(t.Context())
	var watching, editing sync.WaitGroup
	var all []*People
	for range nodes {
		p := place.People(slog.New(slog.DiscardHandler))
		all = append(all, p)
		watching.Go(func() { p.Watch(ctx, func(Changed) {}) })
	}
	for editor := range editors {
		editing.Go(func() {
			for i := range each {
				e, name := PeopleEditor{place}, fmt.Sprint(editor, " ", i)
				if err := errors.Join(e.Add(ctx, name, "h"), e.AddKey(ctx, name, "f", "k")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	editing.Wait()
	for _, p := range all {
		proxytest.Eventually(t, "all users are known", func() bool { return len(p.Hashes()) == editors*each && len(p.Keys()) == editors*each })
	}
	cancel()
	watching.Wait()
}

// TestPeopleComeInOrder: while one puts into force what it has found nobody knows more, so
// that the last of two who do is the one who knows most.
func TestPeopleComeInOrder(t *testing.T) {
	place := Place(filepath.Join(t.TempDir(), "ledger.db"))
	e, p, ctx := PeopleEditor{place}, place.People(slog.New(slog.DiscardHandler)), t.Context()
	defer p.Close()
	var both sync.WaitGroup
	inForce := 0
	add := func(name string) {
		if err := e.Add(ctx, name, "h"); err != nil {
			t.Error(err)
		}
	}
	look := func(then func()) {
		err := p.Look(ctx, func(Changed) {
			then()
			inForce = len(p.Hashes())
		})
		if err != nil {
			t.Error(err)
		}
	}
	add("alice")
	look(func() {
		add("bob")
		both.Go(func() { look(func() {}) })
		if n := len(p.Hashes()); n != 1 {
			t.Errorf("%d users are known while one of them is put into force", n)
		}
	})
	both.Wait()
	if inForce != 2 {
		t.Errorf("%d users are in force at the end", inForce)
	}
}

// TestPeopleAreReadAgain: a ledger that answers and cannot be read, though it is listened to,
// is opened anew; the log has both once.
func TestPeopleAreReadAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the next try, a second")
	}
	everywhere(t, peopleAreReadAgain)
}

func peopleAreReadAgain(t *testing.T, place Place) {
	ctx, cancel := context.WithCancel(t.Context())
	e, s, said := PeopleEditor{place}, opens(t, place), make(saying, 10)
	p := place.People(slog.New(slog.NewTextHandler(said, nil)))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.Watch(ctx, func(Changed) {})
	}()
	knows := func(name string) {
		t.Helper()
		if err := e.Add(ctx, name, "h"); err != nil {
			t.Fatal(err)
		}
		proxytest.Eventually(t, name+" is known", func() bool { return p.Hashes()[name] != "" })
	}
	rename := func(from, to string) {
		t.Helper()
		err := s.within(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "ALTER TABLE "+from+" RENAME TO "+to)
			return errors.Join(err, s.dialect.tell(ctx, tx))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	knows("alice")
	knows("bob") // so it is listened to
	rename("versions", "elsewhere")
	said.has(t, "cannot be read")
	rename("elsewhere", "versions")
	knows("carol")
	said.has(t, "can be read again")
	cancel()
	<-watched
	if len(said) != 0 {
		t.Errorf("the log says more: %s", <-said)
	}
}

// saying is a log, line by line.
type saying chan string

func (s saying) Write(b []byte) (int, error) {
	s <- string(b)
	return len(b), nil
}

func (s saying) has(t *testing.T, want string) {
	t.Helper()
	if line := <-s; !strings.Contains(line, want) {
		t.Errorf("the log says %q, want %q", line, want)
	}
}
