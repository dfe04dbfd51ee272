//go:build unix

package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// managed is a daemon that serves with the settings and a dashboard, and its folder.
func managed(t *testing.T, settings string) (manager, string) {
	t.Helper()
	dir := t.TempDir()
	users := access.UsersEditor{Path: filepath.Join(dir, "users")}
	settings = "listeners: {name: lan, listen: 127.0.0.1:0}\nusers: {file: users}\nledger: {store: 'sqlite:ledger.db', flush: 100ms}\n" +
		"admin: {listen: 127.0.0.1:0, file: administrators, viewers: vera}\n" + settings
	if err := errors.Join(users.Add("alice", "wonderland"), os.WriteFile(filepath.Join(dir, "s.yaml"), []byte(settings), 0o600)); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), Source{File: filepath.Join(dir, "s.yaml"), Version: "1"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return manager{d}, dir
}

// managedSettings have something for each page.
const managedSettings = `
groups: {staff: alice}
limits:
  fair: {rate: 20 Mbit/s, per: user}
  daily: {quota: 5 GiB, every: day, per: user}
upstreams: {hq: {proxies: "socks5h://u:secret@127.0.0.1:1"}}
rules:
  - {deny: mail, ports: 25}
  - {allow: far, to: 192.0.2.0/24, via: hq}
  - {allow: members, users: any, proof: password, limits: [fair, daily]}
`

// TestManagedUsers: who is there, and what is done to them.
func TestManagedUsers(t *testing.T) {
	m, _ := managed(t, managedSettings)
	if err := m.AddUser(t.Context(), "bob", "builder"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.EnableUser(t.Context(), "bob", false), m.SetPassword(t.Context(), "alice", "other")); err != nil {
		t.Fatal(err)
	}
	list, err := m.Users(t.Context())
	if err != nil || !list.Kept || len(list.Users) != 2 || list.Users[0].Groups[0] != "staff" || list.Users[0].Disabled || !list.Users[1].Disabled {
		t.Errorf("users: %+v, %v", list, err)
	}
	for what, err := range map[string]error{
		"exists":   m.AddUser(t.Context(), "alice", "x"),
		"bad name": m.AddUser(t.Context(), "@x", "x"),
		"no name":  m.RemoveUser(t.Context(), "carol"),
		"empty":    m.SetPassword(t.Context(), "alice", ""),
	} {
		want := map[string]error{"exists": admin.ErrUserExists, "bad name": admin.ErrBadUser, "no name": admin.ErrNoUser, "empty": admin.ErrBadUser}[what]
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	if err := m.RemoveUser(t.Context(), "bob"); err != nil {
		t.Error(err)
	}
}

// TestManagedSettings: what administrators see of the settings in force.
func TestManagedSettings(t *testing.T) {
	m, dir := managed(t, managedSettings)
	if rules := m.Rules(); len(rules) != 3 || !rules[0].Deny || rules[1].Via != "hq" || len(rules[2].Limits) != 2 {
		t.Errorf("rules: %+v", rules)
	}
	if l := m.Limits(); len(l) != 2 || l[0].Text != "5 GiB a day" || l[0].Kind != "quota" || l[1].Text != "20 Mbit/s" || l[1].Kind != "rate" {
		t.Errorf("limits: %+v", l)
	}
	h := m.Health()
	if len(h.Upstreams) != 1 || h.Upstreams[0].Proxy != "socks5h://127.0.0.1:1" || h.Ledger == nil || h.Resolver == "" {
		t.Errorf("health: %+v", h)
	}
	e, err := m.Explain(t.Context(), admin.Question{From: "10.0.0.1", To: "192.0.2.1:25"})
	if err != nil || e.Allowed || e.Rule != "mail" {
		t.Errorf("explain: %+v, %v", e, err)
	}
	for _, q := range []admin.Question{{From: "x", To: "a:1"}, {From: "10.0.0.1", To: "a"}, {From: "10.0.0.1", To: "a:1", Listener: "wan"}} {
		if _, err := m.Explain(t.Context(), q); !errors.Is(err, admin.ErrBadQuestion) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	// By the rules in force, whatever the file says by now.
	if err := os.WriteFile(filepath.Join(dir, "s.yaml"), []byte("rules: {allow: all}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := m.Explain(t.Context(), admin.Question{From: "10.0.0.1", To: "192.0.2.1:25"}); err != nil || e.Rule != "mail" {
		t.Errorf("explain after a change of the file: %+v, %v", e, err)
	}
}

// TestHistoryOfPanel: what the ledger has, in the words of `sallyport usage`.
func TestHistoryOfPanel(t *testing.T) {
	m, _ := managed(t, "rules: {allow: x, from: loopback, to: any}\n")
	proxytest.Eventually(t, "the ledger is there", func() bool {
		r, err := m.Usage(t.Context(), admin.UsageQuery{By: "user", Since: "7d"})
		return err == nil && r.Sum == admin.Use{}
	})
	for _, q := range []admin.UsageQuery{{By: "colour"}, {Since: "yesterday"}, {Until: "x"}} {
		if _, err := m.Usage(t.Context(), q); !errors.Is(err, admin.ErrBadQuestion) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestFirstPassword: it is told on a terminal, and else in a file, since what is said
// there ends in a log. Only its hash is in the administrators' file.
func TestFirstPassword(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := openAdministrators(filepath.Join(dir, "administrators"), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	private := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if info, statErr := os.Stat(filepath.Join(dir, name)); err != nil || statErr != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, %v", name, info, err, statErr)
		}
		return string(text)
	}
	var terminal, log bytes.Buffer
	first.greet(&terminal, true)
	first.greet(&log, false)
	for name, c := range map[string]struct {
		text string
		has  bool
	}{
		"the terminal": {terminal.String(), true}, "the log": {log.String(), false},
		"the file of hashes": {private("administrators"), false}, "the file": {private("first-password"), true},
	} {
		if strings.Contains(c.text, first.first) != c.has {
			t.Errorf("%s has the password: %v, want %v: %s", name, !c.has, c.has, c.text)
		}
	}
	if !strings.Contains(log.String(), filepath.Join(dir, "first-password")) {
		t.Errorf("the log does not say where it is: %s", &log)
	}
}

// TestFirstAdministrator: the file is made once, with a password of its own, and who is named a viewer may only look. Changes of the file hold for who is in.
func TestFirstAdministrator(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "administrators")
	log := slog.New(slog.DiscardHandler)
	first, err := openAdministrators(file, []string{"vera"}, log)
	if err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddrPort("127.0.0.1:1")
	who, err := first.SignIn(t.Context(), from, "admin", first.first)
	if err != nil || who.Role != admin.Administrator {
		t.Fatalf("%+v, %v", who, err)
	}
	for _, try := range []string{"", "x", first.first + "x"} {
		if _, err := first.SignIn(t.Context(), from, "admin", try); !errors.Is(err, admin.ErrWrongLogin) {
			t.Errorf("with %q: %v", try, err)
		}
	}
	editor := access.UsersEditor{Path: file}
	if err := editor.Add("vera", "looks"); err != nil {
		t.Fatal(err)
	}
	again, err := openAdministrators(file, []string{"vera"}, log)
	if err != nil || again.first != "" {
		t.Fatalf("the second time: %q, %v", again.first, err)
	}
	if vera, err := again.SignIn(t.Context(), from, "vera", "looks"); err != nil || vera.Role != admin.Viewer {
		t.Errorf("vera: %+v, %v", vera, err)
	}
	if _, ok := again.Still(who); !ok {
		t.Error("who has signed in is nobody any more")
	}
	if err := editor.SetPassword("admin", "another"); err != nil {
		t.Fatal(err)
	}
	changed, err := openAdministrators(file, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := changed.Still(who); ok {
		t.Error("another password, and the visit goes on")
	}
}

// TestOpenPage: an address that the settings name must be had, with its file; the
// usual one need not.
func TestOpenPage(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	file := filepath.Join(t.TempDir(), "administrators")
	p, err := openPage(t.Context(), config.Admin{Listen: "127.0.0.1:0", File: file}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := openPage(t.Context(), config.Admin{Listen: p.Addr().String(), File: file}, nil, log); err == nil {
		t.Error("an address that is taken was had")
	}
	if _, err := openPage(t.Context(), config.Admin{Listen: "127.0.0.1:0", File: os.DevNull + "/x"}, nil, log); err == nil {
		t.Error("without a file")
	}
	for _, none := range []config.Admin{{Off: true}, {Listen: "off"}, {}} { // {}: the tests have no folder for the file
		if p, err := openPage(t.Context(), none, nil, log); p != nil || err != nil {
			t.Errorf("%+v: %v, %v", none, p, err)
		}
	}
}

// TestPageOverTLS: by its certificate only, whose end Health tells.
func TestPageOverTLS(t *testing.T) {
	files := tlsFilesIn(t.TempDir())
	writePair(t, files, 1)
	p, err := openPage(t.Context(), config.Admin{Listen: "127.0.0.1:0", File: filepath.Join(t.TempDir(), "administrators"), TLS: files}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.secure || !strings.HasPrefix(p.url(), "https://127.0.0.1:") {
		t.Errorf("%s", p.url())
	}
	all := certificates(&config.Settings{Admin: config.Admin{TLS: files}})
	if len(all) != 1 || all[0].Fault != "" || !all[0].Expires.After(time.Now()) {
		t.Errorf("certificates: %+v", all)
	}
	if err := os.Remove(files.Certificate); err != nil {
		t.Fatal(err)
	}
	if all := certificates(&config.Settings{Admin: config.Admin{TLS: files}}); all[0].Fault == "" {
		t.Error("a certificate that is gone is well")
	}
}

// TestPageServes: over a real socket, from sign-in to sign-out.
func TestPageServes(t *testing.T) {
	m, dir := managed(t, "rules: {allow: x, from: loopback, to: any}\n")
	if err := (access.UsersEditor{Path: filepath.Join(dir, "administrators")}).SetPassword("admin", "secret"); err != nil {
		t.Fatal(err)
	}
	d := m.Daemon
	url := d.page.url()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(token string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"api/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	proxytest.Eventually(t, "the new password is known", func() bool { return get("admin:secret") == http.StatusOK })
	if code := get("admin:x"); code != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", code)
	}
	w := httptest.NewRecorder()
	d.panel(nil).Here().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/health", nil))
	if w.Code != http.StatusOK {
		t.Errorf("on the socket: %d %s", w.Code, w.Body)
	}
}
