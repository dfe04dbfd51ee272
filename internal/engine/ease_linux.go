package engine

import (
	"runtime"
	"time"
)

// Small sessions are cheaper on one loop than on several, which would wake one after the other for a moment. Bulk is not: what
// one loop moves is what one processor can. So a relay begins where its session did, and moves when there is too much to do there
// and another loop has nothing to do.

// Mover is a Record that can go on on another loop.
type Mover interface {
	Record

	// Move is called on the goroutine of the loop that the record is on, when its turn in the queue has come. It has the record
	// leave that loop, with one use of it (Detach), and go on on another, of which it is given one.
	Move(to *Loop)
}

const (
	// strain is for how long a loop must have had something to do without a break before a record moves.
	strain = 4 * time.Millisecond

	// easing is from one record that moves to the next: what is gained by it has to be seen first.
	easing = 10 * time.Millisecond
)

// ease has a record move that is next in the queue, with others behind it, if that is worth it. It reports whether it did.
func (l *Loop) ease(next Handle) bool {
	now := time.Since(epoch)
	if now-l.rested < strain || now-l.eased < easing {
		return false
	}
	r, ok := l.table.record(next).(Mover)
	if !ok {
		return false
	}
	l.eased = now
	to := attachIdle()
	if to == nil {
		return false
	}
	l.move(r, to)
	return true
}

// move has a record move.
func (l *Loop) move(r Mover, to *Loop) {
	moved := false
	defer contain(r)
	defer func() {
		if !moved {
			to.Detach()
		}
	}()
	r.Move(to)
	moved = true
}

// attachIdle is Attach to a loop that has nothing to do; nil: there is none.
func attachIdle() *Loop {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	for _, l := range loops.all {
		if l.isIdle() {
			l.users++
			return l
		}
	}
	if len(loops.all) >= mostLoops() {
		return nil
	}
	l, err := start()
	if err != nil {
		return nil
	}
	_, shared := leastUsed()
	l.spare = shared >= mostShared()
	loops.all = append(loops.all, l)
	l.users++
	return l
}

// isIdle reports whether the loop waits for something to come.
func (l *Loop) isIdle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits
}

// spareLoops is how many loops there may be for who moves alone.
var spareLoops int // loops.mu guards it

// AddLoop has the runtime run one goroutine more at a time than there are processors, for a loop more: as many as there are
// processors, of which the last is for bulk alone. Only a whole program may decide that. It must be called before anything else of
// the package's, and may be called again.
func AddLoop() {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	if spareLoops == 0 {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
		spareLoops = 1
	}
}
