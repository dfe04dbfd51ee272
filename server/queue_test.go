package server

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestQueue compares the queue with a list, over random arrivals and departures.
func TestQueue(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	sources := addrs("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:1::1") // two of them are one source
	for range 50 {
		var q queue
		most, each := 1+random.IntN(8), 1+random.IntN(4)
		q.limit(most, each)
		servings := []*serving{nil, {}, {}}
		var in []*waiter // the oldest first
		ended := map[*waiter]error{}
		places := make([]waiter, 12)
		for range 200 {
			w := &places[random.IntN(len(places))]
			at := slices.Index(in, w)
			switch what := random.IntN(20); {
			case what == 0:
				gone := servings[1+random.IntN(2)]
				q.clear(gone, Shutdown)
				in = slices.DeleteFunc(in, func(w *waiter) bool { return w.serving == gone && ended[w] == Shutdown })
				if slices.ContainsFunc(in, func(w *waiter) bool { return w.serving == gone }) {
					t.Fatalf("one is left of those that were cleared (seed %d)", seed)
				}
			case at >= 0:
				if !q.leave(w) || q.leave(w) {
					t.Fatalf("a waiter left, and it was not there, or twice (seed %d)", seed)
				}
				in = slices.Delete(in, at, at+1)
			default:
				delete(ended, w)
				w.serving = servings[random.IntN(len(servings))]
				source := sources[random.IntN(len(sources))]
				in = append(mustLeave(in, source, most, each, func(old *waiter) { ended[old] = nil }), w)
				q.enter(w, source, func(reason error) { ended[w] = reason })
			}
			for w, why := range ended {
				if why == nil {
					t.Fatalf("the oldest did not make room (seed %d)", seed)
				}
				if got := q.pass(w, w.end); got != why {
					t.Fatalf("why it left: %v, want %v (seed %d)", got, why, seed)
				}
			}
			if got := inOrder(&q); !slices.Equal(got, in) || len(q.bySource) > len(in) {
				t.Fatalf("%d are in, of %d sources, want %d in their order (seed %d)", len(got), len(q.bySource), len(in), seed)
			}
		}
	}
}

// mustLeave takes the one out of the list that makes room for one more.
func mustLeave(in []*waiter, source netip.Addr, most, each int, tell func(*waiter)) []*waiter {
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
		return in
	}
	tell(in[at])
	return slices.Delete(in, at, at+1)
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
