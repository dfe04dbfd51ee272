package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSignIn runs a server with a users file, and changes the file meanwhile.
func TestSignIn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	runUser := func(password string, args ...string) {
		t.Helper()
		p := start(strings.NewReader(password), append([]string{"user", "--file", file}, args...)...)
		if code := p.exit(t); code != 0 {
			t.Fatalf("user %s: %d: %s", args, code, p.errs.String())
		}
	}
	runUser("wonderland\n", "add", "alice")
	server, address := startServe(t, "users: {file: "+file+"}\nrules: {allow: staff, users: any, proof: password, to: loopback}\n")
	defer stopServe(t, server)

	if got := signIn(t, address, "alice", "wonderland"); got != "\x05\x02\x01\x00" {
		t.Errorf("alice: % x", got)
	}
	for _, c := range []struct{ name, password string }{{"alice", "Wonderland"}, {"bob", "wonderland"}} {
		if got := signIn(t, address, c.name, c.password); got != "\x05\x02\x01\x01" {
			t.Errorf("%s with %s: % x", c.name, c.password, got)
		}
	}
	waitFor(t, &server.errs, `msg="bad login" client=127.0.0.1 user=bob protocol=socks5`)
	if strings.Contains(server.errs.String(), "onderland") {
		t.Errorf("the log tells a password:\n%s", server.errs.String())
	}

	runUser("builder\r\n", "add", "bob") // first: once alice is gone, he is there
	runUser("", "remove", "alice")
	// The server looks at the file again, after a second at the latest.
	deadline := time.After(10 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); signIn(t, address, "alice", "wonderland") == "\x05\x02\x01\x00"; {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("alice was taken out, and still signs in")
		}
	}
	if got := signIn(t, address, "bob", "builder"); got != "\x05\x02\x01\x00" {
		t.Errorf("bob: % x", got)
	}
}

// signIn is what a server says to a SOCKS 5 client that signs in.
func signIn(t *testing.T, address, name, password string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b bytes.Buffer
	b.WriteString("\x05\x01\x02\x01")
	for _, field := range []string{name, password} {
		b.WriteByte(byte(len(field)))
		b.WriteString(field)
	}
	say(t, c, b.String())
	answer := make([]byte, 4)
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// The settings cannot be checked without the users, and neither tell a secret.
func TestServeWithBadUsers(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "sallyport.yaml")
	for name, text := range map[string]string{
		"users":          "alice:hunter2\n",
		"sallyport.yaml": "listeners: {listen: 127.0.0.1:0}\nusers: {file: users}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range [][]string{{"serve", "-c", settings}, {"check", settings}} {
		p := start(nil, command...)
		if code := p.exit(t); code != exitSettings {
			t.Errorf("%s ended with %d, want %d", command, code, exitSettings)
		}
		if said := p.errs.String(); !strings.Contains(said, `users:1:7: the user "alice"`) || strings.Contains(said, "hunter2") {
			t.Errorf("%s said %q", command, said)
		}
	}
}
