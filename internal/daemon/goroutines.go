package daemon

import (
	"cmp"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// mostStacks bounds how many stacks one request writes.
const mostStacks = 1000

// stack is where goroutines are, from the innermost call on.
type stack struct {
	calls string
	count int
}

// LogGoroutines writes what every goroutine is doing to the log: those that are at
// the same place on one line. There are places in it and nothing else: what
// functions were called with (passwords, users, targets) is not.
func (d *Daemon) LogGoroutines() {
	all := stacks()
	total := 0
	for _, one := range all {
		total += one.count
	}
	d.log.Info("goroutines", "total", total, "places", len(all))
	for i, one := range all {
		if i == mostStacks {
			d.log.Info("goroutines: the other places are left out", "places", len(all)-i)
			break
		}
		d.log.Info("goroutines", "count", one.count, "at", one.calls)
	}
}

// stacks are all that there are now, the most frequent first.
func stacks() []stack {
	records := make([]runtime.StackRecord, runtime.NumGoroutine()+64)
	for {
		n, whole := runtime.GoroutineProfile(records)
		if whole {
			records = records[:n]
			break
		}
		records = make([]runtime.StackRecord, n+n/4+64) // more have come meanwhile
	}
	counts := map[[32]uintptr]int{}
	for _, r := range records {
		counts[r.Stack0]++
	}
	var all []stack
	for at, count := range counts {
		r := runtime.StackRecord{Stack0: at}
		all = append(all, stack{calls: calls(r.Stack()), count: count})
	}
	slices.SortFunc(all, func(a, b stack) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.calls, b.calls))
	})
	return all
}

// calls writes the functions of a stack: "(*Server).acceptAll accept.go:30 < ...".
func calls(at []uintptr) string {
	var b strings.Builder
	frames := runtime.CallersFrames(at)
	for {
		frame, more := frames.Next()
		if b.Len() > 0 {
			b.WriteString(" < ")
		}
		name := frame.Function[strings.LastIndexByte(frame.Function, '/')+1:]
		fmt.Fprintf(&b, "%s %s:%d", name, filepath.Base(frame.File), frame.Line)
		if !more {
			return b.String()
		}
	}
}
