package engine

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busy is a record that always has something to do, and can move.
type busy struct {
	t      *testing.T
	fd     int
	handle Handle
	loop   atomic.Pointer[Loop]
	turns  atomic.Int64
	moves  atomic.Int64
	faulty atomic.Bool // it cannot move after all
	ending atomic.Bool
	ended  chan struct{}
}

// keepBusy adds one to a loop.
func keepBusy(t *testing.T, l *Loop) *busy {
	t.Helper()
	near, far := pair(t)
	t.Cleanup(func() { _ = unix.Close(far) })
	b := &busy{t: t, fd: near, ended: make(chan struct{})}
	l = l.Share()
	b.loop.Store(l)
	l.Post(b, b.settle)
	return b
}

func (b *busy) settle() {
	b.handle = add(b.t, b.loop.Load(), b.fd, b)
	b.Ready(b.handle, 0)
}

func (b *busy) Ready(_ Handle, e Events) {
	switch l := b.loop.Load(); {
	case e != 0: // it goes on by itself
	case b.ending.Load():
		b.leave()
	default:
		for began := time.Now(); time.Since(began) < 100*time.Microsecond; {
			b.turns.Add(1)
		}
		l.Requeue(b.handle, 0)
	}
}

func (b *busy) leave() {
	l := b.loop.Load()
	l.Close(b.handle)
	l.Detach()
	close(b.ended)
}

func (b *busy) Expired() {}

func (b *busy) Broken(fault any, _ []byte) {
	if fault != "faulty" {
		b.t.Error(fault)
	}
	b.leave()
}

func (b *busy) Move(to *Loop) {
	if b.faulty.Load() {
		panic("faulty")
	}
	from := b.loop.Load()
	from.Release(b.handle)
	b.moves.Add(1)
	b.loop.Store(to)
	to.Post(b, b.settle)
	from.Detach()
}

func (b *busy) end(t *testing.T) {
	t.Helper()
	b.ending.Store(true)
	await(t, b.ended, "the end of a busy record")
}

// several makes that there may be so many loops, for whoever attaches, and that there are none.
func several(t *testing.T, most int) {
	t.Helper()
	before := runtime.GOMAXPROCS(most + 1)
	none := func() bool { return len(running()) == 0 }
	waitFor(t, "the loops of other tests end", none)
	t.Cleanup(func() {
		waitFor(t, "nobody has a loop any more", none)
		runtime.GOMAXPROCS(before)
	})
}

// spread reports whether each of some records is on a loop of its own.
func spread(records []*busy) bool {
	var on []*Loop
	for _, b := range records {
		l := b.loop.Load()
		if slices.Contains(on, l) {
			return false
		}
		on = append(on, l)
	}
	return true
}

// TestEase: of records that are too much for one loop some move to another, and one that is alone stays where it is.
func TestEase(t *testing.T) {
	several(t, 3)
	l, err := Attach()
	if err != nil {
		t.Fatal(err)
	}
	records := []*busy{keepBusy(t, l)}
	waitFor(t, "it is busy for long", func() bool { return records[0].turns.Load() > 100_000 })
	if n := records[0].moves.Load(); n != 0 {
		t.Errorf("a record that is alone has moved, %d times", n)
	}
	for range 2 {
		records = append(records, keepBusy(t, l))
	}
	waitFor(t, "each has a loop of its own", func() bool { return spread(records) })
	for _, b := range records {
		b.end(t)
	}
	l.Detach()
}

// TestLoopForBulk: a loop beyond the others is for who moves, and nobody else comes to be on it.
func TestLoopForBulk(t *testing.T) {
	several(t, 1)
	processors := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { spareLoops = 0 })
	AddLoop()
	AddLoop()
	if n := runtime.GOMAXPROCS(0); n != processors+1 {
		t.Errorf("%d goroutines may run at a time on %d processors", n, processors)
	}
	l, err := Attach()
	if err != nil {
		t.Fatal(err)
	}
	records := []*busy{keepBusy(t, l), keepBusy(t, l)}
	waitFor(t, "each has a loop of its own", func() bool { return spread(records) })
	for range 4 * slack {
		other, err := Attach()
		if err != nil {
			t.Fatal(err)
		}
		if shared := l.Share(); other != l || shared != l {
			t.Error("somebody else is on the loop for bulk")
		}
		defer l.Detach()
		defer l.Detach()
	}
	for _, b := range records {
		b.end(t)
	}
	l.Detach()
}

// TestFaultyMove: a record that fails to move ends, and leaves no use of a loop behind.
func TestFaultyMove(t *testing.T) {
	several(t, 2)
	l, err := Attach()
	if err != nil {
		t.Fatal(err)
	}
	one, other := keepBusy(t, l), keepBusy(t, l)
	one.faulty.Store(true)
	other.faulty.Store(true)
	waitFor(t, "one of them tries", func() bool {
		select {
		case <-one.ended:
			other.end(t)
		case <-other.ended:
			one.end(t)
		default:
			return false
		}
		return true
	})
	l.Detach()
}
