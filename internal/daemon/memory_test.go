package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

// TestTidier: memory is given back once after something has happened, and not while it
// does.
func TestTidier(t *testing.T) {
	const mib = 1 << 20
	var d tidier
	for i, look := range []struct {
		memory
		want bool
	}{
		{memory{4 * mib, mib}, false}, // it has just begun
		{memory{4 * mib, mib}, true},
		{memory{5 * mib, mib}, false}, // as if that had been given back
		{memory{40 * mib, 20 * mib}, false},
		{memory{80 * mib, 20 * mib}, false}, // much is going on
		{memory{81 * mib, 20 * mib}, true},
		{memory{82 * mib, 20 * mib}, false},
		{memory{83 * mib, 20 * mib}, false}, // an eighth of the heap is more
		{memory{84 * mib, 20 * mib}, true},
	} {
		got := d.isTime(look.memory)
		if got != look.want {
			t.Errorf("look %d, %+v: %v", i, look.memory, got)
		}
		if got {
			d.tidied = look.memory
		}
	}
}

// TestReadMemory: the runtime has what is asked for.
func TestReadMemory(t *testing.T) {
	before := readMemory()
	waste := make([]byte, 8<<20)
	runtime.KeepAlive(waste)
	debug.FreeOSMemory()
	if now := readMemory(); now.allocated < before.allocated+8<<20 || now.live == 0 || now.live > now.allocated {
		t.Errorf("%+v, after %+v", now, before)
	}
}

// TestSlack: as long as memory is tidied, the garbage collector takes a piece of it for being in
// use, and lets the heap grow by that.
func TestSlack(t *testing.T) {
	live := func() uint64 {
		runtime.GC()
		return readMemory().live
	}
	before := live()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		go tidyMemory(ctx)
		synctest.Wait()
		if now := live(); now < before+slackSize/2 {
			t.Errorf("%d bytes are in use, and %d were before", now, before)
		}
		end()
		synctest.Wait()
	})
	if now := live(); now > before+slackSize/2 {
		t.Errorf("%d bytes are in use at the end, and %d were before", now, before)
	}
}
