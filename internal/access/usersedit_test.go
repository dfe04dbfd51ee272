package access

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/server"
)

func TestUsersEditor(t *testing.T) {
	e := UsersEditor{filepath.Join(t.TempDir(), "users")}
	others := []string{"# by hand \t\r\n", "\n", "zoe:$2y$" + vectorBcrypt + "\r\n", "   \n", "old:in the clear\n", "#end"}
	writeUsers(t, e.Path, strings.Join(others, ""))
	if err := os.Chmod(e.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	do("add", e.Add("alice", "wonderland"))
	do("passwd", e.SetPassword("zoe", "new"))
	do("passwd of a line with a fault", e.SetPassword("old", "new"))
	do("add", e.Add("bob", "builder"))
	do("remove", e.Remove("alice"))

	data, err := os.ReadFile(e.Path)
	if err != nil {
		t.Fatal(err)
	}
	lines := splitLines(data)
	if len(lines) != 7 {
		t.Fatalf("lines %q", lines)
	}
	for i, line := range others {
		switch i {
		case 2, 4:
			continue
		case 5:
			line += "\n"
		}
		if lines[i] != line {
			t.Errorf("line %d is %q, was %q", i+1, lines[i], line)
		}
	}
	if !strings.HasPrefix(lines[2], "zoe:$argon2id$") || !strings.HasSuffix(lines[2], "\r\n") {
		t.Errorf("the line with another password is %q", lines[2])
	}
	a, err := parseAccounts(data)
	if err != nil || !a.matches("zoe", "new") || !a.matches("old", "new") || !a.matches("bob", "builder") || len(a.hashes) != 3 {
		t.Errorf("%v: %v", a, err)
	}
	names, err := e.Names()
	if err != nil || !slices.Equal(names, []string{"zoe", "old", "bob"}) {
		t.Errorf("names %q, %v", names, err)
	}
	info, err := os.Stat(e.Path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; the group could read it", info.Mode(), err)
	}
	onlyFile(t, e.Path)
}

// TestNewFileForTheGroup: a file that is made in a folder of a service's group can be
// read by the service; elsewhere only by its owner.
func TestNewFileForTheGroup(t *testing.T) {
	for _, test := range []struct{ folder, file fs.FileMode }{
		{0o750, 0o600},
		{0o750 | fs.ModeSetgid, 0o640},
	} {
		dir := t.TempDir()
		if err := os.Chmod(dir, test.folder); err != nil {
			t.Fatal(err)
		}
		e := UsersEditor{Path: filepath.Join(dir, "users")}
		if err := e.Add("alice", "wonderland"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(e.Path)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode() != test.file {
			t.Errorf("in a folder of mode %v: %v, want %v", test.folder, info.Mode(), test.file)
		}
	}
}

// onlyFile checks that nothing else was left in the file's folder.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("in the folder are %v, %v", left, err)
	}
}

func TestUsersEditorRefuses(t *testing.T) {
	e := UsersEditor{filepath.Join(t.TempDir(), "users")}
	twice := "alice:x\nbob:y\nalice:z\n"
	writeUsers(t, e.Path, twice)
	for _, c := range []struct {
		what string
		err  error
		want string
	}{
		{"add who is there", e.Add("bob", "x"), ErrUserExists.Error()},
		{"passwd of nobody", e.SetPassword("carol", "x"), ErrNoUser.Error()},
		{"passwd of who is there twice", e.SetPassword("alice", "x"), "twice"},
		{"remove nobody", e.Remove("carol"), ErrNoUser.Error()},
		{"remove a comment", e.Remove("# x"), ErrNoUser.Error()},
		{"no password", e.Add("dave", ""), "empty"},
		{"no other password", e.SetPassword("bob", ""), "empty"},
		{"a long password", e.Add("dave", strings.Repeat("x", 256)), "255"},
		{"a password of two lines", e.Add("dave", "x\ny"), "end of a line"},
		{"a password with a NUL", e.Add("dave", "x\x00"), "NUL"},
		{"any", e.Add("any", "x"), "something else"},
		{"a group", e.Add("@staff", "x"), "something else"},
		{"no name", e.Add("", "x"), "without a name"},
		{"two lines", e.Add("dave\nmallory:z", "x"), "cannot hold"},
		{"list of a file with faults", func() error { _, err := e.Names(); return err }(), "line 1"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, c.err, c.want)
		}
	}
	if data, err := os.ReadFile(e.Path); err != nil || string(data) != twice {
		t.Errorf("the file is %q, %v", data, err)
	}
	onlyFile(t, e.Path)
	if err := e.Remove("alice"); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(e.Path); err != nil || string(data) != "bob:y\n" {
		t.Errorf("the file is %q, %v", data, err)
	}
	if err := os.Chmod(e.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.Add("dave", "x"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that everybody reads: %v", err)
	}
	none := UsersEditor{filepath.Join(t.TempDir(), "none")}
	if err := none.Remove("alice"); !errors.Is(err, ErrNoUser) {
		t.Errorf("no file: %v", err)
	}
	if there, err := none.Has("alice"); err != nil || there {
		t.Errorf("no file: %v, %v", there, err)
	}
}

// Of many changes at once, none is lost; a link stays a link.
func TestUsersEditorsAtOnce(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "users"), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Skip("no links here:", err)
	}
	writeUsers(t, path, "")
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := (UsersEditor{link}).change(func(lines []string) ([]string, error) {
				return append(lines, fmt.Sprintf("user%d:%s\n", n, vectorArgon2id)), nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names, err := (UsersEditor{path}).Names(); err != nil || len(names) != 20 {
		t.Errorf("%d names, %v; want 20", len(names), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	onlyFile(t, path)
}

// TestEnable: a user who is disabled cannot sign in, keeps the password, also one
// that is set meanwhile, and is revoked where signed in.
func TestEnable(t *testing.T) {
	e := UsersEditor{Path: filepath.Join(t.TempDir(), "users")}
	if err := e.Add("alice", "secret"); err != nil {
		t.Fatal(err)
	}
	f, err := OpenUsersFile(e.Path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p := NewPasswords(nil, f, slog.New(slog.DiscardHandler))
	signsIn := func(password string) (server.Identity, error) {
		f.Look()
		return p.Authenticate(t.Context(), server.Credentials{Name: "alice", Password: password})
	}
	id, err := signsIn("secret")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Enable("alice", false); err != nil {
		t.Fatal(err)
	}
	if _, err := signsIn("secret"); !errors.Is(err, server.BadLogin) {
		t.Errorf("a disabled user signs in: %v", err)
	}
	if err := p.Still(id); !errors.Is(err, server.Revoked) {
		t.Errorf("a disabled user goes on: %v", err)
	}
	if _, err := p.Foretell("alice", server.Password); !errors.Is(err, server.BadLogin) {
		t.Errorf("explain says that a disabled user signs in: %v", err)
	}
	hashes, err := e.Hashes()
	if err != nil || len(hashes) != 1 || IsEnabled(hashes["alice"]) {
		t.Errorf("%v, %v", hashes, err)
	}
	if err := e.SetPassword("alice", "other"); err != nil {
		t.Fatal(err)
	}
	if _, err := signsIn("other"); !errors.Is(err, server.BadLogin) {
		t.Errorf("another password lets a disabled user in: %v", err)
	}
	if err := errors.Join(e.Enable("alice", true), e.Enable("alice", true)); err != nil {
		t.Fatal(err)
	}
	if _, err := signsIn("other"); err != nil {
		t.Errorf("who may again: %v", err)
	}
	if err := e.Enable("bob", false); !errors.Is(err, ErrNoUser) {
		t.Errorf("who is not there: %v", err)
	}
}
