package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// gate is a hash that takes a while, and knows how many are at it.
type gate struct {
	password string
	takes    time.Duration
	*crowd
}

type crowd struct {
	all, most int64
	mu        sync.Mutex
	now       int64
}

func (g gate) matches(password string) bool {
	g.mu.Lock()
	g.all++
	g.now++
	g.most = max(g.most, g.now)
	g.mu.Unlock()
	time.Sleep(g.takes)
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
	return password == g.password
}

func (gate) kind() string { return "gate" }

// newTestPasswords has one user, alice, whose password is right.
func newTestPasswords(takes time.Duration) (*Passwords, *crowd, *bytes.Buffer) {
	c := &crowd{}
	h := gate{"right", takes, c}
	file := &UsersFile{}
	file.now.Store(&users{newAccounts(map[string]hash{"alice": h}, nil), newVerified(), &keys{}})
	file.next = time.Now().Add(1000 * time.Hour) // there is no file to look at
	file.keys.next = file.next
	var log bytes.Buffer
	return NewPasswords(&Policy{}, file, slog.New(slog.NewTextHandler(&log, nil))), c, &log
}

func credentials(from netip.Addr, name, password string) server.Credentials {
	return server.Credentials{Protocol: server.SOCKS5, Listener: "lan", Client: netip.AddrPortFrom(from, 40000), Name: name, Password: password}
}

func TestAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hashed, log := newTestPasswords(0)
		id, err := p.Authenticate(t.Context(), credentials(home, "alice", "right"))
		if want := (server.Identity{Name: "alice", Proof: server.Password}); err != nil || id != want {
			t.Errorf("%+v, %v; want %+v", id, err, want)
		}
		if log.Len() > 0 {
			t.Errorf("the log says %q", log)
		}
		var said []string
		for _, c := range []server.Credentials{
			credentials(home, "alice", "wrong"),
			credentials(home, "bob", "right"),
			credentials(home, "", ""),
		} {
			hashed.all = 0
			id, err := p.Authenticate(t.Context(), c)
			if server.ReasonOf(err) != server.BadLogin || id != (server.Identity{}) || hashed.all != 1 {
				t.Errorf("%+v: %+v, %v after %d hashes", c, id, err, hashed.all)
			}
			said = append(said, err.Error())
		}
		if said[0] != said[1] || said[1] != said[2] {
			t.Errorf("the errors tell who is there: %q", said)
		}
		want := `msg="bad login" client=203.0.113.7 user=alice protocol=socks5 listener=lan`
		if first, _, _ := strings.Cut(log.String(), "\n"); !strings.Contains(first, want) || strings.Count(log.String(), "\n") != 3 {
			t.Errorf("the log says\n%s\nwant three lines, the first with\n%s", log, want)
		}
		if strings.Contains(log.String(), "wrong") || strings.Contains(log.String(), "right") {
			t.Errorf("the log tells a password:\n%s", log)
		}
	})
}

// A name from the wire is part of its line, and of nothing else.
func TestBadLoginEscapes(t *testing.T) {
	p, _, log := newTestPasswords(0)
	_, err := p.Authenticate(t.Context(), credentials(attacker, "x\" client=1.2.3.4\nlevel=WARN\x1b[2J"+strings.Repeat("y", 1000), "z"))
	if server.ReasonOf(err) != server.BadLogin {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(log.String(), "\n")
	if strings.ContainsAny(line, "\n\x1b") || len(line) > 600 || strings.Count(line, " client=198.51.100.9 ") != 1 || strings.Index(line, "1.2.3.4") < strings.Index(line, "198.51.100.9") {
		t.Errorf("%q", line)
	}
}

// A login that was right holds a minute; one that was wrong is looked at again.
func TestVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hashed, _ := newTestPasswords(0)
		try := func(name, password string, right bool, want int64) {
			t.Helper()
			_, err := p.Authenticate(t.Context(), credentials(home, name, password))
			if (err == nil) != right || hashed.all != want {
				t.Errorf("%s, %s: %v after %d hashes in all, want %d", name, password, err, hashed.all, want)
			}
		}
		try("alice", "right", true, 1)
		time.Sleep(verifiedTime - time.Nanosecond)
		try("alice", "right", true, 1)
		try("alice", "Right", false, 2) // another password, another user, another border between them
		try("alicer", "ight", false, 3)
		try("bob", "right", false, 4)
		time.Sleep(time.Nanosecond)
		try("alice", "right", true, 5) // each use does not make it longer
		try("alice", "right", true, 5)

		was := fileOf(p).now.Load()
		fileOf(p).now.Store(&users{was.accounts, newVerified(), &keys{}}) // as when the file was read again
		try("alice", "right", true, 6)
	})
}

func TestVerifiedIsBounded(t *testing.T) {
	v := newVerified()
	now := time.Now()
	for n := range 5 * maxVerified {
		v.add(v.key(anybody(n), "x"), now)
	}
	if size := len(v.since.now) + len(v.since.old); size > 2*maxVerified {
		t.Errorf("%d logins are remembered", size)
	}
	if v.key("a", "bc") == v.key("ab", "c") || v.key("a", "b") == newVerified().key("a", "b") {
		t.Error("two logins have one key")
	}
}

// However many come at once, so many hashes are computed as there are
// processors; the same login from one source is computed once.
func TestHashesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hashed, _ := newTestPasswords(50 * time.Millisecond)
		var granted atomic.Int64
		var wg sync.WaitGroup
		login := func(from netip.Addr, password string) {
			wg.Go(func() {
				if _, err := p.Authenticate(t.Context(), credentials(from, "alice", password)); err == nil {
					granted.Add(1)
				}
			})
		}
		for range 50 {
			login(home, "right")
		}
		for n := range 30 {
			login(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), "wrong")
		}
		wg.Wait()
		if granted.Load() != 50 || hashed.all != 31 || hashed.most != int64(runtime.GOMAXPROCS(0)) {
			t.Errorf("%d logins granted, %d hashes, %d at once; want 50, 31, %d", granted.Load(), hashed.all, hashed.most, runtime.GOMAXPROCS(0))
		}
		if len(p.trials) != 0 || len(p.slots) != 0 {
			t.Errorf("%d trials and %d slots are left", len(p.trials), len(p.slots))
		}
	})
}

// isTurnedAway reports whether there were too many guesses before this one. Whoever hears so is told when to come again.
func isTurnedAway(t *testing.T, err error) bool {
	t.Helper()
	if !errors.Is(err, errManyGuesses) {
		return false
	}
	if later, ok := errors.AsType[*server.LaterError](err); !ok || later.After <= 0 || later.After > withPair.most {
		t.Errorf("%#v: it is not told when to come again", err)
	}
	return true
}

// Whoever guesses pauses, and is turned away where many do at once. Meanwhile
// others come in at once: a pause holds no slot.
func TestGuessingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hashed, _ := newTestPasswords(10 * time.Millisecond)
		start := time.Now()
		var refused atomic.Int64
		var wg sync.WaitGroup
		for n := range 1000 {
			wg.Go(func() {
				_, err := p.Authenticate(t.Context(), credentials(attacker, "alice", fmt.Sprint("guess", n)))
				if server.ReasonOf(err) != server.BadLogin {
					t.Error(err)
				}
				if isTurnedAway(t, err) {
					refused.Add(1)
				}
			})
		}
		time.Sleep(time.Second)
		at := time.Now()
		if _, err := p.Authenticate(t.Context(), credentials(home, "alice", "right")); err != nil || time.Since(at) > 20*time.Millisecond {
			t.Errorf("elsewhere: %v after %v", err, time.Since(at))
		}
		wg.Wait()
		if took := time.Since(start); took > maxPause+time.Second {
			t.Errorf("they held on for %v", took)
		}
		if tried := hashed.all - 1; tried > 10 || tried+refused.Load() != 1000 {
			t.Errorf("%d of 1000 guesses were tried, %d refused", tried, refused.Load())
		}
	})
}

// A client that leaves, leaves nothing behind; another with the same login goes on.
func TestAuthenticateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hashed, log := newTestPasswords(time.Second)
		for range cap(p.slots) {
			p.slots <- struct{}{}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 2)
		go func() {
			_, err := p.Authenticate(ctx, credentials(home, "alice", "right"))
			ended <- err
		}()
		synctest.Wait()
		go func() {
			_, err := p.Authenticate(t.Context(), credentials(home, "alice", "right"))
			ended <- err
		}()
		synctest.Wait()
		cancel(server.HandshakeSlow)
		if err := <-ended; !errors.Is(err, server.HandshakeSlow) {
			t.Errorf("%v, want the cause", err)
		}
		<-p.slots
		if err := <-ended; err != nil || hashed.all != 1 {
			t.Errorf("the other client: %v after %d hashes", err, hashed.all)
		}
		if log.Len() > 0 || len(p.trials) != 0 {
			t.Errorf("%d trials are left, and the log says %q", len(p.trials), log)
		}

		guessing(p.guesses, home, alice, 3, time.Now())
		at := time.Now()
		ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer stop()
		if _, err := p.Authenticate(ctx, credentials(home, "alice", "wrong")); !errors.Is(err, context.DeadlineExceeded) || time.Since(at) != 100*time.Millisecond {
			t.Errorf("in a pause: %v after %v", err, time.Since(at))
		}
	})
}

func fileOf(p *Passwords) *UsersFile { return p.users.(*UsersFile) }
