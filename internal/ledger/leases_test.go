//go:build unix

package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
)

// puller is a node on which alice pulls as fast as she may.
type puller struct {
	*Ledger
	table *limits.Table
	stay  server.Stay
	down  server.Pacer
	moved int64
	ended []error
	now   time.Time
}

const shareOfAlice = 64 << 20

func newPuller(t *testing.T, place Place) *puller {
	t.Helper()
	p := &puller{table: &limits.Table{}, now: time.Now()}
	p.table.Set(map[string]limits.Limit{"monthly": {Per: limits.User, Quota: shareOfAlice, Every: limits.Every{Unit: limits.Month}}})
	var err error
	if p.Ledger, err = Open(t.Context(), place, Options{Flush: time.Hour, Keep: keepAll, Log: slog.New(slog.DiscardHandler), Quotas: p.table}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	r := server.Request{Client: netip.MustParseAddrPort("192.0.2.1:1")}
	p.stay, err = p.table.Of("rule", []string{"monthly"}, nil).Budget(&r, server.Identity{Name: "alice"}).Enter(nil, func(err error) { p.ended = append(p.ended, err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stay.Leave)
	_, p.down = p.stay.Pace()
	return p
}

// pulls takes all that may be had now, up to n bytes.
func (p *puller) pulls(n int64) {
	for n > 0 && len(p.ended) == 0 {
		piece := min(int64(p.down.Chunk()), n, 64<<10)
		p.moved += piece
		n -= piece
		if p.down.Took(int(piece)) > 0 {
			return
		}
	}
}

// writes is a flush, a second after the last one.
func (p *puller) writes(t *testing.T) {
	t.Helper()
	p.now = p.now.Add(time.Second)
	if err := p.flush(t.Context(), p.now); err != nil {
		t.Fatal(err)
	}
}

func usedBy(t *testing.T, place Place) int64 {
	t.Helper()
	all, err := place.Balances(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return limits.Both.Of(all[0].Slots[0].Used)
}

// TestNodesShareAQuota: on three nodes at once, at full speed, no more is used than the
// quota but for the bytes that show that it is over; all have about as much of it.
func TestNodesShareAQuota(t *testing.T) {
	place := postgres(t)
	nodes := []*puller{newPuller(t, place), newPuller(t, place), newPuller(t, place)}
	for round := 0; slices.ContainsFunc(nodes, func(p *puller) bool { return len(p.ended) == 0 }); round++ {
		for _, p := range nodes {
			p.pulls(20 << 20)
			p.writes(t)
		}
		if round > 100 {
			t.Fatalf("there is no end: %d, %d, %d", nodes[0].moved, nodes[1].moved, nodes[2].moved)
		}
	}
	var sum int64
	for i, p := range nodes {
		p.writes(t)
		sum += p.moved
		if p.moved < shareOfAlice/5 || !errors.Is(p.ended[0], server.Quota) {
			t.Errorf("node %d has %d of %d bytes, and ends with %v", i, p.moved, shareOfAlice, p.ended[0])
		}
	}
	if over := sum - shareOfAlice; over < 1 || over > 1000 { // who waits has a byte at each look
		t.Errorf("%d bytes were used of %d", sum, shareOfAlice)
	}
	if used := usedBy(t, place); used != sum {
		t.Errorf("the ledger has %d bytes, and %d were used", used, sum)
	}
}

// TestNodesThatAreAway: one is cut off, one dies; those that are left get what these
// have leased after a while, and no more than a slice for each is used too much. What
// the first has used is in the ledger when it is back.
func TestNodesThatAreAway(t *testing.T) {
	place := postgres(t)
	s := opens(t, place)
	cut, dead, here := newPuller(t, place), newPuller(t, place), newPuller(t, place)
	for range 4 {
		for _, p := range []*puller{cut, dead, here} {
			p.pulls(1 << 20)
			p.writes(t)
		}
	}
	lost := dead.moved // all of it was written
	cut.pulls(1 << 30)
	dead.pulls(1 << 30)
	later := func() {
		if _, err := s.db.ExecContext(t.Context(), `UPDATE leases SET at = at - 60 WHERE node <> $1`, here.writer.id); err != nil {
			t.Fatal(err)
		}
	}
	for round := 0; len(here.ended) == 0; round++ {
		here.pulls(20 << 20)
		here.writes(t)
		if round == 20 {
			if sum := cut.moved + lost + here.moved; sum > shareOfAlice {
				t.Errorf("%d bytes were used while the leases of all held", sum)
			}
			later()
		}
		if round > 100 {
			t.Fatal("there is no end")
		}
	}
	sum := cut.moved + dead.moved + here.moved
	if slice := int64(shareOfAlice / mostSlice); sum < shareOfAlice || sum > shareOfAlice+2*slice {
		t.Errorf("%d bytes were used of %d, want at most two slices of %d more", sum, shareOfAlice, slice)
	}
	cut.writes(t)
	if len(cut.ended) == 0 {
		t.Error("the quota is used up, and who was cut off may go on")
	}
	if used, want := usedBy(t, place), cut.moved+lost+here.moved; used != want {
		t.Errorf("the ledger has %d bytes, want %d", used, want)
	}
}

// TestLeasesAreGivenBack: who stops, and who uses nothing for long, has none.
func TestLeasesAreGivenBack(t *testing.T) {
	place := postgres(t)
	s := opens(t, place)
	leased := func() (n int64) {
		t.Helper()
		if err := s.db.QueryRowContext(t.Context(), `SELECT coalesce(CAST(sum(amount) AS BIGINT), 0) FROM leases`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	one := newPuller(t, place)
	one.pulls(1000)
	one.writes(t)
	if n := leased(); n != shareOfAlice/leastSlice {
		t.Errorf("%d is leased", n)
	}
	one.now = one.now.Add(idleLease)
	one.writes(t)
	if n := leased(); n != 0 {
		t.Errorf("%d is leased by who is idle", n)
	}
	if n := 2 * int64(one.down.Chunk()-1); n != shareOfAlice/64 {
		t.Errorf("who has given back may use %d before he asks", n)
	}
	one.pulls(1000)
	one.writes(t)
	if leased() == 0 {
		t.Error("nothing is leased again")
	}
	one.finish(t.Context())
	if n := leased(); n != 0 {
		t.Errorf("%d is leased by who has stopped", n)
	}
	if used := usedBy(t, place); used != 2000 {
		t.Errorf("the ledger has %d bytes", used)
	}
}

// TestRatesOfOthers: each learns how fast the others were, lately, and nothing of keys
// that it did not have itself.
func TestRatesOfOthers(t *testing.T) {
	place := postgres(t)
	alice, bob := limits.Account{Limit: "fair", Key: "alice"}, limits.Account{Limit: "fair", Key: "bob"}
	nodes := []*store{opens(t, place), opens(t, place), opens(t, place)}
	seq := int64(0)
	writes := func(node int, uses ...limits.RateUse) []limits.RateOfOthers {
		t.Helper()
		seq++
		done, err := nodes[node].write(t.Context(), writer{fmt.Sprint(node), "node"}, seq, noon, batch{rates: uses, fresh: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return done.others
	}
	of := func(a limits.Account, nodes int, up, down float64) limits.RateOfOthers {
		return limits.RateOfOthers{RateUse: limits.RateUse{Account: a, Up: up, Down: down}, Nodes: nodes}
	}
	wants := func(what string, got []limits.RateOfOthers, want ...limits.RateOfOthers) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	wants("the first", writes(0, limits.RateUse{Account: alice, Up: 100, Down: 10}), of(alice, 0, 0, 0))
	wants("the second", writes(1, limits.RateUse{Account: bob, Up: 7}, limits.RateUse{Account: alice, Up: 200}), of(bob, 0, 0, 0), of(alice, 1, 100, 10))
	wants("the third", writes(2, limits.RateUse{Account: alice, Up: 300}), of(alice, 2, 300, 10))
	wants("the first again", writes(0, limits.RateUse{Account: alice, Up: 1}), of(alice, 2, 500, 0))
	if _, err := nodes[0].db.ExecContext(t.Context(), `UPDATE rates SET at = at - 10 WHERE node = '2'`); err != nil {
		t.Fatal(err)
	}
	wants("when one has gone", writes(0, limits.RateUse{Account: alice, Up: 1}), of(alice, 1, 200, 0))
	wants("who has nothing", writes(0))
}

// TestLeasesAreGivenBackAtTheEnd also where the ledger had to be closed, for a fault in
// what is done beside the writes, and nothing was to be written since.
func TestLeasesAreGivenBackAtTheEnd(t *testing.T) {
	place := postgres(t)
	p := newPuller(t, place)
	p.pulls(1 << 20)
	p.writes(t)
	p.report(errors.New("the journal cannot be folded"))
	if p.store != nil {
		t.Fatal("the ledger is still open")
	}
	p.finish(t.Context())
	if n := opens(t, place).rows(t, "leases"); n != 0 {
		t.Errorf("%d leases are left", n)
	}
}

// TestUpgradeSharesAQuota: two processes on one file, as while an upgrade lasts, use no
// more together than the quota, but for what moves between two writes, and what is
// granted in one is so in the other.
func TestUpgradeSharesAQuota(t *testing.T) {
	const between = 1 << 20
	place := Place("sqlite:" + t.TempDir() + "/ledger.db")
	before := newPuller(t, place)
	before.pulls(8 * between)
	before.writes(t)
	before.pulls(between) // is not written when the other begins
	after := newPuller(t, place)
	both := []*puller{before, after}
	for round := 0; len(before.ended) == 0 || len(after.ended) == 0; round++ {
		for _, p := range both {
			p.pulls(between)
			p.writes(t)
		}
		if round > 100 {
			t.Fatalf("there is no end: %d, %d", before.moved, after.moved)
		}
	}
	if over := before.moved + after.moved - shareOfAlice; over < 1 || over > 3*between {
		t.Errorf("%d bytes were used beyond the quota", over)
	}
	if used := usedBy(t, place); used != before.moved+after.moved {
		t.Errorf("the ledger has %d bytes, and %d + %d were used", used, before.moved, after.moved)
	}
	if _, err := after.table.Grant(limits.Account{Limit: "monthly", Key: "alice"}, shareOfAlice, time.Now()); err != nil {
		t.Fatal(err)
	}
	after.writes(t)
	before.now = before.now.Add(20 * time.Second) // who is over asks now and then
	before.writes(t)
	if got, _ := before.table.Standings(time.Now()); got[0].Granted != shareOfAlice {
		t.Errorf("%+v", got)
	}
}

// TestLeaseAfterMidnight: where all that is due is of a period that is over, what is
// leased of the new one has its time all the same, or others would take it for that of
// a node that is long gone.
func TestLeaseAfterMidnight(t *testing.T) {
	s := opens(t, postgres(t))
	all := dues(noon, 100)[:1]
	all[0].Since = all[0].Until
	s.settles(t, 1, noon, batch{dues: all})
	var amount, at int64
	if err := s.db.QueryRowContext(t.Context(), `SELECT amount, at FROM leases`).Scan(&amount, &at); err != nil {
		t.Fatal(err)
	}
	if age := time.Since(time.Unix(at, 0)); amount == 0 || age.Abs() > time.Hour {
		t.Errorf("%d bytes are leased, since %v", amount, age)
	}
}
