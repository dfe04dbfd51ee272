package access

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// UsersEditor changes a users file. Every change is whole or not at all, leaves
// the other lines as they are, byte for byte, and keeps out whoever else would
// change the file at the same time with a UsersEditor. Safe for concurrent use.
type UsersEditor struct{ Path string }

// Faults of what is asked of a UsersEditor.
var (
	ErrUserExists = errors.New("the user is there already")
	ErrNoUser     = errors.New("there is no such user")
	errTwice      = errors.New("the user stands in the file twice; take one line out")
)

// maxPassword is what SOCKS 5 can carry, in bytes.
const maxPassword = 255

// Has reports whether a line is about the user. A file that does not exist has
// none.
func (e UsersEditor) Has(name string) (bool, error) {
	data, _, err := e.read()
	return len(linesOf(splitLines(data), name)) > 0, err
}

// Names returns the names in the order of the file. It returns an error where a
// server could not read it.
func (e UsersEditor) Names() ([]string, error) {
	data, _, err := readUsers(e.Path)
	if err != nil {
		return nil, err
	}
	if _, err := parseUsers(e.Path, data); err != nil {
		return nil, err
	}
	var names []string
	for _, line := range splitLines(data) {
		if name, _, ok := splitLine(line); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// Hashes returns the text of each user's hash. A file that does not exist has none.
func (e UsersEditor) Hashes() (map[string]string, error) {
	data, _, err := e.read()
	hashes := make(map[string]string)
	for _, line := range splitLines(data) {
		if name, text, ok := splitLine(line); ok {
			hashes[name] = text
		}
	}
	return hashes, err
}

// Add appends a user, or fails with [ErrUserExists]. It makes the file if there
// is none.
func (e UsersEditor) Add(name, password string) error {
	if err := errors.Join(CheckUserName(name), CheckPassword(password)); err != nil {
		return err
	}
	added := name + ":" + newHash(password).String() + "\n"
	return e.change(func(lines []string) ([]string, error) {
		if len(linesOf(lines, name)) > 0 {
			return nil, ErrUserExists
		}
		if last := len(lines) - 1; last >= 0 && !strings.HasSuffix(lines[last], "\n") {
			lines[last] += "\n"
		}
		return append(lines, added), nil
	})
}

// SetPassword puts another password in the place of a user's, or fails with
// [ErrNoUser]. One who may not sign in still may not.
func (e UsersEditor) SetPassword(name, password string) error {
	if err := CheckPassword(password); err != nil {
		return err
	}
	hash := newHash(password).String()
	return e.changeHash(name, func(old string) string { return Enable(hash, IsEnabled(old)) })
}

// Enable lets a user sign in again, or not any more, or fails with [ErrNoUser]. The
// password stays.
func (e UsersEditor) Enable(name string, on bool) error {
	return e.changeHash(name, func(old string) string { return Enable(old, on) })
}

// changeHash puts another text in the place of a user's hash.
func (e UsersEditor) changeHash(name string, change func(old string) string) error {
	return e.change(func(lines []string) ([]string, error) {
		at := linesOf(lines, name)
		switch {
		case len(at) == 0:
			return nil, ErrNoUser
		case len(at) > 1:
			return nil, errTwice
		}
		line := lines[at[0]]
		_, text, _ := splitLine(line)
		lines[at[0]] = name + ":" + change(text) + line[len(strings.TrimRight(line, "\r\n")):]
		return lines, nil
	})
}

// Remove takes a user out, with the user's keys, or fails with [ErrNoUser].
func (e UsersEditor) Remove(name string) error {
	if err := e.removeKeys(name); err != nil {
		return err
	}
	return e.change(func(lines []string) ([]string, error) {
		at := linesOf(lines, name)
		if len(at) == 0 {
			return nil, ErrNoUser
		}
		var kept []string
		for i, line := range lines {
			if len(at) > 0 && at[0] == i {
				at = at[1:]
				continue
			}
			kept = append(kept, line)
		}
		return kept, nil
	})
}

// CheckUserName refuses names that a users file cannot hold, and those that
// stand for something else in a rule.
func CheckUserName(name string) error {
	if name == "any" || strings.HasPrefix(name, "@") {
		return fmt.Errorf("a user cannot be called %q: in a rule that is something else", name)
	}
	return checkName(name)
}

// CheckGroupName refuses names that no group can have in the ledger.
func CheckGroupName(name string) error {
	if name == "" || strings.HasPrefix(name, "@") || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("a group cannot be called %q: its name is 1 to 255 bytes, without the @ that a rule writes before it", name)
	}
	return nil
}

// CheckPassword refuses passwords that not every protocol can carry.
func CheckPassword(password string) error {
	switch {
	case password == "":
		return errors.New("the password is empty")
	case len(password) > maxPassword:
		return errors.New("the password has more than 255 bytes")
	case strings.ContainsAny(password, "\x00\r\n"):
		return errors.New("the password has a NUL byte or the end of a line in it")
	}
	return nil
}

// splitLines returns the lines with their ends.
func splitLines(data []byte) []string {
	var lines []string
	for line := range bytes.Lines(data) {
		lines = append(lines, string(line))
	}
	return lines
}

// linesOf returns where the lines about a user are.
func linesOf(lines []string, user string) (at []int) {
	for i, line := range lines {
		if name, _, ok := splitLine(line); ok && name == user {
			at = append(at, i)
		}
	}
	return at
}

// read returns the file; nothing and a nil info where there is none.
func (e UsersEditor) read() ([]byte, fs.FileInfo, error) {
	data, state, err := readUsers(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	return data, state, err
}

// change writes the file anew.
func (e UsersEditor) change(edit func(lines []string) ([]string, error)) error {
	if real, err := filepath.EvalSymlinks(e.Path); err == nil {
		e.Path = real // a link stays one
	}
	unlock, err := lockFolder(filepath.Dir(e.Path))
	if err != nil {
		return err
	}
	defer unlock()
	data, info, err := e.read()
	if err != nil {
		return err
	}
	lines, err := edit(splitLines(data))
	if err != nil {
		return err
	}
	return replaceFile(e.Path, []byte(strings.Join(lines, "")), info)
}

// replaceFile puts data in the place of the file at path, which info describes;
// nil: there is none. Whoever reads it meanwhile finds the old content or the new.
func replaceFile(path string, data []byte, info fs.FileInfo) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".users-*") // for its owner only
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(f.Name()) // what went wrong before is what counts
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if info != nil {
		err = likeFile(f, info)
	} else {
		err = likeFolder(f, filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// likeFolder lets the group of a new file read it where its folder hands its own group
// on: that is the group of a server that may read what is there.
func likeFolder(f *os.File, folder string) error {
	info, err := os.Stat(folder)
	if err != nil || info.Mode()&fs.ModeSetgid == 0 {
		return err
	}
	return f.Chmod(0o640)
}
