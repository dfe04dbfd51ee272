package access

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// usersAt is a file with the lines, the log of whoever reads it, and a clock
// that lets it be looked at again.
type usersAt struct {
	*UsersFile
	t   *testing.T
	log bytes.Buffer
}

func newUsersAt(t *testing.T, lines string) *usersAt {
	t.Helper()
	u := &usersAt{t: t}
	path := filepath.Join(t.TempDir(), "users")
	writeUsers(t, path, lines)
	var err error
	if u.UsersFile, err = OpenUsersFile(path, slog.New(slog.NewTextHandler(&u.log, nil))); err != nil {
		t.Fatal(err)
	}
	return u
}

func writeUsers(t *testing.T, path, lines string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
}

// again is the users after the second in which nobody looks.
func (u *usersAt) again() *users {
	u.next = time.Time{}
	return u.current()
}

// ages makes the file one that was not written just now.
func (u *usersAt) ages() {
	u.t.Helper()
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(u.path, long, long); err != nil {
		u.t.Fatal(err)
	}
	u.again()
}

// stays looks a few times, and checks that the users stay as they were, and
// that the log says so once.
func (u *usersAt) stays(before *users) {
	u.t.Helper()
	for range 5 {
		if u.again() != before {
			u.t.Fatal("the users changed")
		}
	}
	said := u.log.String()
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, "stay as they were") || strings.Contains(said, "hunter2") {
		u.t.Errorf("the log says\n%s\nwant one line", said)
	}
}

const (
	aliceLine = "alice:" + vectorArgon2id + "\n"
	bobLine   = "bob:" + vectorArgon2id + "\n"
)

func TestUsersAreReadAgain(t *testing.T) {
	for _, settled := range []bool{false, true} {
		u := newUsersAt(t, aliceLine)
		if settled {
			u.ages()
		}
		before := u.again()
		if u.again() != before {
			t.Error("a file that did not change was taken for another: the logins are lost")
		}
		writeUsers(t, u.path, bobLine) // other bytes; the size of a line is not the point
		if u.current() != before {
			t.Error("it was looked at within a second")
		}
		after := u.again()
		if after.accounts.hashes["bob"] == nil || after.accounts.hashes["alice"] != nil || after.verified == before.verified {
			t.Errorf("settled %v: the change was not noticed", settled)
		}
		if !strings.Contains(u.log.String(), "read again") {
			t.Errorf("the log says %q", u.log.String())
		}
	}
}

// The same time and size, but another file.
func TestUsersReplaced(t *testing.T) {
	u := newUsersAt(t, aliceLine)
	u.ages()
	other := u.path + ".new"
	writeUsers(t, other, "carol:"+vectorArgon2id+"\n")
	info, err := os.Stat(u.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(other, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, u.path); err != nil {
		t.Fatal(err)
	}
	if u.again().accounts.hashes["carol"] == nil {
		t.Error("the change was not noticed")
	}
}

// A file with faults changes nothing, and is told once; so is one that is gone.
func TestBadUsersAreLeftOut(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"faults":   func(path string) error { return os.WriteFile(path, []byte("alice:hunter2\n"), 0o600) },
		"gone":     os.Remove,
		"readable": func(path string) error { return os.Chmod(path, 0o644) },
		"a folder": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "readable" && runtime.GOOS == "windows" {
				t.Skip("there are no such modes")
			}
			u := newUsersAt(t, aliceLine)
			u.ages()
			before := u.current()
			if err := spoil(u.path); err != nil {
				t.Fatal(err)
			}
			u.stays(before)
			if err := os.RemoveAll(u.path); err != nil {
				t.Fatal(err)
			}
			writeUsers(t, u.path, bobLine)
			if u.again().accounts.hashes["bob"] == nil {
				t.Error("the mended file was not read")
			}
		})
	}
}

func TestOpenUsersFile(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		mode os.FileMode
		data string
		want string // empty: it is read
	}{
		{"owner", 0o600, aliceLine, ""},
		{"group", 0o640, aliceLine, ""},
		{"group writes", 0o660, aliceLine, ""},
		{"nobody is in it", 0o600, "", ""},
		{"others read", 0o604, aliceLine, "chmod 600 "},
		{"others write", 0o602, aliceLine, "chmod 600 "},
		{"everybody", 0o777, aliceLine, "chmod 600 "},
		{"faults", 0o600, "alice\n", "line 1"},
		{"too big", 0o600, strings.Repeat("#\n", maxUsersFile/2) + "#", "over 16 MiB"},
	} {
		path := filepath.Join(dir, c.name)
		writeUsers(t, path, c.data)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		err := CheckUsersFile(path)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: %v; want its name and %q", c.name, err, c.want)
		}
	}
	if err := CheckUsersFile(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "sallyport user add") {
		t.Errorf("no file: %v", err)
	}
	if err := CheckUsersFile(dir); err == nil || !strings.Contains(err.Error(), "it is a folder") {
		t.Errorf("a folder: %v", err)
	}
}
