package ledger

import (
	"database/sql"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
)

// dues are what alice has used of a quota by day, and somebody else who says that he
// is alice.
func dues(at time.Time, up int64) []limits.Due {
	start := at.Truncate(24 * time.Hour)
	one := limits.Due{
		Account: limits.Account{Limit: "daily", Key: "alice"},
		Slot:    limits.Slot{Start: start.Unix(), Used: limits.Amount{Up: up, Down: 2 * up, Online: time.Second}, Granted: 5},
		Since:   start.Unix(), Until: start.Add(24 * time.Hour).Unix(), Most: 1000,
	}
	other := one
	other.Claimed, other.Used = true, limits.Amount{Up: 1}
	odd := one
	odd.Key, odd.Granted = "\xff\\\"", 0
	return []limits.Due{one, other, odd}
}

// quotas returns what the ledger has, of the windows that are not over at a time.
func (s *store) quotas(t *testing.T, at time.Time) []limits.Balance {
	t.Helper()
	var all []limits.Balance
	err := s.within(t.Context(), func(tx *sql.Tx) (err error) {
		all, err = balances(t.Context(), tx, at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s *store) settles(t *testing.T, seq int64, at time.Time, b batch) {
	t.Helper()
	if _, err := s.write(t.Context(), writer{"id", "node"}, seq, at, b); err != nil {
		t.Fatal(err)
	}
}

// TestQuotasAreKept: what was used adds up, once, before and after it is folded, until
// its window is over, and is dropped after a while.
func TestQuotasAreKept(t *testing.T) { everywhere(t, quotasAreKept) }

func quotasAreKept(t *testing.T, place Place) {
	s := opens(t, place)
	s.settles(t, 1, noon, batch{counts: map[Key]Counts{alice: {1, 0, 10, 20}}, dues: dues(noon, 100)})
	s.settles(t, 1, noon, batch{counts: map[Key]Counts{alice: {1, 0, 10, 20}}, dues: dues(noon, 100)}) // nobody knew that it was written
	s.settles(t, 2, noon, batch{counts: nil, dues: dues(noon, 7)})
	slot := noon.Truncate(24 * time.Hour).Unix()
	balance := func(name string, claimed bool, s limits.Slot) limits.Balance {
		s.Start = slot
		return limits.Balance{Account: limits.Account{Limit: "daily", Key: name, Claimed: claimed}, Slots: []limits.Slot{s}, Lease: -1}
	}
	used := limits.Amount{Up: 107, Down: 214, Online: 2 * time.Second}
	want := []limits.Balance{
		balance("alice", false, limits.Slot{Used: used, Granted: 10}),
		balance("alice", true, limits.Slot{Used: limits.Amount{Up: 2}, Granted: 10}),
		balance("\xff\\\"", false, limits.Slot{Used: used}),
	}
	check := func(when string, at time.Time, want []limits.Balance) {
		t.Helper()
		if got := s.quotas(t, at); len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	check("not folded", noon, want)
	for range 2 {
		if err := s.foldDues(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("folded", noon, want)
	}
	if n := s.rows(t, "dues"); n > 0 {
		t.Errorf("%d rows are left to fold", n)
	}
	check("in the next window", noon.Add(12*time.Hour), nil)
	if got := text(reads(t, place, Query{By: "user"})); got != "alice 1 0 10 20" {
		t.Errorf("beside it was written %s", got)
	}
	for _, prune := range []struct {
		after time.Duration
		rows  int
	}{{24 * time.Hour, 3}, {5 * 24 * time.Hour, 0}} {
		if err := s.prune(t.Context(), noon.Add(prune.after), keepAll, 0); err != nil {
			t.Fatal(err)
		}
		if quotas, accounts := s.rows(t, "quotas"), s.rows(t, "accounts"); quotas != prune.rows || accounts != prune.rows {
			t.Errorf("%d slots of %d accounts are kept after %v, want %d", quotas, accounts, prune.after, prune.rows)
		}
	}
}

// TestQuotasGoOn: a server that is started again knows what was used, to the byte,
// and what was granted while it did not run.
func TestQuotasGoOn(t *testing.T) { everywhere(t, quotasGoOn) }

func quotasGoOn(t *testing.T, place Place) {
	quiet := slog.New(slog.DiscardHandler)
	all := map[string]limits.Limit{"monthly": {Per: limits.User, Quota: 1000, Every: limits.Every{Unit: limits.Month}}}
	runs := func(use int) (left int) {
		t.Helper()
		table := &limits.Table{}
		table.Set(all)
		l, err := Open(t.Context(), place, Options{Flush: time.Hour, Keep: keepAll, Log: quiet, Quotas: table})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := server.Request{Client: netip.MustParseAddrPort("192.0.2.1:1")}
		stay, err := table.Of("rule", []string{"monthly"}, nil).Budget(&r, server.Identity{Name: "alice"}).Enter(nil, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		defer stay.Leave()
		up, _ := stay.Pace()
		up.Took(use)
		if err := l.flush(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if place.IsShared() { // what is left was only lent in part, and is not known before somebody asks
			all, err := place.Balances(t.Context())
			if err != nil || len(all) != 1 {
				t.Fatalf("%+v, %v", all, err)
			}
			slot := all[0].Slots[0]
			return int(1000 + slot.Granted - limits.Both.Of(slot.Used))
		}
		return up.Chunk() - 1
	}
	if left := runs(300); left != 700 {
		t.Errorf("%d bytes are left, want 700", left)
	}
	if left := runs(300); left != 400 {
		t.Errorf("%d bytes are left after a restart, want 400", left)
	}
	before, err := place.Balances(t.Context())
	if err != nil || len(before) != 1 || len(before[0].Slots) != 1 || before[0].Slots[0].Used != (limits.Amount{Up: 600}) {
		t.Fatalf("the ledger has %+v, %v", before, err)
	}
	grant := limits.Due{Account: before[0].Account, Slot: limits.Slot{Start: before[0].Slots[0].Start, Granted: 500}, Until: time.Now().Add(time.Hour).Unix()}
	if err := place.Grant(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	if left := runs(0); left != 900 {
		t.Errorf("%d bytes are left after a grant, want 900", left)
	}
}

// TestQuotasOutliveALostLedger: what could not be written for a while is written once.
func TestQuotasOutliveALostLedger(t *testing.T) {
	place := Place(t.TempDir() + "/ledger.db")
	table := &limits.Table{}
	table.Set(map[string]limits.Limit{"monthly": {Per: limits.Whole, Quota: 1 << 40, Every: limits.Every{Unit: limits.Month}}})
	l, err := Open(t.Context(), place, Options{Flush: time.Hour, Keep: keepAll, Log: slog.New(slog.DiscardHandler), Quotas: table})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stay, err := table.Of("rule", []string{"monthly"}, nil).Budget(&server.Request{}, server.Identity{}).Enter(nil, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer stay.Leave()
	up, _ := stay.Pace()
	good := l.place
	for range 3 {
		up.Took(100)
		l.Close()
		l.place = Place(t.TempDir()) // a folder is no ledger
		if err := l.flush(t.Context(), time.Now()); err == nil {
			t.Fatal("a folder was taken for a ledger")
		}
	}
	l.place = good
	for range 3 {
		if err := l.flush(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := place.Balances(t.Context())
	if err != nil || len(all) != 1 || all[0].Slots[0].Used.Up != 300 {
		t.Errorf("the ledger has %+v, %v; want 300 bytes", all, err)
	}
}

func FuzzDue(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0})
	all := shares{{1, 1_790_000_000}: {1_790_086_400, limits.Amount{Up: 1, Down: 1 << 62, Online: time.Hour}, -5}}
	f.Add(all.blob())
	f.Add(all.blob()[:9])
	f.Fuzz(func(t *testing.T, row []byte) {
		read := make(shares)
		if read.addBlob(row) != nil {
			return
		}
		again := make(shares)
		if err := again.addBlob(read.blob()); err != nil || !reflect.DeepEqual(read, again) {
			t.Errorf("%x is read as %+v, and that as %+v (%v)", row, read, again, err)
		}
	})
}

// BenchmarkQuotas9000 is the work of a second for 9,000 users who each use a quota, and
// a sixtieth of what is done once a minute, beside what BenchmarkFlush9000 measures.
func BenchmarkQuotas9000(b *testing.B) {
	table := &limits.Table{}
	table.Set(map[string]limits.Limit{"monthly": {Per: limits.User, Quota: 1 << 60, Every: limits.Every{Unit: limits.Month}, Warn: []int{80}}})
	l, err := Open(b.Context(), Place(b.TempDir()+"/ledger.db"), Options{Keep: keepAll, Log: slog.New(slog.DiscardHandler), Quotas: table})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var all []server.Pacer
	for i := range 9000 {
		part := table.Of("rule", []string{"monthly"}, nil)
		stay, err := part.Budget(&server.Request{}, server.Identity{Name: fmt.Sprint(i)}).Enter(nil, func(error) {})
		if err != nil {
			b.Fatal(err)
		}
		defer stay.Leave()
		up, _ := stay.Pace()
		all = append(all, up)
	}
	now := time.Now()
	for b.Loop() {
		for range 60 {
			for _, up := range all {
				up.Took(1 << 16)
			}
			now = now.Add(time.Second)
			l.visit(b.Context(), now)
		}
	}
	if l.lost {
		b.Fatal("it could not be written")
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(60*b.N), "ms/flush")
}
