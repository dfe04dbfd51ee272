//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/sallyport/sallyport/bench/load"
)

// result is what one proxy took for one row: a cost for each round, nil where it failed.
type result struct{ rounds []*load.Cost }

// table holds the results of all proxies, by the names of row and proxy.
type table map[[2]string]*result

func (t table) note(r row, rn *runner, round int, cost load.Cost, err error) {
	key := [2]string{r.name, rn.name}
	if t[key] == nil {
		t[key] = new(result)
	}
	if err != nil {
		return
	}
	if missing := round + 1 - len(t[key].rounds); missing > 0 {
		t[key].rounds = append(t[key].rounds, make([]*load.Cost, missing)...)
	}
	t[key].rounds[round] = &cost
}

// column is what is printed of a cost.
type column struct {
	head  string
	value func(load.Cost) float64
	ratio bool // print it relative to the first proxy, too
}

func columnsOf(r row) []column {
	if isIdle(r) {
		return []column{
			{"own bytes", func(c load.Cost) float64 { return c.CPU }, true},
			{"kernel bytes", func(c load.Cost) float64 { return c.Rate }, true},
			{"descriptors", func(c load.Cost) float64 { return c.Worst }, false},
		}
	}
	columns := []column{{"CPU " + r.unit, func(c load.Cost) float64 { return c.CPU * r.scale }, true}}
	if r.unit == "s/GiB" {
		columns = append(columns, column{"and of both ends", func(c load.Cost) float64 { return c.All * r.scale }, true})
	}
	columns = append(columns, column{"rate /s", func(c load.Cost) float64 { return c.Rate }, true})
	if r.unit == "µs" {
		columns = append(columns, column{"p99 ms", func(c load.Cost) float64 { return c.Worst * 1e3 }, true})
	}
	return columns
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
	for _, cost := range r.rounds {
		if cost != nil {
			values = append(values, c.value(*cost))
		}
	}
	return values
}

// ratios compares round by round.
func ratios(first, this *result, c column) (values []float64) {
	if first == nil {
		return nil
	}
	for i, cost := range this.rounds {
		if i < len(first.rounds) && cost != nil && first.rounds[i] != nil && c.value(*cost) != 0 {
			values = append(values, c.value(*first.rounds[i])/c.value(*cost))
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
