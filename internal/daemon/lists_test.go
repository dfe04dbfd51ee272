//go:build unix

package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// puts changes a file in the folder of the settings, in one step.
func (s *served) puts(name, text string) {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.Fatal(err)
	}
}

// logs waits until the log has the text so many times.
func (s *served) logs(text string, times int) {
	s.Helper()
	proxytest.Eventually(s, fmt.Sprintf("the log has %q %d times", text, times), func() bool {
		return strings.Count(s.said.String(), text) == times
	})
}

// fills is a daemon whose settings name files that do not exist yet.
func fills(t *testing.T, settings string, files map[string]string) *served {
	t.Helper()
	s := serveIn(t, oneListener)
	for name, text := range files {
		s.puts(name, text)
	}
	s.reloads(settings)
	return s
}

const withSets = oneListener + `
sets:
  denied: {prefixes: denied}
  clients: {prefixes: [clients, more clients]}
  not used: {hosts: denied}
rules:
  - {deny: the list, to: "@denied"}
  - {allow: the rest, from: "@clients", to: any}
`

const readAgain = "a file of the set was read again"

// TestSetsWhileServing: what comes into the file of a set, and what goes out of it,
// holds for new requests and for open sessions; a broken line changes nothing.
func TestSetsWhileServing(t *testing.T) {
	s := fills(t, withSets, map[string]string{"denied": "", "clients": "127.0.0.0/8\n", "more clients": "# none\n"})
	one, two := proxytest.Echo(t, "127.0.0.1"), proxytest.Echo(t, "127.0.0.2")
	to1, to2 := s.connects(s.at("lan"), "bob", one), s.connects(s.at("lan"), "bob", two)
	proxytest.Granted4(t, to1)
	proxytest.Granted4(t, to2) // an empty list denies nobody

	s.puts("denied", "127.0.0.2\n")
	cut(t, "to what is in the list now", to2)
	s.logs("reason=revoked", 1)
	lives(t, "to what is not", to1)
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", two), 91)

	s.logs(readAgain, 2) // by each set that has the file
	s.puts("denied", "127.0.0.1\n127.0.0/8\n")
	s.logs("the set stays as it was", 2)
	lives(t, "to what the broken file denies", to1)
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", two), 91)

	s.puts("denied", "127.0.0.3\n")
	s.logs(readAgain, 4)
	s.logs("the set stays as it was", 2)
	lives(t, "after all", to1)
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", two))

	// A set in from that has become empty is nobody, and not anybody.
	s.puts("clients", "")
	cut(t, "of a client who is in no list now", to1)
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", one), 91)
	s.puts("more clients", "127.0.0.1\n")
	s.logs(readAgain, 6)
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", one))
}

// TestFaultsOfSeveralFiles: check shows all of them, each once; start and reload
// say the same, and nothing of it is in force.
func TestFaultsOfSeveralFiles(t *testing.T) {
	s := fills(t, withSets, map[string]string{"denied": "", "clients": "127.0.0.0/8\n", "more clients": ""})
	echo := proxytest.Echo(t, "127.0.0.1")
	bob := s.connects(s.at("lan"), "bob", echo)
	proxytest.Granted4(t, bob)
	s.says(strings.Replace(withSets, "the rest", "other", 1) + "users: {file: users}\n")
	for name, text := range map[string]string{"denied": "# list\n  10.0.0.0/33 # wide\n*\n", "clients": "10.0.0.1 bob\n", "users": "alice:secret\n"} {
		s.puts(name, text)
	}
	check := Check(s.file())
	if check == nil {
		t.Fatal("check finds nothing")
	}
	for _, want := range []string{
		"denied:2:3: \"10.0.0.0/33\" is not an address, a prefix or a range\n  2 |   10.0.0.0/33 # wide\n    |   ^~~~~~~~~~~",
		"denied:3:1: ", "clients:1:1: ", "users:1:7: ",
	} {
		if strings.Count(check.Error(), want) != 1 {
			t.Errorf("check says\n%v\nwant once in it\n%s", check, want)
		}
	}
	if err := s.Reload(t.Context()); err == nil || err.Error() != check.Error() {
		t.Errorf("reload says\n%v\nand check\n%v", err, check)
	}
	s.logs("those before stay in force", 4)
	_, err := Open(t.Context(), Source{File: s.file(), Admin: "off"}, io.Discard)
	if err == nil || err.Error() != check.Error() {
		t.Errorf("start says\n%v\nand check\n%v", err, check)
	}
	lives(t, "bob", bob)
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", echo))
}

// TestIncludedGroups: a reload reads the included files, too, and ends the sessions
// of who is no longer in a group.
func TestIncludedGroups(t *testing.T) {
	const settings = oneListener + "include: conf.d\nrules: {allow: staff, users: '@staff', proof: claimed, to: any}\n"
	s := serveIn(t, oneListener)
	if err := os.Mkdir(filepath.Join(s.dir, "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.puts("conf.d/staff.yaml", "groups: {staff: [alice, bob]}\n")
	s.reloads(settings)
	echo := proxytest.Echo(t, "127.0.0.1")
	alice, bob := s.connects(s.at("lan"), "alice", echo), s.connects(s.at("lan"), "bob", echo)
	proxytest.Granted4(t, alice)
	proxytest.Granted4(t, bob)
	s.puts("conf.d/staff.yaml", "groups: {staff: [alice}\n")
	s.refuses(settings, "staff.yaml:1:")
	lives(t, "bob, by a file with a fault", bob)
	s.puts("conf.d/staff.yaml", "groups: {staff: [alice]}\n")
	s.reloads(settings)
	cut(t, "who has left", bob)
	lives(t, "who has not", alice)
}

// TestSlowReload: while settings are read, the server answers, revokes and stops.
func TestSlowReload(t *testing.T) {
	const rules = "users: {file: users}\nrules: {allow: users, users: any, proof: password, to: any}\n"
	s := serveIn(t, oneListener+rules, "alice:a")
	alice := s.signsIn(s.at("lan"), "alice", "a", proxytest.Echo(t, "127.0.0.1"))
	if err := os.Remove(s.file()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.file(), 0o600); err != nil {
		t.Fatal(err)
	}
	reloaded := make(chan error, 1)
	go func() { reloaded <- s.Reload(context.Background()) }()
	slow, err := os.OpenFile(s.file(), os.O_WRONLY, 0) // returns once somebody reads
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	s.writes("bob:b")
	cut(t, "who is no user any more", alice)
	if n := len(s.Status().Listeners); n != 1 {
		t.Errorf("%d listeners", n)
	}
	s.end()
	address := freeAddress(t)
	if _, err := fmt.Fprintf(slow, "listeners: {name: late, listen: '%s'}\n%s", address, rules); err != nil {
		t.Fatal(err)
	}
	slow.Close()
	if err := <-reloaded; err == nil || !strings.Contains(err.Error(), errNotRunning.Error()) {
		t.Errorf("the reload of a server that has stopped: %v", err)
	}
	if l, err := net.Listen("tcp", address); err != nil {
		t.Errorf("a socket was left open: %v", err)
	} else {
		l.Close()
	}
}

// freeAddress is where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
