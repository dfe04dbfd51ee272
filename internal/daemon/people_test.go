//go:build unix

package daemon

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

const ledgerUsersSettings = oneListener + `
users: {ledger: true}
groups: {staff: {ledger: true}}
rules: {allow: staff, users: "@staff", proof: password, to: loopback}
ledger: sqlite:used.db
`

// TestPeopleInTheLedger: who is put into the ledger, and into a group there, may come,
// and who is taken out is thrown out; reloads, and a server that starts, know them.
func TestPeopleInTheLedger(t *testing.T) {
	s := serveIn(t, ledgerUsersSettings)
	ctx := t.Context()
	u := Users{Settings: s.file()}
	for _, err := range []error{
		u.Add(ctx, "alice", "wonderland"), u.Add(ctx, "bob", "builder"), u.Add(ctx, "carol", "carol"),
		u.Join(ctx, "alice", "staff"), u.Join(ctx, "bob", "staff"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.logs("the groups in the ledger were read again", 1)
	proxytest.Eventually(t, "all are known", func() bool {
		people := s.ruling.now.Load().people
		return len(people.kept.Hashes()) == 3 && len(people.kept.Members("staff")) == 2
	})
	target := proxytest.Echo(t, "127.0.0.1")
	alice, bob := s.signsIn(s.at("lan"), "alice", "wonderland", target), s.signsIn(s.at("lan"), "bob", "builder", target)
	lives(t, "alice", alice)

	s.reloads(ledgerUsersSettings + "timeouts: {drain: 0s}\n")
	lives(t, "alice after a reload", alice)
	if err := u.Remove(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	cut(t, "alice, who was taken out", alice)
	lives(t, "bob", bob)
	if err := u.Leave(ctx, "bob", "staff"); err != nil {
		t.Fatal(err)
	}
	cut(t, "bob, who left the group", bob)
	s.logs("reason=revoked", 2)

	if e := s.explains(t, "bob"); e.Allowed {
		t.Errorf("explain: %+v", e)
	}
	if err := u.Join(ctx, "bob", "staff"); err != nil {
		t.Fatal(err)
	}
	if e := s.explains(t, "bob"); !e.Allowed {
		t.Errorf("explain: %+v", e)
	}
	s.end()
	again := serveIn(t, strings.Replace(ledgerUsersSettings, "sqlite:used.db", "sqlite:"+s.dir+"/used.db", 1))
	lives(t, "bob", again.signsIn(again.at("lan"), "bob", "builder", target))
}

func (s *served) explains(t *testing.T, user string) *Explanation {
	t.Helper()
	e, err := Explain(t.Context(), Source{File: s.file()}, Question{
		From: netip.MustParseAddr("127.0.0.1"), Target: socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: 80},
		User: user, Proof: server.Password, Protocol: server.SOCKS5,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestUsersOfSettings: the command line changes what the settings name.
func TestUsersOfSettings(t *testing.T) {
	s := &served{TB: t, dir: t.TempDir()}
	s.writes("alice:wonderland")
	u := Users{Settings: s.file()}
	ctx := context.Background()
	s.says("users: {file: users}\n")
	if there, err := u.Has(ctx, "alice"); !there || err != nil {
		t.Errorf("%v, %v", there, err)
	}
	if where := u.Where(); where != s.dir+"/users" {
		t.Errorf("they are in %s", where)
	}
	s.says("rules: []\n")
	if _, err := u.Names(ctx); !errors.Is(err, errNoUsers) {
		t.Errorf("%v", err)
	}
	s.says("users: {ledger: true}\nledger: sqlite:used.db\n")
	if names, err := u.Names(ctx); len(names) > 0 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	if where := u.Where(); where != s.dir+"/used.db" {
		t.Errorf("they are in %s", where)
	}
	for name, err := range map[string]error{
		"@staff": u.Join(ctx, "alice", "@staff"), "not in the settings": u.Join(ctx, "alice", "stuff"), "no ledger": Users{File: "users"}.Join(ctx, "alice", "staff"), "any": u.Add(ctx, "any", "x"), "no password": u.Add(ctx, "x", ""),
	} {
		if err == nil {
			t.Errorf("%s is no fault", name)
		}
	}
	if err := u.SetPassword(ctx, "eve", "x"); !errors.Is(err, ErrNoUser) {
		t.Errorf("%v", err)
	}
}

// TestPeopleByDashboard: what is changed there of people in the ledger holds at once.
func TestPeopleByDashboard(t *testing.T) {
	s := serveIn(t, ledgerUsersSettings)
	m, ctx := manager{s.Daemon}, t.Context()
	target := proxytest.Echo(t, "127.0.0.1")
	if err := errors.Join(m.AddUser(ctx, "alice", "wonderland"), m.SetGroups(ctx, "alice", []string{"staff"})); err != nil {
		t.Fatal(err)
	}
	alice := s.signsIn(s.at("lan"), "alice", "wonderland", target)
	lives(t, "alice", alice)
	list, err := m.Users(ctx)
	if err != nil || len(list.Users) != 1 || !slices.Equal(list.Users[0].Groups, []string{"staff"}) || !slices.Equal(list.Groups, []string{"staff"}) {
		t.Errorf("%+v, %v", list, err)
	}
	if err := m.SetGroups(ctx, "alice", []string{"staff"}); err != nil {
		t.Errorf("where nothing changes: %v", err)
	}
	lives(t, "alice", alice)
	for _, test := range []struct {
		name, group string
		want        error
	}{{"bob", "staff", admin.ErrNoUser}, {"alice", "admins", admin.ErrNoGroup}} {
		if err := m.SetGroups(ctx, test.name, []string{test.group}); !errors.Is(err, test.want) {
			t.Errorf("%s into %s: %v, want %v", test.name, test.group, err, test.want)
		}
	}
	if err := m.SetGroups(ctx, "alice", nil); err != nil {
		t.Fatal(err)
	}
	cut(t, "alice, who is in no group any more", alice)
	if err := m.RemoveUser(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if list, err := m.Users(ctx); err != nil || len(list.Users) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}
