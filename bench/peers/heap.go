//go:build linux

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// collection is what the runtime of a proxy says of a garbage collection, with GODEBUG=gctrace=1.
type collection struct {
	at    time.Duration // its beginning, since that of the process
	pause time.Duration // the longer of the two in which nothing else runs
	live  int           // MB of the heap that are in use at its end
}

// traceLine is the runtime's: number, time, share of the CPU time; the clock of the three phases, of which the one in the middle
// stops nobody; their CPU time; the heap at the beginning and at the end, and what of it is in use.
var traceLine = regexp.MustCompile(`(?m)^gc \d+ @([\d.]+)s \d+%: ([\d.]+)\+[\d.]+\+([\d.]+) ms clock, \S+ ms cpu, \d+->\d+->(\d+) MB,`)

// sessionLine is a line of this proxy's own log. It is written in one piece, but the runtime's are not: one may stand within
// a line of the runtime's.
var sessionLine = regexp.MustCompile(`time=\d{4}-[^\n]*\n`)

// collectionsIn returns those that a log tells of, in their order.
func collectionsIn(log string) (all []collection) {
	for _, found := range traceLine.FindAllStringSubmatch(sessionLine.ReplaceAllLiteralString(log, ""), -1) {
		var n [3]float64
		for i := range n {
			n[i], _ = strconv.ParseFloat(found[i+1], 64) // of digits and a point
		}
		live, _ := strconv.Atoi(found[4])
		all = append(all, collection{
			at: time.Duration(n[0] * float64(time.Second)), pause: time.Duration(max(n[1], n[2]) * float64(time.Millisecond)), live: live,
		})
	}
	return all
}

// between returns those that began within the time.
func between(all []collection, from, to time.Duration) []collection {
	return slices.DeleteFunc(slices.Clone(all), func(c collection) bool { return c.at < from || c.at >= to })
}

const (
	// fewCollections tell nothing.
	fewCollections = 5

	// heapSpare is by how many MB, and heapGrowth by which part, what is in use may grow from the first third to the last: what
	// relays have in hand at a moment differs.
	heapSpare  = 4
	heapGrowth = 4 // a quarter
)

// heapGrows compares what was in use of the heap in the first and in the last third of a time, by the medians. It returns what
// there is to say, and an error where it has grown.
func heapGrows(all []collection, from, to time.Duration) (string, error) {
	third := (to - from) / 3
	first, last := between(all, from, from+third), between(all, to-third, to)
	if len(first) < fewCollections || len(last) < fewCollections {
		return fmt.Sprintf("%d and %d collections in the first and last third: too few to tell whether the heap grows", len(first), len(last)), nil
	}
	before, after := medianLive(first), medianLive(last)
	text := fmt.Sprintf("heap in use: %d MB in the first third, %d MB in the last; longest pause %v", before, after, longestPause(between(all, from, to)))
	if after > before+before/heapGrowth+heapSpare {
		return text, fmt.Errorf("the heap has grown: %s", text)
	}
	return text, nil
}

func medianLive(some []collection) int {
	live := make([]int, 0, len(some))
	for _, c := range some {
		live = append(live, c.live)
	}
	slices.Sort(live)
	return live[len(live)/2]
}

func medianPause(some []collection) time.Duration {
	pauses := make([]time.Duration, 0, len(some))
	for _, c := range some {
		pauses = append(pauses, c.pause)
	}
	slices.Sort(pauses)
	return pauses[len(pauses)/2]
}

func longestPause(some []collection) (longest time.Duration) {
	for _, c := range some {
		longest = max(longest, c.pause)
	}
	return longest
}

// traced returns an environment in which the runtime tells of its collections.
func traced(environment []string) []string {
	i := slices.IndexFunc(environment, func(v string) bool { return strings.HasPrefix(v, "GODEBUG=") })
	if i < 0 {
		return append(environment, "GODEBUG=gctrace=1")
	}
	environment = slices.Clone(environment)
	environment[i] += ",gctrace=1"
	return environment
}
