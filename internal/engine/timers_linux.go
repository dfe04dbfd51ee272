package engine

import "time"

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

// Set has r.Expired called at a time of the loop's clock ([Loop.Now]), in the place of the time that t was set to before. A sum
// that was too large, and is negative for that, does not come.
func (l *Loop) Set(t *Timer, r Record, at time.Duration) {
	if at < 0 {
		at = never
	}
	if t.place == 0 {
		l.timers = append(l.timers, alarm{})
		l.timers.put(len(l.timers)-1, alarm{at, t, r})
		return
	}
	i := int(t.place - 1)
	if l.timers[i].at != at {
		l.timers.put(i, alarm{at, t, r})
	}
}

// Stop makes t not set.
func (l *Loop) Stop(t *Timer) {
	if t.place == 0 {
		return
	}
	i, last := int(t.place-1), len(l.timers)-1
	t.place = 0
	moved := l.timers[last]
	l.timers[last] = alarm{}
	l.timers = l.timers[:last]
	if i < last {
		l.timers.put(i, moved)
	}
	if room := cap(l.timers); room > fewTimers && last < room/4 {
		l.timers = append(make(timers, 0, room/2), l.timers...)
	}
}

// fewTimers are those whose room is not worth to be given back.
const fewTimers = 256

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

// put gives a its place in the heap, where i is free.
func (t timers) put(i int, a alarm) {
	for i > 0 && a.at < t[(i-1)/2].at {
		t.set(i, t[(i-1)/2])
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child+1 < len(t) && t[child+1].at < t[child].at {
			child++
		}
		if child >= len(t) || a.at <= t[child].at {
			break
		}
		t.set(i, t[child])
		i = child
	}
	t.set(i, a)
}

func (t timers) set(i int, a alarm) {
	t[i] = a
	a.timer.place = int32(i + 1)
}
