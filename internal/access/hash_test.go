package access

import (
	"errors"
	"strings"
	"testing"
)

// Vectors of others: of the argon2 reference implementation's tests, of John
// the Ripper's for bcrypt, and one of htpasswd -B.
const (
	vectorArgon2id = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	vectorParallel = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"
	vectorBcrypt   = "05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
)

func TestHashesOfOthers(t *testing.T) {
	for _, c := range []struct{ text, password string }{
		{vectorArgon2id, "password"},
		{vectorParallel, "password"},
		{"$2a$" + vectorBcrypt, "U*U"},
		{"$2b$" + vectorBcrypt, "U*U"},
		{"$2y$" + vectorBcrypt, "U*U"},
	} {
		h, err := parseHash(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if !h.matches(c.password) {
			t.Errorf("%s does not match its password", c.text)
		}
		for _, wrong := range []string{"", c.password + "x", c.password[1:], strings.ToLower(c.password) + " "} {
			if h.matches(wrong) {
				t.Errorf("%s matches %q", c.text, wrong)
			}
		}
	}
}

func TestNewHash(t *testing.T) {
	a, b := newHash("wonderland"), newHash("wonderland")
	if a.String() == b.String() {
		t.Error("two hashes have the same salt")
	}
	if !strings.HasPrefix(a.String(), "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %s", a)
	}
	h, err := parseHash(a.String())
	if err != nil || !h.matches("wonderland") || h.matches("Wonderland") {
		t.Errorf("%s: %v", a, err)
	}
}

func TestBadHashes(t *testing.T) {
	const salt, sum = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, c := range []struct {
		text string
		want error
	}{
		{"", errNoHash},
		{"wonderland", errNoHash},
		{"rqXexS6ZhobKA", errNoHash}, // crypt
		{"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", errOldHash},
		{"$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0", errOldHash},
		{"$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/", errOldHash},
		{"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", errOldHash},
		{"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJuesI68OTLiBFdcbYEdFCoEOfaS35inz1", errOldHash},
		{"$2x$" + vectorBcrypt, errOldHash},
		{"$2$" + vectorBcrypt, errOldHash},
		{"$argon2i$v=19$m=256,t=2,p=1$" + salt + "$" + sum, errOldHash},
		{"$argon2d$v=19$m=256,t=2,p=1$" + salt + "$" + sum, errOldHash},
		{"$argon2id$", errBadHash},
		{"$argon2id$m=256,t=2,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=16$m=256,t=2,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$t=2,m=256,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$m=0256,t=2,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$m=256,t=0,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$m=256,t=2,p=0$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$m=7,t=2,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$m=-256,t=2,p=1$" + salt + "$" + sum, errBadHash},
		{"$argon2id$v=19$m=1048577,t=1,p=1$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=9999999999,t=1,p=1$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=1048576,t=5,p=1$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=256,t=65,p=1$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=256,t=9999999999,p=1$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=256,t=2,p=17$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=256,t=2,p=999$" + salt + "$" + sum, errTooDear},
		{"$argon2id$v=19$m=256,t=2,p=1$c29tZXM$" + sum, errBadHash},                 // 5 bytes of salt
		{"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$c29tZXNhbHQ", errBadHash},       // 8 bytes of hash
		{"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + sum[:42] + "5", errBadHash}, // bits behind the end
		{vectorArgon2id + "=", errBadHash},
		{vectorArgon2id + "\r", errBadHash},
		{vectorArgon2id + " ", errBadHash},
		{vectorArgon2id + ":1000", errBadHash},
		{"$2y$" + vectorBcrypt[:len(vectorBcrypt)-1], errBadHash},
		{"$2y$" + vectorBcrypt + "x", errBadHash},
		{"$2y$xx" + vectorBcrypt[2:], errBadHash},
		{"$2y$03" + vectorBcrypt[2:], errBadHash},
		{"$2y$17" + vectorBcrypt[2:], errTooDear},
		{"$2y$31" + vectorBcrypt[2:], errTooDear},
		{"$2y$99" + vectorBcrypt[2:], errBadHash},
	} {
		h, err := parseHash(c.text)
		if !errors.Is(err, c.want) || h != nil {
			t.Errorf("%q: %v, want %v", c.text, err, c.want)
		}
	}
}

// What is at the bounds is read. Nothing is hashed: that would take its time.
func TestHashBounds(t *testing.T) {
	for _, text := range []string{
		"$argon2id$v=19$m=1048576,t=4,p=16$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEg",
		"$2b$16" + vectorBcrypt[2:],
		"$2b$04" + vectorBcrypt[2:],
	} {
		if _, err := parseHash(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Hashes are of one kind where they take the same time, whatever they hash.
func TestKind(t *testing.T) {
	kinds := map[string]int{}
	for _, text := range []string{
		vectorArgon2id,
		newHash("").String(),
		newHash("x").String(),
		"$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2y$12$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$argon2id$v=19$m=1048576,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
	} {
		h, err := parseHash(text)
		if err != nil {
			t.Fatal(err)
		}
		kinds[h.kind()]++
	}
	if len(kinds) != 5 || kinds["bcrypt 5"] != 2 || kinds[newHash("").kind()] != 2 {
		t.Errorf("%v", kinds)
	}
}

// FuzzHash: what is read is written the same way.
func FuzzHash(f *testing.F) {
	const vectorSum = "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, text := range []string{
		vectorArgon2id, vectorParallel, "$2a$" + vectorBcrypt, "$apr1$x$y", "{SHA}x", "x", newHash("x").String(),
		"$argon2id$v=19$m=256,t=65,p=1$c29tZXNhbHQ$" + vectorSum,
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXM$" + vectorSum,
		"$argon2id$v=19$m=256,t=0,p=1$c29tZXNhbHQ$" + vectorSum,
		"$argon2id$v=19$m=0256,t=2,p=1$c29tZXNhbHQ$" + vectorSum,
		"$argon2id$", "$2y$", "$2y$03" + vectorBcrypt[2:], "$2y$17" + vectorBcrypt[2:],
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseHash(text)
		switch h := h.(type) {
		case argon2id:
			if h.String() != text || h.memory > maxMemory || uint64(h.memory)*uint64(h.passes) > maxWork || h.threads > maxThreads || h.passes < 1 || h.threads < 1 {
				t.Errorf("%q was read as %s", text, h)
			}
		case bcryptHash:
			if h.text != text || h.rounds > maxCost || len(text) != 60 {
				t.Errorf("%q was read as %+v", text, h)
			}
		case nil:
			if err == nil {
				t.Errorf("%q: neither a hash nor an error", text)
			}
		}
	})
}
