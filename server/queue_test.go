package server

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestQueue compares the queue with a list, over random arrivals and departures.
func TestQueue(t *testing.T) {
	seed := rand.Uint64()
	for turn := range uint64(50) {
		m := newModelQueue(rand.New(rand.NewPCG(seed, turn)))
		for range 200 {
			m.step()
			if got := inOrder(&m.queue); !slices.Equal(got, m.in) || len(m.bySource) > len(m.in) {
				m.fault = fmt.Sprintf("%d are in, of %d sources, want %d in their order", len(got), len(m.bySource), len(m.in))
			}
			if m.fault != "" {
				t.Fatalf("%s (seed %d, turn %d)", m.fault, seed, turn)
			}
		}
	}
}

// modelQueue is a queue, and what must be in it.
type modelQueue struct {
	queue
	*rand.Rand
	servings [3]*serving
	places   [12]waiter
	in       []*waiter // the oldest first
	ended    map[*waiter]error
	fault    string
}

func newModelQueue(r *rand.Rand) *modelQueue {
	m := &modelQueue{Rand: r, ended: map[*waiter]error{}, servings: [3]*serving{nil, {}, {}}}
	m.limit(1+r.IntN(8), 1+r.IntN(4))
	return m
}

// step has somebody come or leave, or clears a serving.
func (m *modelQueue) step() {
	w := &m.places[m.IntN(len(m.places))]
	at := slices.Index(m.in, w)
	switch {
	case m.IntN(20) == 0:
		m.clears(m.servings[1+m.IntN(2)])
	case at >= 0:
		if !m.leave(w) || m.leave(w) {
			m.fault = "a waiter left, and it was not there, or twice"
		}
		m.in = slices.Delete(m.in, at, at+1)
	default:
		m.enters(w)
	}
}

func (m *modelQueue) clears(gone *serving) {
	m.clear(gone, Shutdown)
	m.in = slices.DeleteFunc(m.in, func(w *waiter) bool {
		if w.serving == gone && !errors.Is(m.ended[w], Shutdown) {
			m.fault = "one was not told that all of its serving have to leave"
		}
		return w.serving == gone
	})
}

func (m *modelQueue) enters(w *waiter) {
	sources := addrs("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:1::1") // two of them are one source
	source := sources[m.IntN(len(sources))]
	delete(m.ended, w)
	w.serving = m.servings[m.IntN(len(m.servings))]
	left, old := mustLeave(m.in, source, m.most, m.perEach)
	m.in = append(left, w)
	m.enter(w, source, endFunc(func(reason error) { m.ended[w] = reason }))
	if old != nil && (!errors.Is(m.ended[old], Busy) || !errors.Is(m.pass(old, old.end), Busy)) {
		m.fault = "the oldest did not make room"
	}
	if m.pass(w, w.end) != nil {
		m.fault = "who has come must leave already"
	}
}

// mustLeave takes the one out of the list that makes room for one more.
func mustLeave(in []*waiter, source netip.Addr, most, each int) (left []*waiter, old *waiter) {
	same := func(w *waiter) bool { return w.source == sourceKey(source) }
	count := 0
	for _, w := range in {
		if same(w) {
			count++
		}
	}
	at := -1
	switch {
	case count >= each:
		at = slices.IndexFunc(in, same)
	case len(in) >= most:
		at = 0
	}
	if at < 0 {
		return in, nil
	}
	old = in[at]
	return slices.Delete(in, at, at+1), old
}

// inOrder returns who is in the queue, by the line of all, if those of the sources
// have the same.
func inOrder(q *queue) (all []*waiter) {
	var bySource []*waiter
	for w := q.all.first; w != nil; w = w.places[ofAll].behind {
		all = append(all, w)
	}
	for _, l := range q.bySource {
		for w := l.first; w != nil; w = w.places[ofEach].behind {
			bySource = append(bySource, w)
		}
	}
	slices.SortFunc(bySource, func(a, b *waiter) int { return cmp.Compare(slices.Index(all, a), slices.Index(all, b)) })
	if !slices.Equal(all, bySource) {
		return nil
	}
	return all
}
