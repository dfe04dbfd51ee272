package access

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// accounts are the users of a users file. They are not changed once they are
// read; safe for concurrent use.
type accounts struct {
	hashes map[string]hash
	dummy  hash // what an unknown user's password is compared with, for nothing
}

const (
	maxName       = 255 // bytes, as in SOCKS 5
	maxFileFaults = 100 // more are not reported
)

// parseAccounts reads lines of the form NAME:HASH, as htpasswd writes them. Empty
// lines and those that start with # are left out. The error tells every bad
// line by its number; no hash, and nothing that could be a password, is in it.
func parseAccounts(data []byte) (*accounts, error) {
	a := &accounts{hashes: map[string]hash{}}
	var faults []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if err := a.read(string(line)); err != nil && len(faults) < maxFileFaults {
			faults = append(faults, fmt.Errorf("line %d: %w", number, err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	for _, h := range a.hashes {
		if a.dummy == nil || h.cost() > a.dummy.cost() {
			a.dummy = h
		}
	}
	if a.dummy == nil {
		a.dummy = newHash("")
	}
	return a, nil
}

// read takes one line.
func (a *accounts) read(line string) error {
	name, text, ok := splitLine(line)
	if !ok {
		return nil
	}
	if text == "" {
		return errors.New("expected NAME:HASH")
	}
	if err := checkName(name); err != nil {
		return err
	}
	if _, twice := a.hashes[name]; twice {
		return fmt.Errorf("the user %q stands here twice", name)
	}
	h, err := parseHash(text)
	if err != nil {
		return fmt.Errorf("the user %q: %w; `sallyport user passwd NAME` sets a new one", name, err)
	}
	a.hashes[name] = h
	return nil
}

// splitLine takes a line of a users file apart; ok is false where it holds no user.
func splitLine(line string) (name, text string, ok bool) {
	line = strings.TrimRight(line, "\r\n")
	if strings.HasPrefix(line, "#") || strings.Trim(line, " \t") == "" {
		return "", "", false
	}
	name, text, _ = strings.Cut(line, ":")
	return name, text, true
}

// checkName refuses names that a users file cannot hold.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a user without a name")
	case len(name) > maxName:
		return errors.New("the name of a user has more than 255 bytes")
	case strings.HasPrefix(name, "#"), strings.Trim(name, " \t") != name:
		return errors.New("the name of a user cannot start with # or a space, or end with a space")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' }):
		return errors.New("the name of a user cannot hold a colon or a control character")
	}
	return nil
}

// matches reports whether the password is that of the user. It takes as long
// for a user that is not there.
func (a *accounts) matches(name, password string) bool {
	h, known := a.hashes[name]
	if !known {
		h = a.dummy
	}
	// bcrypt takes a password as endless, with a NUL behind each turn: of one that
	// holds a NUL it cannot be said where it ends.
	return h.matches(password) && known && !strings.Contains(password, "\x00")
}
