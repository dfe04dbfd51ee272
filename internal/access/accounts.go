package access

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
)

// accounts are the users of a users file. They are not changed once they are
// read; safe for concurrent use.
type accounts struct {
	hashes map[string]hash
	marks  map[string]uint64 // by user: tells the hash from any other
	kinds  map[string]hash   // one hash of each kind, at least one, to compare a wrong password with for nothing
}

func newAccounts(hashes map[string]hash, marks map[string]uint64) *accounts {
	a := &accounts{hashes, marks, map[string]hash{}}
	for _, h := range hashes {
		a.kinds[h.kind()] = h
	}
	if len(a.kinds) == 0 {
		h := newHash("")
		a.kinds[h.kind()] = h
	}
	return a
}

const (
	maxName       = 255 // bytes, as in SOCKS 5
	maxFileFaults = 100 // more are not reported
)

// parseAccounts reads lines of the form NAME:HASH, as htpasswd writes them. Empty
// lines and those that start with # are left out. The error tells every bad
// line by its number; no hash, and nothing that could be a password, is in it.
func parseAccounts(data []byte) (*accounts, error) {
	hashes, marks := map[string]hash{}, map[string]uint64{}
	var faults []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if err := readAccount(hashes, marks, string(line)); err != nil && len(faults) < maxFileFaults {
			faults = append(faults, fmt.Errorf("line %d: %w", number, err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return newAccounts(hashes, marks), nil
}

// readAccount takes one line.
func readAccount(hashes map[string]hash, marks map[string]uint64, line string) error {
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
	if _, twice := hashes[name]; twice {
		return fmt.Errorf("the user %q stands here twice", name)
	}
	h, err := parseHash(text)
	if err != nil {
		return fmt.Errorf("the user %q: %w; `sallyport user passwd NAME` sets a new one", name, err)
	}
	hashes[name], marks[name] = h, markOf(text)
	return nil
}

var markSeed = maphash.MakeSeed()

// markOf returns a number that stands for a hash in this process, and does not
// tell it. It is never 0.
func markOf(hash string) uint64 { return max(1, maphash.String(markSeed, hash)) }

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

// matches reports whether the password is that of the user. Where it is not, a
// hash of each kind has been compared: it takes as long for every user, whatever
// kind of hash that one has, and for one that is not there.
func (a *accounts) matches(name, password string) bool {
	own := ""
	if h, known := a.hashes[name]; known {
		own = h.kind()
		// bcrypt takes a password as endless, with a NUL behind each turn: of one that
		// holds a NUL it cannot be said where it ends.
		if h.matches(password) && !strings.Contains(password, "\x00") {
			return true
		}
	}
	for kind, h := range a.kinds {
		if kind != own {
			h.matches(password)
		}
	}
	return false
}
