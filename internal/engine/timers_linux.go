package engine

import (
	"container/heap"
	"time"
)

// Timer is a time at which a record is called ([Record.Expired]). It is a part of the record; the zero value is not set. A timer
// may be set again and again: who only wants to notice silence sets it once, and when it comes, for what is left.
type Timer struct{ place int32 } // in the heap, counted from 1; 0: it is not set

// timers are those of a loop that are set: a heap, the next one first. It is exact, which rates want, and costs a few
// comparisons a change; those that matter do not change often.
type timers []alarm

type alarm struct {
	at     time.Duration
	timer  *Timer
	record Record
}

// Set has r.Expired called at a time of the loop's clock ([Loop.Now]), in the place of the time that t was set to before.
func (l *Loop) Set(t *Timer, r Record, at time.Duration) {
	if t.place == 0 {
		heap.Push(&l.timers, alarm{at, t, r})
		return
	}
	i := int(t.place - 1)
	if l.timers[i].at != at {
		l.timers[i].at = at
		heap.Fix(&l.timers, i)
	}
}

// Stop makes t not set.
func (l *Loop) Stop(t *Timer) {
	if t.place != 0 {
		heap.Remove(&l.timers, int(t.place-1))
	}
}

// ring calls the record of one timer that has come, and reports whether there was one.
func (l *Loop) ring() bool {
	if l.timers.next() > l.now {
		return false
	}
	r := l.timers[0].record
	l.Stop(l.timers[0].timer)
	defer contain(r)
	r.Expired()
	return true
}

// next returns when the next timer comes.
func (t timers) next() time.Duration {
	if len(t) == 0 {
		return never
	}
	return t[0].at
}

// Len, Less, Swap, Push and Pop are for [container/heap].

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at < t[j].at }

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer.place, t[j].timer.place = int32(i+1), int32(j+1)
}

// Push is given an alarm.
func (t *timers) Push(x any) {
	a, _ := x.(alarm)
	*t = append(*t, a)
	a.timer.place = int32(len(*t))
}

// Pop returns the last one.
func (t *timers) Pop() any {
	last := len(*t) - 1
	a := (*t)[last]
	a.timer.place = 0
	(*t)[last] = alarm{}
	*t = (*t)[:last]
	return a
}
