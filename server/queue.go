package server

import (
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"sync"
)

// queue holds the handshakes that are going on. When there are too many, in sum
// or of one source, the oldest makes room for the newest: who is slow waits at
// the cost of who is slower, and a flood of half-open connections keeps nobody
// out who speaks at once.
type queue struct {
	mu       sync.Mutex
	most     int
	perEach  int
	all      list.List // of *waiter, the oldest first
	bySource map[netip.Prefix]*list.List
}

// waiter is one handshake, and where it stands.
type waiter struct {
	source        netip.Prefix
	end           context.CancelCauseFunc
	inAll, inEach *list.Element // nil once it has left
}

func (q *queue) limit(most, perEach int) {
	q.most, q.perEach, q.bySource = most, perEach, make(map[netip.Prefix]*list.List)
}

// enter lets one more in. The context ends with the reason Busy when a newer one
// takes its place. leave must be called when the handshake is over.
func (q *queue) enter(parent context.Context, source netip.Addr) (ctx context.Context, leave func()) {
	ctx, end := context.WithCancelCause(parent)
	w := &waiter{source: sourceKey(source), end: end}
	q.mu.Lock()
	defer q.mu.Unlock()
	each := q.bySource[w.source]
	switch {
	case each != nil && each.Len() >= q.perEach:
		q.evict(each.Front())
	case q.all.Len() >= q.most:
		q.evict(q.all.Front())
	}
	if each = q.bySource[w.source]; each == nil {
		each = list.New()
		q.bySource[w.source] = each
	}
	w.inAll, w.inEach = q.all.PushBack(w), each.PushBack(w)
	return ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.remove(w)
		end(nil)
	}
}

// evict ends the handshake at e. Callers hold mu.
func (q *queue) evict(e *list.Element) {
	if w, ok := e.Value.(*waiter); ok {
		q.remove(w)
		w.end(fmt.Errorf("%w: too many handshakes are going on, and this was the oldest", Busy))
	}
}

// remove takes w out, if it is still there. Callers hold mu.
func (q *queue) remove(w *waiter) {
	if w.inAll == nil {
		return
	}
	q.all.Remove(w.inAll)
	each := q.bySource[w.source]
	if each.Remove(w.inEach); each.Len() == 0 {
		delete(q.bySource, w.source)
	}
	w.inAll, w.inEach = nil, nil
}
