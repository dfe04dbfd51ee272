package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How memory is given back to the system. The garbage collector lets the heap grow to
// twice what is in use before it runs, and nothing makes it run where nothing happens:
// after many sessions have begun, or ended, a server that is quiet would keep what that took.
const (
	memoryLook  = 5 * time.Second
	littleWaste = 2 << 20 // bytes that are not worth a collection
)

// slackSize is how much memory is held that nobody touches, in bytes: the system gives
// none for it, but to the garbage collector it is in use. So a heap of some MB may grow by as
// much before it is collected, which while sessions come and go would else be many times a second.
const slackSize = 8 << 20

// memory is what the runtime says of the heap, in bytes.
type memory struct {
	allocated uint64 // since the process began
	live      uint64 // at the end of the last collection
}

// readMemory costs some microseconds, and stops nobody.
func readMemory() memory {
	read := [...]metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(read[:])
	return memory{read[0].Value.Uint64(), read[1].Value.Uint64()}
}

// tidier decides when memory is given back.
type tidier struct {
	before memory // a look ago
	tidied memory // when memory was given back last
}

// isTime reports whether a collection is worth its while: little has happened since the
// look before, and much between that and the last collection of this kind, so that an
// eighth of the heap may be waste.
func (t *tidier) isTime(now memory) bool {
	quiet := now.allocated-t.before.allocated < littleWaste
	t.before = now
	return quiet && now.allocated-t.tidied.allocated > max(littleWaste, now.live/8)
}

// tidyMemory gives memory back whenever it is worth it, until ctx ends.
func tidyMemory(ctx context.Context) {
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	slack := make([]byte, slackSize)
	defer runtime.KeepAlive(slack)
	var t tidier
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if t.isTime(readMemory()) {
			debug.FreeOSMemory()
			t.tidied = readMemory()
		}
	}
}
