package access

import (
	"strings"
	"sync/atomic"
	"testing"
)

// counted is a hash that counts how often it is compared.
type counted struct {
	password string
	of       string // its kind
	compared *atomic.Int64
}

func (c counted) matches(password string) bool {
	c.compared.Add(1)
	return password == c.password
}

func (c counted) kind() string { return c.of }

func TestParseAccounts(t *testing.T) {
	a, err := parseAccounts([]byte("\n# staff\nalice:" + vectorArgon2id + "\r\n  \t\nb o b:$2y$" + vectorBcrypt + "\n\xff\xc3\xa9:" + vectorArgon2id))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.hashes) != 3 {
		t.Errorf("%d users, want 3", len(a.hashes))
	}
	for _, c := range []struct {
		name, password string
		want           bool
	}{
		{"alice", "password", true},
		{"alice", "Password", false},
		{"alice", "", false},
		{"alice", "U*U", false},
		{"Alice", "password", false},
		{"b o b", "U*U", true},
		{"b o b", "U*U\x00U*U", false}, // to bcrypt the same
		{"b o b", "password", false},
		{"\xff\xc3\xa9", "password", true},
		{"carol", "password", false},
		{"carol", "U*U", false}, // the password of the hash that stands in for hers
		{"", "password", false},
		{"# staff", "", false},
	} {
		if got := a.matches(c.name, c.password); got != c.want {
			t.Errorf("%q with %q: %v, want %v", c.name, c.password, got, c.want)
		}
	}
}

func TestNoAccounts(t *testing.T) {
	a, err := parseAccounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.matches("alice", "") || a.matches("", "") {
		t.Error("somebody is there")
	}
	if h := a.kinds[newHash("").kind()]; len(a.kinds) != 1 || h == nil {
		t.Errorf("%v stand in for unknown users, want what new passwords are hashed with", a.kinds)
	}
}

// Every bad line is told by its number; nothing that could be a secret is.
func TestBadAccounts(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"clear text", "alice:hunter2", []string{`line 1: the user "alice": the password is not hashed`, "`sallyport user passwd NAME`"}},
		{"old", "alice:$apr1$hunter2$hunter2", []string{`line 1: the user "alice": the password is hashed in a way that is no longer safe`}},
		{"damaged", "\nalice:" + vectorArgon2id + "hunter2!", []string{`line 2: the user "alice": the hash is damaged`}},
		{"no hash", "alice:", []string{"line 1: expected NAME:HASH"}},
		{"no colon", "#\nhunter2", []string{"line 2: expected NAME:HASH"}},
		{"no name", ":hunter2", []string{"line 1: a user without a name"}},
		{"twice", "alice:" + vectorArgon2id + "\nalice:$2y$" + vectorBcrypt, []string{`line 2: the user "alice" stands here twice`}},
		{"space", " alice:hunter2", []string{"line 1: the name of a user cannot start with"}},
		{"space behind", "alice :hunter2", []string{"line 1: the name of a user cannot start with # or a space, or end with a space"}},
		{"control", "al\x1bice:hunter2", []string{"line 1: the name of a user cannot hold"}},
		{"NUL", "al\x00ice:hunter2", []string{"line 1: the name of a user cannot hold"}},
		{"long", strings.Repeat("a", 256) + ":hunter2", []string{"line 1: the name of a user has more than 255 bytes"}},
		{"all of them", "a:hunter2\nb:" + vectorArgon2id + "\nc:hunter2", []string{`line 1: the user "a"`, `line 3: the user "c"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseAccounts([]byte(c.file))
			if err == nil {
				t.Fatal("it was read")
			}
			for _, words := range c.want {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%v\ndoes not say %s", err, words)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "c29tZX") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func TestManyBadAccounts(t *testing.T) {
	_, err := parseAccounts([]byte(strings.Repeat("x\n", 10_000)))
	if err == nil || strings.Count(err.Error(), "\n") > maxFileFaults {
		t.Errorf("%.1000v", err)
	}
}

// A wrong password is compared with one hash of each kind, whether the user is
// known or not, and whichever kind of hash the user has.
func TestConstantWork(t *testing.T) {
	var cheap, dear atomic.Int64
	a := newAccounts(map[string]hash{
		"alice": counted{"a", "cheap", &cheap}, "bob": counted{"b", "dear", &dear}, "carol": counted{"c", "dear", &dear},
	}, nil)
	for _, c := range []struct {
		name, password string
		right          bool
		cheap, dear    int64
	}{
		{"alice", "a", true, 1, 0},
		{"bob", "b", true, 0, 1},
		{"alice", "b", false, 1, 1},
		{"bob", "x", false, 1, 1},
		{"bob", "b\x00", false, 1, 1},
		{"carol", "b", false, 1, 1},
		{"nobody", "b", false, 1, 1},
		{"nobody", "", false, 1, 1},
		{"", "\x00", false, 1, 1},
	} {
		cheap.Store(0)
		dear.Store(0)
		right := a.matches(c.name, c.password)
		if right != c.right || cheap.Load() != c.cheap || dear.Load() != c.dear {
			t.Errorf("%q with %q: %v by %d and %d hashes, want %v by %d and %d", c.name, c.password, right, cheap.Load(), dear.Load(), c.right, c.cheap, c.dear)
		}
	}
	file := "a:" + vectorArgon2id + "\nb:" + newHash("").String() + "\nc:$2y$" + vectorBcrypt + "\nd:" + newHash("x").String()
	parsed, err := parseAccounts([]byte(file))
	if err != nil || len(parsed.kinds) != 3 {
		t.Errorf("%v: %v stand in for unknown users, want three kinds", err, parsed.kinds)
	}
}

// FuzzAccounts: a file that is read has each user once, by the lines; an error
// tells nothing that stands behind a colon.
func FuzzAccounts(f *testing.F) {
	f.Add("alice", "hunter2secret", "\n# x\n")
	f.Add("alice", vectorArgon2id, "bob:$2y$"+vectorBcrypt+"\r\n")
	f.Add("a b", "$2y$"+vectorBcrypt, "")
	f.Add("alice", vectorArgon2id, "alice:"+vectorArgon2id)
	for _, name := range []string{"", "#", " a", "a\tb", "a\x7f", strings.Repeat("a", maxName+1)} {
		f.Add(name, vectorArgon2id, "x:")
	}
	f.Fuzz(func(t *testing.T, name, secret, rest string) {
		file := rest + "\n" + name + ":" + secret
		a, err := parseAccounts([]byte(file))
		if err != nil {
			if len(secret) > 40 && !strings.Contains(name+rest, secret) && strings.Contains(err.Error(), secret) {
				t.Errorf("%q: the error tells the secret: %v", file, err)
			}
			return
		}
		lines := 0
		for line := range strings.SplitAfterSeq(file, "\n") {
			if user, text, ok := splitLine(line); ok {
				lines++
				if _, err := parseHash(text); err != nil || a.hashes[user] == nil || checkName(user) != nil {
					t.Errorf("%q was read with the line %q", file, line)
				}
			}
		}
		if lines != len(a.hashes) || len(a.kinds) == 0 {
			t.Errorf("%q: %d users in %d lines", file, len(a.hashes), lines)
		}
	})
}
