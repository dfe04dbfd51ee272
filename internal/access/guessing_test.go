package access

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
)

// TestTenThousandGuesses: ten thousand wrong passwords for one user from one
// source cost few hashes and leave next to nothing to remember, and the user
// herself signs in from elsewhere meanwhile as if nothing were going on.
func TestTenThousandGuesses(t *testing.T) {
	const guesses = 10_000
	synctest.Test(t, func(t *testing.T) {
		p, hashed, _ := newTestPasswords(10 * time.Millisecond)
		p.log = slog.New(slog.DiscardHandler)
		start := time.Now()
		var refused atomic.Int64
		var wg sync.WaitGroup
		for n := range guesses {
			wg.Go(func() {
				time.Sleep(time.Duration(n/100) * time.Second) // a hundred a second, for 100 s
				_, err := p.Authenticate(t.Context(), credentials(attacker, "alice", fmt.Sprint("guess", n)))
				if server.ReasonOf(err) == server.BadLogin {
					refused.Add(1)
				}
			})
		}
		for n := range 100 {
			time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second)))
			at := time.Now()
			fileOf(p).now.Store(&users{fileOf(p).now.Load().accounts, newVerified(), &keys{}}) // or only the first login would be looked at
			if _, err := p.Authenticate(t.Context(), credentials(home, "alice", "right")); err != nil || time.Since(at) > 50*time.Millisecond {
				t.Errorf("the user herself, after %d s: %v, and it took %v", n, err, time.Since(at))
			}
		}
		wg.Wait()
		if refused.Load() != guesses {
			t.Errorf("%d of %d guesses were refused", refused.Load(), guesses)
		}
		// After the first few, one every four seconds, and 100 logins of the user herself.
		if most := int64(100 + 30 + 20); hashed.all > most {
			t.Errorf("%d hashes, want at most %d", hashed.all, most)
		}
		held := len(p.trials) + len(p.guesses.sources.now) + len(p.guesses.sources.old) + len(p.guesses.pairs.now) + len(p.guesses.pairs.old)
		if held > 2 {
			t.Errorf("%d things are remembered, want one source and one pair", held)
		}
	})
}

// TestTimingTellsNothing measures how long wrong logins take for a user who
// exists and for one who does not, in turns, and compares the ranks (Mann and
// Whitney). That the comparison sees a difference where there is one shows the
// same on a server that hashes for known users only.
func TestTimingTellsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("not under -short")
	}
	h := argon2id{memory: 256, passes: 1, threads: 1, salt: make([]byte, newSalt)}
	h.sum = h.derive("right", newSum)
	honest := newAccounts(map[string]hash{"alice": h}, nil)
	telling := &accounts{hashes: map[string]hash{"alice": h}, kinds: map[string]hash{h.kind(): gate{crowd: &crowd{}}}}

	const limit = 5 // standard deviations: one run in a million passes it by chance
	if z := timingDifference(t, honest, 600); math.Abs(z) > limit {
		t.Errorf("known and unknown users differ by %.1f standard deviations", z)
	}
	if z := timingDifference(t, telling, 200); math.Abs(z) < limit {
		t.Errorf("the test does not see a server that tells: %.1f standard deviations", z)
	}
}

// timingDifference returns by how many standard deviations logins of a known
// user take longer than those of an unknown one.
func timingDifference(t *testing.T, a *accounts, pairs int) float64 {
	t.Helper()
	file := &UsersFile{}
	file.now.Store(&users{a, newVerified(), &keys{}})
	file.next = time.Now().Add(1000 * time.Hour)
	file.keys.next = file.next
	p := NewPasswords(&Policy{}, file, slog.New(slog.DiscardHandler))
	took := func(n int, name string) time.Duration {
		from := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) // nobody has to pause
		c := credentials(from, name, fmt.Sprint("guess", n))
		start := time.Now()
		_, err := p.Authenticate(t.Context(), c)
		end := time.Since(start)
		if server.ReasonOf(err) != server.BadLogin {
			t.Fatal(err)
		}
		return end
	}
	var known, unknown []time.Duration
	for n := range pairs {
		if n%2 == 0 { // either is first as often
			known = append(known, took(2*n, "alice"))
			unknown = append(unknown, took(2*n+1, "nobody"))
		} else {
			unknown = append(unknown, took(2*n, "nobody"))
			known = append(known, took(2*n+1, "alice"))
		}
	}
	return rankDifference(known, unknown)
}

// rankDifference is the statistic of Mann and Whitney, as standard deviations
// from what two alike samples have.
func rankDifference(a, b []time.Duration) float64 {
	slices.Sort(b)
	wins := 0.0
	for _, v := range a {
		below, _ := slices.BinarySearch(b, v)
		upTo, _ := slices.BinarySearch(b, v+1)
		wins += float64(below) + float64(upTo-below)/2
	}
	n, m := float64(len(a)), float64(len(b))
	return (wins - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}
