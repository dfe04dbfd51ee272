package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// hash is a password that can be compared and not read. Safe for concurrent use.
type hash interface {
	// matches reports whether it was made of the password. It takes its time,
	// and as long for a wrong one.
	matches(password string) bool
	// kind says what that costs: hashes of one kind take the same time.
	kind() string
}

// argon2id is a hash in PHC form: $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH.
type argon2id struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
	salt    []byte
	sum     []byte
}

// What new passwords are hashed with: OWASP's first choice.
const (
	newMemory = 19 << 10 // KiB
	newPasses = 2
	newSalt   = 16 // bytes
	newSum    = 32
)

// Bounds of the hashes that are read. A file is not to make a login take
// minutes, or all memory.
const (
	maxMemory  = 1 << 20 // KiB
	maxWork    = 4 << 20 // KiB, over all passes
	maxPasses  = 64
	maxThreads = 16
	minSalt    = 8 // bytes
	maxSalt    = 64
	minSum     = 16
	maxSum     = 64
	maxCost    = 16 // of bcrypt: some seconds
)

var (
	errNoHash  = errors.New("the password is not hashed")
	errOldHash = errors.New("the password is hashed in a way that is no longer safe")
	errBadHash = errors.New("the hash is damaged")
	errTooDear = errors.New("the hash takes too much memory or time to compare")
)

// newHash hashes a password with a random salt.
func newHash(password string) argon2id {
	h := argon2id{memory: newMemory, passes: newPasses, threads: 1, salt: make([]byte, newSalt)}
	_, _ = rand.Read(h.salt) // never fails: it would end the program
	h.sum = h.derive(password, newSum)
	return h
}

func (h argon2id) derive(password string, size int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(size))
}

func (h argon2id) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password, len(h.sum)), h.sum) == 1
}

func (h argon2id) kind() string {
	return fmt.Sprintf("argon2id m=%d,t=%d,p=%d", h.memory, h.passes, h.threads)
}

// String returns the PHC form.
func (h argon2id) String() string {
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads, encode(h.salt), encode(h.sum))
}

// bcryptHash is a hash as htpasswd -B writes it.
type bcryptHash struct {
	text   string
	rounds int // the binary logarithm of them
}

func (h bcryptHash) matches(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(h.text), []byte(password)) == nil
}

func (h bcryptHash) kind() string { return fmt.Sprintf("bcrypt %d", h.rounds) }

// disabledSign stands before the hash of a user who may not sign in for now.
const disabledSign = "!"

// disabled is a hash that no password is of. It takes as long to find that out.
type disabled struct{ hash }

func (d disabled) matches(password string) bool {
	d.hash.matches(password)
	return false
}

// Enable returns the text of a hash by which its user can sign in, or by which it
// cannot and the hash is kept.
func Enable(text string, on bool) string {
	text = strings.TrimPrefix(text, disabledSign)
	if on {
		return text
	}
	return disabledSign + text
}

// IsEnabled reports whether the user with this text of a hash can sign in.
func IsEnabled(text string) bool { return !strings.HasPrefix(text, disabledSign) }

// parseHash reads a hash of one of the two kinds. No error repeats any of text.
func parseHash(text string) (hash, error) {
	if off, ok := strings.CutPrefix(text, disabledSign); ok {
		h, err := parseKind(off)
		return disabled{h}, err
	}
	return parseKind(text)
}

func parseKind(text string) (hash, error) {
	switch {
	case strings.HasPrefix(text, "$argon2id$"):
		return parseArgon2id(text)
	case strings.HasPrefix(text, "$2a$"), strings.HasPrefix(text, "$2b$"), strings.HasPrefix(text, "$2y$"):
		return parseBcrypt(text)
	case strings.HasPrefix(text, "$"), strings.HasPrefix(text, "{SHA}"):
		return nil, errOldHash
	}
	return nil, errNoHash // or the old crypt, which nobody can tell from a password
}

var phc = regexp.MustCompile(`^\$argon2id\$v=19\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,3})\$([A-Za-z0-9+/]{1,100})\$([A-Za-z0-9+/]{1,100})$`)

func parseArgon2id(text string) (hash, error) {
	parts := phc.FindStringSubmatch(text)
	if parts == nil {
		return nil, errBadHash
	}
	memory, errM := strconv.ParseUint(parts[1], 10, 32)
	passes, errT := strconv.ParseUint(parts[2], 10, 32)
	threads, errP := strconv.ParseUint(parts[3], 10, 8)
	salt, errS := base64.RawStdEncoding.DecodeString(parts[4])
	sum, errH := base64.RawStdEncoding.DecodeString(parts[5])
	switch {
	case errors.Join(errM, errT, errP) != nil, memory > maxMemory, passes > maxPasses, threads > maxThreads, memory*passes > maxWork:
		return nil, errTooDear
	case errors.Join(errS, errH) != nil, len(salt) < minSalt, len(salt) > maxSalt, len(sum) < minSum, len(sum) > maxSum:
		return nil, errBadHash
	case passes < 1, threads < 1, memory < 8*threads: // RFC 9106, section 3.1
		return nil, errBadHash
	}
	h := argon2id{uint32(memory), uint32(passes), uint8(threads), salt, sum}
	if h.String() != text {
		return nil, errBadHash // written in another way, such as with a leading zero
	}
	return h, nil
}

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

func parseBcrypt(text string) (hash, error) {
	parts := bcryptForm.FindStringSubmatch(text)
	if parts == nil {
		return nil, errBadHash
	}
	rounds, err := bcrypt.Cost([]byte(text))
	switch {
	case err != nil:
		return nil, errBadHash
	case rounds > maxCost:
		return nil, errTooDear
	}
	return bcryptHash{text, rounds}, nil
}
