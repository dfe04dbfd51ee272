package live

import (
	"slices"
	"testing"
)

// TestRing: the last ones are kept, in order, before the first round, at its end and after it.
func TestRing(t *testing.T) {
	r := newRing[int](3)
	for n, want := range [][]int{{}, {1}, {1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 5}, {4, 5, 6}, {5, 6, 7}} {
		if n > 0 {
			r.push(n)
		}
		if got := r.last(r.len()); !slices.Equal(got, want) {
			t.Errorf("after %d: %v; want %v", n, got, want)
		}
	}
	if got := r.last(2); !slices.Equal(got, []int{6, 7}) {
		t.Errorf("the last two: %v", got)
	}
}
