//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bench/load"
)

func TestTable(t *testing.T) {
	r := row{name: "work", unit: "s/GiB", scale: 1}
	ours, theirs := &runner{name: "ours"}, &runner{name: "theirs"}
	results := table{}
	for round, cpu := range []float64{1, 4, 2} {
		results.note(r, ours, round, load.Cost{CPU: cpu, All: 3 * cpu, Rate: 10}, nil)
	}
	results.note(r, theirs, 0, load.Cost{CPU: 2, All: 3, Rate: 5}, nil)
	results.note(r, theirs, 1, load.Cost{}, errors.New("it fell over")) // has no part in the figures
	results.note(r, theirs, 2, load.Cost{CPU: 8, All: 12, Rate: 1000}, nil)

	text := results.text(r, []*runner{ours, theirs})
	for _, want := range []string{
		"| ours | 2 (1-4) | 1 (1-1) | 6 (3-12) | 1 (1-1) | 10 (10-10) | 1 (1-1) |\n",
		"| theirs | 5 (2-8) | 0.38 (0.25-0.5) | 7.5 (3-12) | 0.75 (0.5-1) | 502 (5-1000) | 1 (0.01-2) |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table is\n%swant in it\n%s", text, want)
		}
	}
}
