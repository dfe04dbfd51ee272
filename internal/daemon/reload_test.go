//go:build unix

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// served is a daemon that serves, with its files.
type served struct {
	testing.TB
	*Daemon
	dir  string
	said lockedBuffer // its log
	end  func()       // once; it is called when the test ends
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// serveIn serves with the settings until the test ends; its folder holds users
// if there are any.
func serveIn(t *testing.T, settings string, users ...string) *served {
	t.Helper()
	s := &served{TB: t, dir: t.TempDir()}
	s.writes(users...)
	s.says(settings)
	var err error
	if s.Daemon, err = Open(t.Context(), Source{File: s.file(), Admin: "off", Version: "1"}, &s.said); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ctx) }()
	s.end = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(s.end)
	proxytest.Eventually(t, "it runs", func() bool { return s.Reload(t.Context()) == nil })
	return s
}

func (s *served) file() string { return filepath.Join(s.dir, "sallyport.yaml") }

// says changes the settings file.
func (s *served) says(settings string) {
	s.Helper()
	if err := os.WriteFile(s.file(), []byte(settings), 0o600); err != nil {
		s.Fatal(err)
	}
}

// writes changes the users file: whoever stands in users, with such a password.
func (s *served) writes(users ...string) {
	s.Helper()
	var lines strings.Builder
	for _, user := range users {
		name, password, _ := strings.Cut(user, ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			s.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s:%s\n", name, hash)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "users"), []byte(lines.String()), 0o600); err != nil {
		s.Fatal(err)
	}
}

// reloads changes the settings and reads them, which must go well.
func (s *served) reloads(settings string) {
	s.Helper()
	s.says(settings)
	if err := s.Reload(s.Context()); err != nil {
		s.Fatalf("reload: %v", err)
	}
}

// refuses changes the settings and reads them; they must have the fault.
func (s *served) refuses(settings, fault string) {
	s.Helper()
	s.says(settings)
	err := s.Reload(s.Context())
	if f, ok := errors.AsType[*admin.Faults](err); !ok || !strings.Contains(f.Text, fault) {
		s.Errorf("reload: %v; want a fault that says %q", err, fault)
	}
	if last := s.Status().Reload; last == nil || !strings.Contains(last.Faults, fault) {
		s.Errorf("the status says %+v, want the fault", last)
	}
}

// at is where the listener with that name listens.
func (s *served) at(name string) string {
	s.Helper()
	for _, l := range s.Status().Listeners {
		if l.Name == name {
			return l.Address
		}
	}
	s.Fatalf("no listener is called %s", name)
	return ""
}

// connects is a client that has asked by SOCKS 4.
func (s *served) connects(address, user string, to netip.AddrPort) *net.TCPConn {
	s.Helper()
	c := proxytest.Dial(s, address)
	proxytest.Say(s, c, proxytest.Connect4(to, user))
	return c
}

// signsIn is a client that has a session by SOCKS 5 and a password.
func (s *served) signsIn(address, user, password string, to netip.AddrPort) *net.TCPConn {
	s.Helper()
	c := proxytest.Dial(s, address)
	proxytest.Say(s, c, proxytest.Greeting5(socks.Password))
	proxytest.Hear(s, c, "\x05\x02")
	proxytest.Say(s, c, proxytest.Login5(user, password))
	proxytest.Hear(s, c, "\x01\x00")
	proxytest.Say(s, c, proxytest.Ask5(socks.Connect, to))
	proxytest.Granted5(s, c)
	return c
}

// lives fails the test unless a session to an echo goes on.
func lives(t *testing.T, who string, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	proxytest.Hear(t, c, "still here")
}

// cut fails the test unless a session has ended, and not properly.
func cut(t *testing.T, who string, c net.Conn) {
	t.Helper()
	if _, err := proxytest.End(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the session ends with %v, want a reset", who, err)
	}
}

const oneListener = "listeners: {name: lan, listen: 127.0.0.1:0}\n"

// TestReloadRules: the next request and the open sessions are judged by the new
// rules, at once.
func TestReloadRules(t *testing.T) {
	s := serveIn(t, oneListener+"rules: {allow: all, to: any}")
	echo := proxytest.Echo(t, "127.0.0.1")
	other := proxytest.Echo(t, "127.0.0.2")
	bob, gone := s.connects(s.at("lan"), "bob", echo), s.connects(s.at("lan"), "bob", other)
	proxytest.Granted4(t, bob)
	proxytest.Granted4(t, gone)
	if n := s.Status().Sessions; n != 2 {
		t.Errorf("%d sessions are open, want 2", n)
	}
	s.reloads(oneListener + "rules: {allow: one, to: 127.0.0.1}")
	cut(t, "what no rule allows", gone)
	lives(t, "what a rule allows", bob)
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", other), 91)
	proxytest.Eventually(t, "the log says why", func() bool { return strings.Contains(s.said.String(), "reason=revoked") })
	s.reloads(oneListener + "rules: {allow: all, to: any}\nlog: {format: json, level: debug}\ntimeouts: {handshake: 11s}")
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", other))
	lives(t, "what a rule allows", bob)
	proxytest.Eventually(t, "the log changes its format", func() bool { return strings.Contains(s.said.String(), `"msg":"the settings were read anew`) })
}

// TestReloadFaults: whatever is wrong, all stays as it was.
func TestReloadFaults(t *testing.T) {
	good := oneListener + "rules: {allow: all, to: any}\n"
	s := serveIn(t, good, "alice:secret")
	echo := proxytest.Echo(t, "127.0.0.1")
	bob := s.connects(s.at("lan"), "bob", echo)
	proxytest.Granted4(t, bob)
	taken := proxytest.NewTarget(t, "127.0.0.1").Addr()
	_, port, _ := net.SplitHostPort(s.at("lan"))
	twoListeners := "listeners: [{name: other, listen: 127.0.0.1:0}, {name: second, listen: '127.0.0.1:%d'%s}]\nrules: {deny: all}\n"
	for _, test := range []struct{ settings, fault string }{
		{good + "rulez: 1\n", "sallyport.yaml:3:1: unknown key \"rulez\""},
		{good + "users: {file: nobodys}\n", "nobodys"},
		{fmt.Sprintf(twoListeners, taken.Port(), ""), `the listener "second" cannot open its address`},
		{fmt.Sprintf(twoListeners, taken.Port(), ""), "another program listens there"},
		{fmt.Sprintf("listeners: {name: lan, listen: ':%s'}\nrules: {deny: all}\n", port), "this server itself has 127.0.0.1:" + port},
		{fmt.Sprintf(twoListeners, 0, ", tls: {certificate: users, key: users}"), "TLS certificate"},
	} {
		s.refuses(test.settings, test.fault)
		if doors := s.Status().Listeners; len(doors) != 1 || doors[0].Name != "lan" {
			t.Fatalf("%q: the listeners are %v", test.fault, doors)
		}
		lives(t, test.fault, bob)
		proxytest.Granted4(t, s.connects(s.at("lan"), "bob", echo))
	}
	s.writes("alice:secret")
	if err := os.WriteFile(filepath.Join(s.dir, "users"), []byte("alice:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refuses(good+"users: {file: users}\n", "the password is not hashed")
	for _, name := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte("not a host in "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.refuses(good+"sets: {a: {hosts: one}, b: {hosts: two}}\n", "two:1:1:")
	s.says("rulez: 1\nlistenerz: 2\n")
	check, reload := Check(s.file()), s.Reload(t.Context())
	if reload == nil || check.Error() != reload.Error() {
		t.Errorf("reload says\n%v\nand check\n%v", reload, check)
	}
	proxytest.Eventually(t, "a line for each fault", func() bool {
		said := s.said.String()
		return strings.Contains(said, `unknown key \"rulez\"`) && strings.Contains(said, `unknown key \"listenerz\"`) &&
			strings.Contains(said, "one:1:1:") && strings.Contains(said, "two:1:1:")
	})
	s.reloads(good)
	lives(t, "in the end", bob)
}

// TestReloadListeners: sockets that are wanted still stay, with new options; one
// that is not is closed, without its sessions; a new one opens.
func TestReloadListeners(t *testing.T) {
	const rules = "rules: {allow: all, to: any}\n"
	s := serveIn(t, "listeners: [{name: stays, listen: 127.0.0.1:0}, {name: goes, listen: 'localhost:0'}]\n"+rules)
	echo := proxytest.Echo(t, "127.0.0.1")
	stays, goes := s.at("stays"), s.at("goes")
	bob, eve := s.connects(stays, "bob", echo), s.connects(goes, "eve", echo)
	proxytest.Granted4(t, bob)
	proxytest.Granted4(t, eve)

	s.reloads("listeners: [{name: comes, listen: '127.0.0.2:0'}, {name: renamed, listen: 127.0.0.1:0, protocols: socks5}]\n" +
		"rules: {allow: all, listeners: renamed, to: any}\n")
	if at := s.at("renamed"); at != stays {
		t.Errorf("the listener that stays is at %s, and was at %s", at, stays)
	}
	cut(t, "by a listener that no rule names", eve)
	lives(t, "by a listener that has another name", bob)
	if c, err := net.Dial("tcp", goes); err == nil {
		c.Close()
		t.Error("the listener that is gone takes clients")
	}
	proxytest.Ends(t, s.connects(stays, "bob", echo)) // no SOCKS 4 is spoken here now
	proxytest.Refused4(t, s.connects(s.at("comes"), "bob", echo), 91)
}

// TestRevokedUsers: within a second of a change of the users file, and with no
// login to notice it, the sessions of who is gone or has another password end.
func TestRevokedUsers(t *testing.T) {
	s := serveIn(t, oneListener+"users: {file: users}\nrules: {allow: users, users: any, proof: password, to: any}",
		"alice:a", "bob:b", "carol:c")
	echo := proxytest.Echo(t, "127.0.0.1")
	conns := map[string][]*net.TCPConn{}
	for _, user := range []string{"alice", "bob", "carol"} {
		for range 3 {
			conns[user] = append(conns[user], s.signsIn(s.at("lan"), user, user[:1], echo))
		}
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	s.writes("carol:other")
	others, err := os.ReadFile(filepath.Join(s.dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	bobs := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(line string) bool { return !strings.HasPrefix(line, "bob:") })
	if err := os.WriteFile(filepath.Join(s.dir, "users"), []byte(bobs[0]+string(others)), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 3 {
		for _, user := range []string{"alice", "carol"} {
			cut(t, user, conns[user][0])
			conns[user] = conns[user][1:]
		}
	}
	t.Logf("ended %v after the change", time.Since(start))
	for _, c := range conns["bob"] {
		lives(t, "bob", c)
	}
	proxytest.Eventually(t, "the log says why", func() bool { return strings.Count(s.said.String(), "reason=revoked") == 6 })
	if n := s.Status().Sessions; n != 3 {
		t.Errorf("%d sessions are open, want bob's 3", n)
	}
	// Without users nobody is one.
	s.reloads(oneListener + "rules: {allow: users, from: 127.0.0.1, to: any}")
	cut(t, "bob, when there are no users", conns["bob"][0])
}

// TestRulingBetweenTwo: who has signed in by users that were replaced meanwhile
// is nobody to the rules of now.
func TestRulingBetweenTwo(t *testing.T) {
	s := serveIn(t, oneListener+"users: {file: users}\nrules: {allow: users, users: any, proof: password, to: any}", "alice:a")
	id, err := s.ruling.Authenticate(t.Context(), server.Credentials{Name: "alice", Password: "a"})
	if err != nil {
		t.Fatal(err)
	}
	q := &server.Request{Protocol: server.SOCKS5, Command: socks.Connect, Identity: id, Target: socks.FromIP(netip.MustParseAddrPort("127.0.0.1:80"))}
	if _, err := s.ruling.Decide(t.Context(), q); err != nil {
		t.Errorf("at first: %v", err)
	}
	s.writes("bob:b")
	s.inForce.rules.file.Look()
	if _, err := s.ruling.Decide(t.Context(), q); !errors.Is(err, server.Revoked) {
		t.Errorf("a user who is gone: %v", err)
	}
	if _, err := s.ruling.MayAssociate(t.Context(), q); !errors.Is(err, server.Revoked) {
		t.Errorf("the same, to associate: %v", err)
	}
	s.reloads(oneListener)
	if _, err := s.ruling.Authenticate(t.Context(), server.Credentials{Name: "bob", Password: "b"}); !errors.Is(err, server.BadLogin) {
		t.Errorf("a login without users: %v", err)
	}
}

// TestReloadWhenItStops is refused.
func TestReloadWhenItStops(t *testing.T) {
	s := serveIn(t, oneListener)
	s.end()
	if err := s.Reload(t.Context()); !errors.Is(err, errNotRunning) {
		t.Errorf("reload: %v", err)
	}
	s.Hangup() // must not panic
}

// TestHangupAtOnce: HUP that comes before all is up, as it may once it is said where the
// server listens, is done when it is.
func TestHangupAtOnce(t *testing.T) {
	s := &served{TB: t, dir: t.TempDir()}
	s.says(oneListener)
	var err error
	if s.Daemon, err = Open(t.Context(), Source{File: s.file(), Admin: "off"}, &s.said); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Hangup()
	}()
	select {
	case <-done:
		t.Error("it was done before the server ran")
	case <-time.After(50 * time.Millisecond): // what did not wait would have come by now, as a rule
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ctx) }()
	<-done
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if said := s.said.String(); !strings.Contains(said, "were read anew") {
		t.Errorf("the log says:\n%s", said)
	}
}
