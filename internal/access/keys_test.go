package access

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// newKey returns a public key, and its line.
func newKey(tb testing.TB) (ssh.PublicKey, string) {
	tb.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return key, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// TestKeys: a key is of one user, who must be in the users file; another file
// holds at the next look, and what was proven with a key that is gone is revoked.
func TestKeys(t *testing.T) {
	const bob = "bob:$2y$04$QwK.BLnEkcjlnwN3jl7NouSvBEFx.2cB4c1G8lSsB3Ecmdj3R3cYq\n"
	u := newUsersAt(t, bob)
	p := NewPasswords(&Policy{}, u.UsersFile, slog.New(slog.DiscardHandler))
	key, line := newKey(t)
	other, otherLine := newKey(t)
	look := func(lines string) {
		t.Helper()
		writeUsers(t, u.path+keysSuffix, lines)
		u.keys.next = time.Time{}
		u.current()
	}
	try := func(name string, key ssh.PublicKey, want bool) server.Identity {
		t.Helper()
		id, err := p.Authenticate(t.Context(), server.Credentials{
			Protocol: server.SSH, Client: netip.MustParseAddrPort("10.0.0.1:1"), Name: name, Key: key.Marshal(),
		})
		if (err == nil) != want || !want && !errors.Is(err, server.BadLogin) {
			t.Errorf("%s: %+v, %v; want %v", name, id, err, want)
		}
		return id
	}
	try("bob", key, false)
	look("# keys\nbob:" + line + " at home\neve:" + line + "\n")
	id := try("bob", key, true)
	try("bob", other, false)
	try("eve", key, false) // she is in no users file
	stillIn(t, p, id, true)
	if foretold, err := p.Foretell("bob", server.Key); foretold != id || id.Proof != server.Key || err != nil {
		t.Errorf("%+v, %v; want %+v", foretold, err, id)
	}

	look("bob:" + otherLine + "\nbob:" + line + " at home\n")
	stillIn(t, p, id, true)
	look("bob:" + otherLine + "\n")
	stillIn(t, p, id, false)
	id = try("bob", other, true)
	look("bob:nonsense\n") // which changes nothing
	try("bob", other, true)
	if !strings.Contains(u.log.String(), "they stay as they were") {
		t.Errorf("the log says %q", u.log.String())
	}
	writeUsers(t, u.path, "# nobody\n")
	u.again()
	stillIn(t, p, id, false)
	try("bob", other, false)
	if _, err := p.Foretell("bob", server.Key); !errors.Is(err, server.BadLogin) {
		t.Error(err)
	}
}

// stillIn checks whether what was proven holds.
func stillIn(t *testing.T, p *Passwords, id server.Identity, want bool) {
	t.Helper()
	if err := p.Still(id); (err == nil) != want || err != nil && !errors.Is(err, server.Revoked) {
		t.Errorf("%+v: %v; want %v", id, err, want)
	}
}

// TestKeysEditor: what `sallyport user key` does to the file.
func TestKeysEditor(t *testing.T) {
	e := UsersEditor{Path: filepath.Join(t.TempDir(), "users")}
	_, line := newKey(t)
	_, second := newKey(t)
	if err := e.AddKey("bob", line); !errors.Is(err, ErrNoUser) {
		t.Errorf("a key of nobody: %v", err)
	}
	if err := e.Add("bob", "secret"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{line + " at home\n", line + " again", second} {
		if err := e.AddKey("bob", key); err != nil {
			t.Error(err)
		}
	}
	keys, err := e.Keys("bob")
	if err != nil || len(keys) != 2 || keys[0].Comment != "at home" || keys[0].Type != "ssh-ed25519" {
		t.Fatalf("%+v, %v", keys, err)
	}
	if info, err := os.Stat(e.Path + keysSuffix); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	info, err := DescribeKey("bob", line+" at home\n")
	if err != nil || info != keys[0] {
		t.Errorf("%+v, %v", info, err)
	}
	fingerprint := info.Fingerprint
	if err := e.RemoveKey("bob", fingerprint); err != nil {
		t.Error(err)
	}
	if err := e.RemoveKey("bob", fingerprint); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	if err := e.Remove("bob"); err != nil {
		t.Error(err)
	}
	if keys, err := e.Keys(""); len(keys) != 0 || err != nil {
		t.Errorf("bob is gone, and has %+v, %v", keys, err)
	}
	for _, bad := range []string{"", "ssh-ed25519", "ssh-ed25519 AAAA", `from="10.0.0.1" ` + line, line + "\n" + second, weakKey(t)} {
		if err := e.AddKey("bob", bad); err == nil || errors.Is(err, ErrNoUser) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

// weakKey is the line of an RSA key that is too short.
func weakKey(t *testing.T) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err) // this build makes none
	}
	key, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

// FuzzKeys: a file of keys is read, or has faults with their places, and nothing in
// a fault shows what stands behind a colon.
func FuzzKeys(f *testing.F) {
	_, line := newKey(f)
	for _, seed := range []string{"", "bob:" + line + "\n", "bob:" + line + " c\n#\n\neve:x\n", ":\n", "bob", "bob:ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==\n", "a\x00b:" + line} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseKeys("users.keys", data)
		if faults, ok := errors.AsType[*KeysFaults](err); err != nil && (!ok || len(faults.Faults) == 0) {
			t.Fatalf("%v", err)
		}
		if err != nil {
			return
		}
		var again strings.Builder
		for name, all := range k.byName {
			for wire := range all {
				key, err := ssh.ParsePublicKey([]byte(wire))
				if err != nil {
					t.Fatalf("%q has a key that is none: %v", name, err)
				}
				again.WriteString(name + ":" + string(ssh.MarshalAuthorizedKey(key)))
			}
		}
		same, err := parseKeys("", []byte(again.String()))
		if err != nil || len(same.byName) != len(k.byName) {
			t.Fatalf("%q became %q: %v", data, again.String(), err)
		}
	})
}

// TestVirtualPorts: what the rules make of a name that is no host's.
func TestVirtualPorts(t *testing.T) {
	night := NewSchedule([]Span{daily(17*60, 9*60)}, time.UTC)
	policy := func(rules ...Rule) *Policy {
		return NewPolicy(rules, Options{
			VirtualPorts: map[string]*Users{"intranet": {Names: []string{"bob"}}, "all": {Any: true}},
			Resolver:     nil,
			Now:          func() time.Time { return worldNoon },
		})
	}
	visitors := Rule{Name: "visitors", To: to("intranet"), Commands: []socks.Command{socks.Connect}}
	bob, eve, claimed := server.Identity{Name: "bob", Proof: server.Key}, server.Identity{Name: "eve", Proof: server.Password}, server.Identity{Name: "bob", Proof: server.Claimed}
	for _, c := range []struct {
		name     string
		rules    []Rule
		protocol server.Protocol
		command  socks.Command
		id       server.Identity
		host     string
		want     string // the rule that grants; empty: refused
	}{
		{"a visitor", []Rule{visitors}, server.SOCKS5, socks.Connect, server.Identity{}, "intranet", "visitors"},
		{"without a rule", nil, server.SOCKS5, socks.Connect, server.Identity{}, "intranet", ""},
		{"the Internet is not it", []Rule{{Name: "web"}}, server.SOCKS5, socks.Connect, server.Identity{}, "intranet", ""},
		{"everything is", []Rule{{Name: "all", To: to("any")}}, server.HTTP, socks.Connect, server.Identity{}, "intranet", "all"},
		{"denied by name", []Rule{{Name: "no", Deny: true, To: to("intranet")}, visitors}, server.SOCKS5, socks.Connect, server.Identity{}, "intranet", ""},
		{"at night", []Rule{{Name: "night", To: to("intranet"), During: night}}, server.SOCKS5, socks.Connect, server.Identity{}, "intranet", ""},
		{"a visitor with datagrams", []Rule{{Name: "udp", To: to("intranet"), Commands: []socks.Command{socks.Associate}}}, server.Mapped, socks.Associate, server.Identity{}, "intranet", "udp"},
		{"whom the rule is not for", []Rule{visitors}, server.SOCKS5, socks.Associate, server.Identity{}, "intranet", ""},
		{"bob offers", []Rule{visitors}, server.SSH, socks.Bind, bob, "intranet", "virtual port intranet"},
		{"eve does not", []Rule{visitors}, server.SSH, socks.Bind, eve, "intranet", ""},
		{"not even by a rule", []Rule{{Name: "all", To: to("any")}}, server.SSH, socks.Bind, eve, "intranet", ""},
		{"anybody who has signed in", nil, server.SSH, socks.Bind, eve, "all", "virtual port all"},
		{"but nobody who has not", nil, server.SSH, socks.Bind, server.Identity{}, "all", ""},
		{"a claim is no proof", nil, server.SSH, socks.Bind, claimed, "intranet", ""},
		{"not by SOCKS", []Rule{{Name: "all", To: to("any")}}, server.SOCKS5, socks.Bind, bob, "intranet", ""},
		{"denied to bob", []Rule{{Name: "no", Deny: true, Users: &Users{Names: []string{"bob"}}}}, server.SSH, socks.Bind, bob, "intranet", ""},
		{"by a rule, which sets the limits", []Rule{{Name: "bob's", To: to("intranet"), Commands: []socks.Command{socks.Bind}}}, server.SSH, socks.Bind, bob, "intranet", "bob's"},
		{"at other hours", []Rule{{Name: "night", To: to("intranet"), During: night}}, server.SSH, socks.Bind, bob, "intranet", ""},
	} {
		p := policy(c.rules...)
		r := &server.Request{Protocol: c.protocol, Command: c.command, Identity: c.id, Target: socks.Addr{Name: c.host, Port: 80}, Client: netip.MustParseAddrPort("10.0.0.1:1")}
		g, err := p.Decide(t.Context(), r)
		switch {
		case c.want == "" && err == nil, c.want != "" && (err != nil || g.Rule != c.want || !g.Virtual || len(g.Addrs) > 0 || g.ByName):
			t.Errorf("%s: %+v, %v; want %q", c.name, g, err, c.want)
		}
		if err != nil {
			continue
		}
		if _, err := p.Still(server.Held{Request: *r, Grant: g, Address: netip.MustParseAddrPort("10.0.0.2:2")}); err != nil {
			t.Errorf("%s: not any more: %v", c.name, err)
		}
		if _, err := policy(Rule{Name: "no", Deny: true}).Still(server.Held{Request: *r, Grant: g}); !errors.Is(err, server.Revoked) {
			t.Errorf("%s: denied by now: %v", c.name, err)
		}
	}
}

// TestLoginOverSSH: a client has to sign in as soon as anything rests on it.
func TestLoginOverSSH(t *testing.T) {
	client := netip.MustParseAddr("10.0.0.1")
	ports := map[string]*Users{"intranet": {Any: true}}
	open, keys := Rule{Name: "open"}, Rule{Name: "keys", Proofs: []server.Proof{server.Key}}
	for _, c := range []struct {
		name     string
		rules    []Rule
		ports    map[string]*Users
		protocol server.Protocol
		want     server.Login
	}{
		{"nothing asks", []Rule{open}, nil, server.SSH, server.LoginNone},
		{"a key opens more", []Rule{open, keys}, nil, server.SSH, server.LoginOptional},
		{"a key opens all", []Rule{keys}, nil, server.SSH, server.LoginRequired},
		{"no key in SOCKS", []Rule{keys}, nil, server.SOCKS5, server.LoginNone},
		{"a port to offer", []Rule{open}, ports, server.SSH, server.LoginOptional},
		{"which SOCKS cannot", []Rule{open}, ports, server.SOCKS5, server.LoginNone},
	} {
		p := NewPolicy(c.rules, Options{VirtualPorts: c.ports})
		if got := p.login("lan", c.protocol, client); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
