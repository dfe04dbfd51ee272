package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/regular"
	"github.com/sallyport/sallyport/server"
)

// keysSuffix makes of the name of a users file that of the file with the public
// keys of its users.
const keysSuffix = ".keys"

// minRSA is how long an RSA key has to be, in bits.
const minRSA = 2048

// keys are the public keys of users. They are not changed once they are read.
type keys struct {
	text   string
	byName map[string]map[string]uint64 // by user, and by the key as SSH has it on the wire: a mark, as of a password
}

func (k *keys) has(name string) bool { return len(k.byName[name]) > 0 }

// parseKeys reads lines of the form NAME:TYPE BASE64 COMMENT: behind the colon
// stands what is in a file such as id_ed25519.pub. The error is a *KeysFaults.
func parseKeys(path string, data []byte) (*keys, error) {
	k := &keys{text: string(data), byName: map[string]map[string]uint64{}}
	var faults LineFaults
	number := 0
	for line := range bytes.Lines(data) {
		number++
		name, text, ok := splitLine(string(line))
		if !ok {
			continue
		}
		key, fault := readKey(name, text)
		if fault != nil {
			if fault.Line = number; len(faults) < maxFileFaults {
				faults = append(faults, fault)
			}
			continue
		}
		if k.byName[name] == nil {
			k.byName[name] = map[string]uint64{}
		}
		k.byName[name][string(key.Marshal())] = markOf(text)
	}
	if len(faults) > 0 {
		return nil, &KeysFaults{path, faults}
	}
	return k, nil
}

// readKey reads a line that was taken apart. What is wrong with it lacks the
// line's number.
func readKey(name, text string) (ssh.PublicKey, *LineFault) {
	if err := checkName(name); err != nil {
		return nil, &LineFault{Column: 1, Width: len(hidden), Text: hidden, Problem: err.Error()}
	}
	width := utf8.RuneCountInString(name)
	key, err := parseKey(text)
	if err != nil {
		return nil, &LineFault{
			Column: width + len(":") + 1, Width: len(hidden), Text: name + ":" + hidden,
			Problem: fmt.Sprintf("the user %q: %v", name, err), Hint: "`sallyport user key NAME FILE` writes such lines",
		}
	}
	return key, nil
}

// parseKey reads a public key as it stands in a file of OpenSSH.
func parseKey(text string) (ssh.PublicKey, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	switch {
	case err != nil:
		return nil, errors.New("this is no public key; it begins with a word such as ssh-ed25519")
	case len(options) > 0:
		return nil, errors.New("a key has no options here")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("this is more than one key")
	}
	return key, checkKey(key)
}

// checkKey refuses what nobody should sign in with.
func checkKey(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoRSA:
		if bits := rsaBits(key); bits < minRSA {
			return fmt.Errorf("an RSA key of %d bits is too short: %d are wanted", bits, minRSA)
		}
		return nil
	}
	return fmt.Errorf("keys of the type %q are not taken", key.Type())
}

// rsaBits returns the length of an RSA key (RFC 4253, section 6.6).
func rsaBits(key ssh.PublicKey) int {
	var k struct {
		Type string
		E, N []byte
	}
	if err := ssh.Unmarshal(key.Marshal(), &k); err != nil {
		return 0
	}
	return 8 * len(bytes.TrimLeft(k.N, "\x00"))
}

// KeysFaults are the faults of a file of keys.
type KeysFaults struct {
	File   string
	Faults LineFaults
}

// Error returns them behind the name of the file.
func (e *KeysFaults) Error() string { return fmt.Sprintf("the keys file %s:\n%v", e.File, e.Faults) }

// readKeys reads a file of keys. One that is not there has none.
func readKeys(path string) ([]byte, fs.FileInfo, error) {
	data, info, err := regular.Read(path, maxUsersFile, private)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case errors.Is(err, errOthersMayUse):
		return nil, nil, fmt.Errorf("the keys file %s: %w; try: chmod 600 %s", path, err, path)
	case err != nil:
		return nil, nil, fmt.Errorf("the keys file %s: %w", path, err)
	}
	return data, info, nil
}

// refreshKeys takes what the file of keys holds now. A change that is no good is
// told once.
func (f *UsersFile) refreshKeys(data []byte, err error) {
	var k *keys
	if err == nil {
		k, err = parseKeys(f.keys.path, data)
	}
	if err != nil {
		f.log.Error("the keys of users cannot be read: they stay as they were", "file", Escape(f.keys.path), "error", Escape(err.Error()))
		return
	}
	f.changing.Lock()
	defer f.changing.Unlock()
	was := f.now.Load()
	if was.keys.text == k.text {
		return
	}
	f.now.Store(&users{was.accounts, was.verified, k})
	f.log.Info("the keys of users were read again", "file", Escape(f.keys.path), "users", len(k.byName))
}

// authenticateKey says whose key it is. Only who is in the users file has keys.
func (p *Passwords) authenticateKey(_ context.Context, c server.Credentials) (server.Identity, error) {
	users := p.users.current()
	mark, right := users.keys.byName[c.Name][string(c.Key)]
	if !users.accounts.admits(c.Name) || !right {
		return server.Identity{}, errWrongKey
	}
	return server.Identity{Name: c.Name, Proof: server.Key, Mark: mark}, nil
}

// stillKey says whether a user has the key that mark stands for.
func (u *users) stillKey(name string, mark uint64) error {
	if !u.accounts.admits(name) {
		return fmt.Errorf("%w: %w", server.Revoked, errUserGone)
	}
	if !slices.Contains(slices.Collect(maps.Values(u.keys.byName[name])), mark) {
		return fmt.Errorf("%w: %w", server.Revoked, errKeyGone)
	}
	return nil
}

var (
	errWrongKey = fmt.Errorf("%w: no such user, or another key", server.BadLogin)
	errKeyGone  = errors.New("the user's key is gone")
)

// ErrNoKey says that a user does not have a key.
var ErrNoKey = errors.New("the user has no such key")

// KeyInfo is a public key of a user.
type KeyInfo struct {
	User        string
	Type        string // such as ssh-ed25519
	Fingerprint string // SHA256: and base64, as ssh-keygen -l shows it
	Comment     string // may be empty
}

// AddKey gives a user a public key, as it stands in a file such as id_ed25519.pub.
// It fails with [ErrNoUser] for a user who is not there. A key that the user has
// already stays.
func (e UsersEditor) AddKey(name, key string) error {
	key = strings.TrimSpace(key)
	parsed, err := parseKey(key)
	if err != nil {
		return err
	}
	if there, err := e.Has(name); err != nil || !there {
		return errors.Join(err, ErrNoUser)
	}
	return e.keys().change(func(lines []string) ([]string, error) {
		if len(keyLines(lines, name, ssh.FingerprintSHA256(parsed))) > 0 {
			return lines, nil
		}
		if last := len(lines) - 1; last >= 0 && !strings.HasSuffix(lines[last], "\n") {
			lines[last] += "\n"
		}
		return append(lines, name+":"+key+"\n"), nil
	})
}

// RemoveKey takes a key from a user: the one with that fingerprint. It fails with
// [ErrNoKey] where there is none.
func (e UsersEditor) RemoveKey(name, fingerprint string) error {
	return e.keys().change(func(lines []string) ([]string, error) {
		gone := keyLines(lines, name, fingerprint)
		if len(gone) == 0 {
			return nil, ErrNoKey
		}
		var kept []string
		for i, line := range lines {
			if !slices.Contains(gone, i) {
				kept = append(kept, line)
			}
		}
		return kept, nil
	})
}

// removeKeys takes all keys from a user.
func (e UsersEditor) removeKeys(name string) error {
	data, _, err := readKeys(e.Path + keysSuffix)
	if err != nil || len(linesOf(splitLines(data), name)) == 0 {
		return err
	}
	return e.keys().Remove(name)
}

// Keys returns the keys of a user, or with an empty name of all, in the order of
// the file.
func (e UsersEditor) Keys(name string) ([]KeyInfo, error) {
	data, _, err := readKeys(e.Path + keysSuffix)
	if err != nil {
		return nil, err
	}
	if _, err := parseKeys(e.Path+keysSuffix, data); err != nil {
		return nil, err
	}
	var all []KeyInfo
	for _, line := range splitLines(data) {
		user, text, ok := splitLine(line)
		if !ok || name != "" && user != name {
			continue
		}
		if info, err := DescribeKey(user, text); err == nil {
			all = append(all, info)
		}
	}
	return all, nil
}

// DescribeKey says what a public key of a user is, as it stands in a file. It fails for
// one that nobody may sign in with.
func DescribeKey(user, key string) (KeyInfo, error) {
	parsed, err := parseKey(strings.TrimSpace(key))
	if err != nil {
		return KeyInfo{}, err
	}
	_, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	return KeyInfo{user, parsed.Type(), ssh.FingerprintSHA256(parsed), comment}, err
}

// keys edits the file of keys, whose lines have the form of those of users.
func (e UsersEditor) keys() UsersEditor { return UsersEditor{Path: e.Path + keysSuffix} }

// keyLines returns where a key of a user stands.
func keyLines(lines []string, name, fingerprint string) (at []int) {
	for _, i := range linesOf(lines, name) {
		_, text, _ := splitLine(lines[i])
		if key, err := parseKey(text); err == nil && ssh.FingerprintSHA256(key) == fingerprint {
			at = append(at, i)
		}
	}
	return at
}
