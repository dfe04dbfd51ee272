//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

// figures are what one turn of a row has measured.
type figures struct {
	load.Cost
	alone       load.Cost    // of a row that is crowded: what the same costs without the crowd
	held        load.Idle    // of a row that is idle
	collections []collection // of a proxy that was just started: those of its life
}

// result is what one proxy took for one row: what was measured in each round, nil where it failed.
type result struct{ rounds []*figures }

// table holds the results of all proxies, by the names of row and proxy.
type table map[[2]string]*result

func (t table) note(r row, rn *runner, round int, got figures, err error) {
	key := [2]string{r.name, rn.name}
	if t[key] == nil {
		t[key] = new(result)
	}
	if err != nil {
		return
	}
	if missing := round + 1 - len(t[key].rounds); missing > 0 {
		t[key].rounds = append(t[key].rounds, make([]*figures, missing)...)
	}
	t[key].rounds[round] = &got
}

// column is what is printed of a turn.
type column struct {
	head  string
	value func(figures) float64 // NaN: there is none
	ratio bool                  // print it relative to the first proxy, too
}

// columnsOf are those of r.
func columnsOf(r row) []column {
	if r.columns != nil {
		return r.columns
	}
	columns := []column{{"CPU " + r.unit, func(f figures) float64 { return f.CPU * r.scale }, true}}
	if r.unit == "s/GiB" {
		columns = append(columns, column{"and of both ends", func(f figures) float64 { return f.All * r.scale }, true})
	}
	columns = append(columns, column{"rate /s", func(f figures) float64 { return f.Rate }, true})
	if r.unit == "µs" {
		columns = append(columns, column{"p99 ms", func(f figures) float64 { return f.Worst * 1e3 }, true})
	}
	return columns
}

// crowdedColumns are of bulk among idle relays: what it costs, and how many times that without them it is.
var crowdedColumns = []column{
	{"CPU s/GiB", func(f figures) float64 { return f.CPU }, true},
	{"without the crowd", func(f figures) float64 { return f.alone.CPU }, false},
	{"with / without", func(f figures) float64 { return f.CPU / f.alone.CPU }, false},
	{"and of both ends, with / without", func(f figures) float64 { return f.All / f.alone.All }, false},
	{"rate /s", func(f figures) float64 { return f.Rate }, true},
	{"without the crowd", func(f figures) float64 { return f.alone.Rate }, false},
	{"with / without", func(f figures) float64 { return f.Rate / f.alone.Rate }, false},
}

// idleColumns are what a relay holds that rests, and how long the collections of garbage stopped all else while the relays
// began, rested and ended: of those programs whose runtime tells (Go's).
var idleColumns = []column{
	{"own bytes", func(f figures) float64 { return f.held.Own }, true},
	{"kernel bytes", func(f figures) float64 { return f.held.Kernel }, true},
	{"descriptors", func(f figures) float64 { return f.held.Descriptors }, false},
	{"collections", ofCollections(func(all []collection) float64 { return float64(len(all)) }), false},
	{"median pause ms", ofCollections(func(all []collection) float64 { return milliseconds(medianPause(all)) }), false},
	{"longest pause ms", ofCollections(func(all []collection) float64 { return milliseconds(longestPause(all)) }), false},
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// ofCollections is the value of what is asked of collections where there are any.
func ofCollections(value func([]collection) float64) func(figures) float64 {
	return func(f figures) float64 {
		if len(f.collections) == 0 {
			return math.NaN()
		}
		return value(f.collections)
	}
}

// print prints a table for each row.
func (t table) print(out io.Writer, rows []row, runners []*runner) error {
	for _, r := range rows {
		if _, err := io.WriteString(out, t.text(r, runners)); err != nil {
			return err
		}
	}
	return nil
}

// text returns the table of one row: every proxy's figures, and how many times as much is the first proxy's figure is.
func (t table) text(r row, runners []*runner) string {
	first := t[[2]string{r.name, runners[0].name}]
	columns := columnsOf(r)
	head, rule := "| "+r.name, "| ---"
	for _, c := range columns {
		head += " | " + c.head
		rule += " | ---"
		if c.ratio {
			head += " | " + runners[0].name + " / this"
			rule += " | ---"
		}
	}
	text := fmt.Sprintf("\n%s |\n%s |\n", head, rule)
	for _, rn := range runners {
		this := t[[2]string{r.name, rn.name}]
		if this == nil {
			continue
		}
		line := "| " + rn.name
		for _, c := range columns {
			line += " | " + spread(this.values(c), 3)
			if c.ratio {
				line += " | " + spread(ratios(first, this, c), 2)
			}
		}
		text += line + " |\n"
	}
	return text
}

func (r *result) values(c column) (values []float64) {
	for _, got := range r.rounds {
		if got == nil {
			continue
		}
		if v := c.value(*got); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	return values
}

// ratios compares round by round.
func ratios(first, this *result, c column) (values []float64) {
	if first == nil {
		return nil
	}
	for i, got := range this.rounds {
		if i < len(first.rounds) && got != nil && first.rounds[i] != nil && c.value(*got) != 0 {
			values = append(values, c.value(*first.rounds[i])/c.value(*got))
		}
	}
	return values
}

// spread prints the median, and the smallest and the largest.
func spread(values []float64, digits int) string {
	if len(values) == 0 {
		return "-"
	}
	slices.Sort(values)
	median := (values[(len(values)-1)/2] + values[len(values)/2]) / 2
	return fmt.Sprintf("%s (%s-%s)", figure(median, digits), figure(values[0], digits), figure(values[len(values)-1], digits))
}

// figure prints v with as many digits as say something.
func figure(v float64, digits int) string {
	if v >= 100 || v <= -100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.*g", digits, v)
}
