package ledger

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// BenchmarkPostgresNodes is what flushes cost the database: of eight nodes at once, with
// so many users in each, who all move something and count towards a quota. Each node
// has users of its own.
func BenchmarkPostgresNodes(b *testing.B) {
	for _, users := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) { benchmarkNodes(b, users) })
	}
}

func benchmarkNodes(b *testing.B, users int) {
	const nodes = 8
	place := postgres(b)
	p := proxytest.SharedPostgres(b)
	var all []*store
	for range nodes {
		s, err := place.open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		defer s.close()
		all = append(all, s)
	}
	flush := func(node int, seq int64) {
		by := writer{fmt.Sprint(node), "node"}
		if _, err := all[node].write(b.Context(), by, seq, noon.Add(time.Duration(seq)*time.Second), flushOf(node, users)); err != nil {
			b.Error(err)
		}
	}
	round := func(seq int64) {
		var writing sync.WaitGroup
		for node := range nodes {
			writing.Go(func() { flush(node, seq) })
		}
		writing.Wait()
	}
	round(1) // the keys are looked up once an hour
	before := p.CPU(b)
	wal := walOf(b, p, place)
	seq := int64(1)
	for b.Loop() {
		seq++
		round(seq)
	}
	flushes := float64(nodes * b.N)
	b.ReportMetric((p.CPU(b)-before).Seconds()*1e3/flushes, "database-ms/flush")
	b.ReportMetric(flushes/b.Elapsed().Seconds(), "flushes/s")
	b.ReportMetric((walOf(b, p, place)-wal)/flushes, "WAL-B/flush")
}

func walOf(b *testing.B, p *proxytest.Postgres, place Place) (n float64) {
	b.Helper()
	if _, err := fmt.Sscan(p.SQL(b, databaseOf(b, place), "SELECT pg_current_wal_lsn() - '0/0'"), &n); err != nil {
		b.Fatal(err)
	}
	return n
}

func flushOf(node, users int) batch {
	f := batch{counts: make(map[Key]Counts, users)}
	day := noon.Truncate(24 * time.Hour)
	for i := range users {
		name := fmt.Sprint(node, " ", i)
		f.counts[Key{name, "192.0.2.1", "lan", "web", "example.com"}] = Counts{Up: 1 << 10, Down: 1 << 16}
		f.dues = append(f.dues, limits.Due{
			Account: limits.Account{Limit: "daily", Key: name}, Slot: limits.Slot{Start: day.Unix(), Used: limits.Amount{Up: 1 << 10, Down: 1 << 16}},
			Since: day.Unix(), Until: day.Add(24 * time.Hour).Unix(), Most: 1 << 40,
		})
	}
	return f
}
