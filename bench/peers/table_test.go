//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

func TestTable(t *testing.T) {
	r := row{name: "work", unit: "s/GiB", scale: 1}
	ours, theirs := &runner{name: "ours"}, &runner{name: "theirs"}
	results := table{}
	for round, cpu := range []float64{1, 4, 2} {
		results.note(r, ours, round, figures{Cost: load.Cost{CPU: cpu, All: 3 * cpu, Rate: 10}}, nil)
	}
	results.note(r, theirs, 0, figures{Cost: load.Cost{CPU: 2, All: 3, Rate: 5}}, nil)
	results.note(r, theirs, 1, figures{}, errors.New("it fell over")) // has no part in the figures
	results.note(r, theirs, 2, figures{Cost: load.Cost{CPU: 8, All: 12, Rate: 1000}}, nil)

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

// TestTableOfIdle: of the collections of garbage there are figures where the runtime tells.
func TestTableOfIdle(t *testing.T) {
	r := row{name: "idle", columns: idleColumns}
	ours, theirs := &runner{name: "ours"}, &runner{name: "theirs"}
	results := table{}
	for round, longest := range []time.Duration{500 * time.Microsecond, 900 * time.Microsecond, 700 * time.Microsecond} {
		results.note(r, ours, round, figures{
			held:        load.Idle{Own: 1000, Kernel: 9000, Descriptors: 2},
			collections: []collection{{pause: longest}, {pause: 100 * time.Microsecond}, {pause: 200 * time.Microsecond}},
		}, nil)
	}
	results.note(r, theirs, 0, figures{held: load.Idle{Own: 4000, Kernel: 9000, Descriptors: 2}}, nil)

	text := results.text(r, []*runner{ours, theirs})
	for _, want := range []string{
		"| 2 (2-2) | 3 (3-3) | 0.2 (0.2-0.2) | 0.7 (0.5-0.9) |\n",
		"| theirs | 4000 (4000-4000) | 0.25 (0.25-0.25) | 9000 (9000-9000) | 1 (1-1) | 2 (2-2) | - | - | - |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table is\n%swant in it\n%s", text, want)
		}
	}
}

// TestTableOfCrowded: what is compared is what was measured in one turn, and no proxy at all has no CPU time to compare.
func TestTableOfCrowded(t *testing.T) {
	r := row{name: "crowded", columns: crowdedColumns}
	ours, direct := &runner{name: "ours"}, &runner{name: "direct"}
	results := table{}
	for round, slower := range []float64{1, 2} {
		results.note(r, ours, round, figures{
			Cost:  load.Cost{CPU: 3 * slower, All: 6 * slower, Rate: 2 / slower},
			alone: load.Cost{CPU: 2 * slower, All: 5 * slower, Rate: 4 / slower},
		}, nil)
	}
	results.note(r, direct, 0, figures{Cost: load.Cost{All: 1, Rate: 3}, alone: load.Cost{All: 1, Rate: 4}}, nil)

	text := results.text(r, []*runner{ours, direct})
	for _, want := range []string{
		"| ours | 4.5 (3-6) | 1 (1-1) | 3 (2-4) | 1.5 (1.5-1.5) | 1.2 (1.2-1.2) | 1.5 (1-2) | 1 (1-1) | 3 (2-4) | 0.5 (0.5-0.5) |\n",
		"| direct | 0 (0-0) | - | 0 (0-0) | - | 1 (1-1) | 3 (3-3) | 0.67 (0.67-0.67) | 4 (4-4) | 0.75 (0.75-0.75) |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table is\n%swant in it\n%s", text, want)
		}
	}
}
