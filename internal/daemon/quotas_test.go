//go:build unix

package daemon

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// admin is off: commands would else ask whoever serves at the usual socket of this machine.
const quotaRules = oneListener + "admin: off\nledger: {store: 'sqlite:used.db', flush: 100ms}\n" +
	"rules: {allow: all, to: any, users: any, proof: claimed, limits: [daily, fair, evening]}\n" +
	"limits: {daily: {quota: 1 MB, every: day, per: user, warn: 80%}, fair: {rate: 1 Gbit/s, per: rule}, evening: {quota: 24h, every: day, per: user}"

// exchanges has an echo send back so much, and returns how much came.
func exchanges(t *testing.T, c net.Conn, size int64) (came int64) {
	t.Helper()
	go func() { _, _ = c.Write(make([]byte, size)) }() // what went wrong shows in what comes
	n, err := io.CopyN(io.Discard, c, size)
	if n < size && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %d bytes the session ends with %v, want a reset", n, err)
	}
	return n
}

// TestQuotasOfRules: what the settings say of quotas holds; more can be granted while
// the server runs and while it does not, and what was used is known after a restart.
func TestQuotasOfRules(t *testing.T) {
	s := serveIn(t, quotaRules+"}\n")
	echo := proxytest.Echo(t, "127.0.0.1")
	alice, bob := s.connects(s.at("lan"), "alice", echo), s.connects(s.at("lan"), "bob", echo)
	proxytest.Granted4(t, alice)
	proxytest.Granted4(t, bob)
	if n := exchanges(t, alice, 600_000); n > 510_000 { // a piece of 4 KiB may be under way each way
		t.Errorf("%d bytes came back of a quota of 1 MB for both directions", n)
	}
	lives(t, "who has not", bob)
	proxytest.Refused4(t, s.connects(s.at("lan"), "alice", echo), 91)
	s.logs("reason=quota", 2)
	proxytest.Eventually(t, "the log warns", func() bool { return strings.Contains(s.said.String(), "a quota is used up soon") })

	// She was counted as who only claims to be her.
	q, err := s.Grant(t.Context(), QuotaGrant{Key: "alice", Claimed: true, Amount: "1 MB", Limit: "daily"})
	if err != nil || q.Granted != 1_000_000 || q.Most != 2_000_000 || q.Left > 1_000_000 || q.Left < 999_000 {
		t.Errorf("granted: %+v, %v", q, err)
	}
	alice = s.connects(s.at("lan"), "alice", echo)
	proxytest.Granted4(t, alice)
	if n := exchanges(t, alice, 100_000); n != 100_000 {
		t.Errorf("%d bytes came back after a grant, want 100000", n)
	}

	s.reloads(quotaRules + ", more: {quota: 5 GB, every: day, per: user}}\n")
	if n := exchanges(t, alice, 100_000); n != 100_000 {
		t.Errorf("%d bytes came back after a reload, want 100000", n)
	}
	s.end()
	used := standing(t, s.Quotas(), "alice").Used // all has been counted: a client may hear of bytes before they are

	isRemembered(t, s.file(), used)
}

// isRemembered looks at the ledger of a server that has ended, grants more there, and
// begins another one.
func isRemembered(t *testing.T, file string, used int64) {
	t.Helper()
	remote := Remote{File: file}
	after, err := remote.Quotas(t.Context())
	if got := standing(t, after, "alice"); err != nil || got.Used != used || got.Most != 2_000_000 {
		t.Errorf("in the ledger she has %+v, %v; want %d used", got, err, used)
	}
	granted, err := remote.Grant(t.Context(), QuotaGrant{Key: "alice", Claimed: true, Amount: "500 kB", Limit: "daily"})
	if err != nil || granted.Most != 2_500_000 || granted.Used != used {
		t.Errorf("granted while no server runs: %+v, %v", granted, err)
	}
	again, err := Open(t.Context(), Source{File: file, Admin: "off"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := standing(t, again.Quotas(), "alice"); got.Used != used || got.Most != 2_500_000 || !got.Claimed {
		t.Errorf("after a restart she has %+v, want %d used of 2500000", got, used)
	}
}

// TestWhatCannotBeGranted or changed, of a server that runs.
func TestWhatCannotBeGranted(t *testing.T) {
	s := serveIn(t, quotaRules+"}\n")
	if _, err := s.Grant(t.Context(), QuotaGrant{Key: "alice", Amount: "1 MB"}); err == nil {
		t.Error("granted, though two quotas count by user")
	}
	if _, err := s.Grant(t.Context(), QuotaGrant{Key: "alice", Amount: "1h", Limit: "daily"}); err == nil {
		t.Error("a time was granted of a quota of bytes")
	}
	if _, err := s.Grant(t.Context(), QuotaGrant{Key: "alice", Amount: "1 MB", Limit: "dayly"}); err == nil {
		t.Error("granted of a limit that is not there")
	}
	if _, err := s.Grant(t.Context(), QuotaGrant{Key: "alice", Amount: "1 MB", Limit: "daily"}); !errors.Is(err, errNobody) {
		t.Errorf("granted to who has shown a name that can only be claimed: %v", err)
	}
	if err := s.SetRate(NewRate{Limit: "fair", Rate: "10 Mbit/s"}); err != nil {
		t.Error(err)
	}
	if err := s.SetRate(NewRate{Limit: "fair", Up: "10 Mbit/s"}); !errors.Is(err, limits.ErrNoLimit) {
		t.Errorf("a rate that the limit does not have: %v", err)
	}
	if err := s.SetRate(NewRate{Limit: "fare", Rate: "10 Mbit/s"}); !errors.Is(err, limits.ErrNoLimit) || !strings.Contains(err.Error(), `"fair" (`+"`rate`)") {
		t.Errorf("a limit that is not there: %v; want those that are", err)
	}
	if err := s.SetRate(NewRate{Limit: "fair", Rate: "fast"}); err == nil {
		t.Error("a rate that is none was taken")
	}
}

func standing(t *testing.T, all QuotaReport, key string) QuotaLine {
	t.Helper()
	for _, q := range all.Quotas {
		if q.Key == key && q.Limit == "daily" {
			return q
		}
	}
	t.Fatalf("nothing is known of %s: %+v", key, all)
	return QuotaLine{}
}

// TestQuotasWithoutLedger: they hold, and it is told what is missing.
func TestQuotasWithoutLedger(t *testing.T) {
	s := serveIn(t, strings.Replace(quotaRules, "{store: 'sqlite:used.db', flush: 100ms}", "off", 1)+"}\n")
	s.logs("quotas is not kept", 1)
	alice := s.connects(s.at("lan"), "alice", proxytest.Echo(t, "127.0.0.1"))
	proxytest.Granted4(t, alice)
	if n := exchanges(t, alice, 600_000); n > 510_000 { // a piece of 4 KiB may be under way each way
		t.Errorf("%d bytes came back of a quota of 1 MB for both directions", n)
	}
}

// TestExplainTellsOfQuotas that would be asked besides.
func TestExplainTellsOfQuotas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	text := "rules: {allow: all, to: any, limits: [a, b, c]}\nlimits: {a: {quota: 1 GB, every: day, zone: UTC, per: user}, b: {quota: 1 GB, per: session}, c: {quota: 1 GB, every: 7d, rolling: true, per: user, then: 1 Mbit/s}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Explain(t.Context(), Source{File: file}, Question{From: netip.MustParseAddr("127.0.0.1"), Target: socks.Addr{IP: netip.MustParseAddr("192.0.2.1"), Port: 80}})
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(e.Notes, "\n")
	for _, want := range []string{
		`the quota "a" applies, and only the server knows what is left of it: the server refuses with quota where it is used up; it begins anew at `,
		`the quota "b" applies, and only the server knows what is left of it: the server refuses with quota where it is used up`,
		`the quota "c" applies, and only the server knows what is left of it: the session is slowed where it is used up`,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it says\n%s\nand not %s", said, want)
		}
	}
}
