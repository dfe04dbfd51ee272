//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCollections: the runtime's own words are understood, among those of a log.
func TestCollections(t *testing.T) {
	const log = `time=2026-11-26T02:00:21.541Z level=INFO msg=session id=1 user="gc 1 @0.5s 1%: 1+1+1 ms clock"
gc 1 @0.021s 5%: 0.31+2.0+0.014 ms clock, 0.63+0.21/1.1/0.43+0.028 ms cpu, 4->4->2 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
scvg: 1 MB released
gc 2 @0.500s 5%: 0.01+time=2026-11-26T02:00:22.541Z level=INFO msg=session id=2
2.0time=2026-11-26T02:00:22.542Z level=INFO msg=session id=3
time=2026-11-26T02:00:22.543Z level=INFO msg=session id=4
+0.45 ms clock, 0.63+0.21/1.1/0.43+0.028 ms cpu, 4->4->3 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
gc 12 @61.500s 0%: 0.05+12+1.25 ms clock, 0.1+0/11/3.4+2.5 ms cpu, 31->33->17 MB, 32 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)
`
	want := []collection{{21 * time.Millisecond, 310 * time.Microsecond, 2}, {500 * time.Millisecond, 450 * time.Microsecond, 3}, {61500 * time.Millisecond, 1250 * time.Microsecond, 17}}
	if got := collectionsIn(log); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestHeapGrows: what grows is noticed, and what only goes up and down is not.
func TestHeapGrows(t *testing.T) {
	heap := func(live func(second int) int) (all []collection) {
		for second := range 90 {
			all = append(all, collection{at: time.Duration(second) * time.Second, live: live(second), pause: time.Millisecond})
		}
		return all
	}
	for name, test := range map[string]struct {
		live     func(second int) int
		from, to time.Duration
		want     string
	}{
		"flat":            {func(int) int { return 10 }, 0, 90 * time.Second, ""},
		"up and down":     {func(s int) int { return 10 + s%7*20 }, 0, 90 * time.Second, ""},
		"a leak":          {func(s int) int { return 10 + s/5 }, 0, 90 * time.Second, "13 MB in the first third, 25 MB in the last"},
		"a warm-up":       {func(s int) int { return min(s, 30) }, 30 * time.Second, 90 * time.Second, ""},
		"too few to tell": {func(s int) int { return 10 * s }, 80 * time.Second, 90 * time.Second, ""},
	} {
		text, err := heapGrows(heap(test.live), test.from, test.to)
		if got := fmt.Sprint(err); (test.want == "") != (err == nil) || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestTraced(t *testing.T) {
	for _, before := range [][]string{{"HOME=/"}, {"GODEBUG=madvdontneed=1", "HOME=/"}} {
		if got := strings.Join(traced(before), " "); !strings.Contains(got, "gctrace=1") || !strings.Contains(got, before[0]) || strings.Count(got, "GODEBUG") != 1 {
			t.Errorf("%v becomes %s", before, got)
		}
	}
}
