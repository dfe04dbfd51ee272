package server

import (
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
	all      line
	bySource map[netip.Prefix]line // none is empty
}

// waiter is one handshake, and where it stands. When it has left it may enter
// again.
type waiter struct {
	serving *serving // where it came from, for clear; nil: it is not told by that
	source  netip.Prefix
	end     ender // is told at most once, when it must make room
	in      bool
	why     error    // why it had to leave; nil: it had not to
	places  [2]place // among all, and among those of its source
}

// place is where a waiter stands in a line.
type place struct{ before, behind *waiter }

// line is some waiters, the oldest first. The zero value is empty.
type line struct {
	first, last *waiter
	count       int
}

// What a line is of.
const (
	ofAll = iota
	ofEach
)

func (l *line) add(w *waiter, of int) {
	w.places[of] = place{before: l.last}
	if l.last != nil {
		l.last.places[of].behind = w
	} else {
		l.first = w
	}
	l.last = w
	l.count++
}

func (l *line) remove(w *waiter, of int) {
	at := w.places[of]
	if at.before != nil {
		at.before.places[of].behind = at.behind
	} else {
		l.first = at.behind
	}
	if at.behind != nil {
		at.behind.places[of].before = at.before
	} else {
		l.last = at.before
	}
	w.places[of] = place{}
	l.count--
}

func (q *queue) limit(most, perEach int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most, q.perEach, q.bySource = most, perEach, make(map[netip.Prefix]line)
}

// enter lets one more in, and tells end the reason Busy when a newer one
// takes its place. It must leave when the handshake is over.
func (q *queue) enter(w *waiter, source netip.Addr, end ender) {
	w.source, w.end, w.why = sourceKey(source), end, nil
	q.mu.Lock()
	defer q.mu.Unlock()
	switch each := q.bySource[w.source]; {
	case each.count >= q.perEach:
		q.evict(each.first)
	case q.all.count >= q.most:
		q.evict(q.all.first)
	}
	each := q.bySource[w.source]
	each.add(w, ofEach)
	q.bySource[w.source] = each
	q.all.add(w, ofAll)
	w.in = true
}

// leave takes w out, and reports whether it was still there: then its end is not
// called.
func (q *queue) leave(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	in := w.in
	q.remove(w)
	return in
}

// pass has another told in the place of w's end, or returns why w had to leave
// already.
func (q *queue) pass(w *waiter, end ender) (why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.end = end
	return w.why
}

// clear ends the handshakes of a serving, but for those that go by a context.
func (q *queue) clear(sv *serving, reason error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.all.first; w != nil; {
		next := w.places[ofAll].behind
		if w.serving == sv {
			q.expel(w, reason)
		}
		w = next
	}
}

// hold is enter for who goes by a context, which ends with that reason. leave must
// be called when the handshake is over.
func (q *queue) hold(parent context.Context, source netip.Addr) (ctx context.Context, leave func()) {
	ctx, end := context.WithCancelCause(parent)
	w := &waiter{}
	q.enter(w, source, endFunc(end))
	return ctx, func() {
		q.leave(w)
		end(nil)
	}
}

// evict ends the handshake of w, if there is one. Callers hold mu.
func (q *queue) evict(w *waiter) {
	if w != nil {
		q.expel(w, fmt.Errorf("%w: too many handshakes are going on, and this was the oldest", Busy))
	}
}

// expel ends the handshake of w. Callers hold mu.
func (q *queue) expel(w *waiter, reason error) {
	q.remove(w)
	w.why = reason
	w.end.End(reason)
}

// remove takes w out, if it is still there. Callers hold mu.
func (q *queue) remove(w *waiter) {
	if !w.in {
		return
	}
	w.in = false
	q.all.remove(w, ofAll)
	each := q.bySource[w.source]
	if each.remove(w, ofEach); each.count == 0 {
		delete(q.bySource, w.source)
		return
	}
	q.bySource[w.source] = each
}
