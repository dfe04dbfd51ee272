package access

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"unicode/utf8"
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

// LineFault is what is wrong with a line of a file.
type LineFault struct {
	Line    int    // from 1
	Column  int    // in characters, from 1
	Width   int    // how many characters are at fault
	Text    string // the line, as far as it may be shown: no hash, and nothing that could be a password
	Problem string // one line, with every value in it escaped
	Hint    string // what would be right; may be empty
}

// Error returns the problem behind the number of the line.
func (f *LineFault) Error() string {
	text := fmt.Sprintf("line %d: %s", f.Line, f.Problem)
	if f.Hint != "" {
		text += "; " + f.Hint
	}
	return text
}

// LineFaults are those of a file, in the order of its lines; after 100 no more
// are told. Never empty where it is returned.
type LineFaults []*LineFault

// Error returns the faults one below the other.
func (l LineFaults) Error() string {
	texts := make([]string, len(l))
	for i, one := range l {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "\n")
}

// parseAccounts reads lines of the form NAME:HASH, as htpasswd writes them. Empty
// lines and those that start with # are left out. The error is a LineFaults.
func parseAccounts(data []byte) (*accounts, error) {
	hashes, marks := map[string]hash{}, map[string]uint64{}
	var faults LineFaults
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if fault := readAccount(hashes, marks, string(line)); fault != nil && len(faults) < maxFileFaults {
			fault.Line = number
			faults = append(faults, fault)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return newAccounts(hashes, marks), nil
}

// hidden stands for what must not be shown.
const hidden = "..."

// readAccount takes one line. What is wrong with it lacks the line's number. A
// line without a colon may be a password, and so may what stands before one where
// that is no name.
func readAccount(hashes map[string]hash, marks map[string]uint64, line string) *LineFault {
	name, text, ok := splitLine(line)
	if !ok {
		return nil
	}
	fault := &LineFault{Column: 1, Width: len(hidden), Text: hidden}
	if text == "" {
		fault.Problem, fault.Hint = "expected NAME:HASH", "`sallyport user add NAME` writes such lines"
		return fault
	}
	if err := checkName(name); err != nil {
		fault.Problem = err.Error()
		return fault
	}
	fault.Text, fault.Width = name+":"+hidden, utf8.RuneCountInString(name)
	if _, twice := hashes[name]; twice {
		fault.Problem, fault.Hint = fmt.Sprintf("the user %q stands here twice", name), "keep one of the lines"
		return fault
	}
	h, err := parseHash(text)
	if err != nil {
		fault.Problem, fault.Hint = fmt.Sprintf("the user %q: %v", name, err), "`sallyport user passwd NAME` sets a new one"
		fault.Column, fault.Width = fault.Width+len(":")+1, len(hidden)
		return fault
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

// admits reports whether there is the user, and it is not disabled.
func (a *accounts) admits(name string) bool {
	h, known := a.hashes[name]
	_, off := h.(disabled)
	return known && !off
}
