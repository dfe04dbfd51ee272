package access

import (
	"cmp"
	"slices"
	"time"
)

// Schedule says when something is open, week by week. It goes by the clock on
// the wall of its zone: a moment is in the schedule if what that clock shows, the
// day of the week and the time, lies in a span. So where clocks are put forward,
// what lies in the hour that is skipped never comes; where they are put back,
// what lies in the hour that is repeated comes twice. A span across midnight
// goes on in the early hours of the weekday that follows, even where the calendar
// left a day out.
//
// Nil is always open. A Schedule is not changed once it is made; safe for
// concurrent use.
type Schedule struct {
	open []stretch // sorted, none touches the next; within one week
	zone *time.Location
}

// Span is a time of the day on some days of the week.
type Span struct {
	Days [7]bool // by time.Weekday: the days on which it begins
	From int     // the minute of the day at which it begins, 0 to 1439
	To   int     // the minute before which it ends, 0 to 1440; where it is not after From, of the next day
}

// stretch is a part of the week in seconds from Sunday 0:00, without its end.
type stretch struct{ from, to int64 }

const (
	minute = int64(60)
	day    = 24 * 60 * minute
	week   = 7 * day
)

// NewSchedule returns the schedule that is open in each of the spans and closed
// between them. A span whose minutes are out of bounds is never open. A nil zone
// is UTC.
func NewSchedule(spans []Span, zone *time.Location) *Schedule {
	if zone == nil {
		zone = time.UTC
	}
	var all []stretch
	for _, s := range spans {
		all = append(all, s.stretches()...)
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
	var open []stretch
	for _, s := range all {
		if last := len(open) - 1; last >= 0 && s.from <= open[last].to {
			open[last].to = max(open[last].to, s.to)
			continue
		}
		open = append(open, s)
	}
	return &Schedule{open, zone}
}

// stretches cuts a span where the week ends.
func (s Span) stretches() (all []stretch) {
	if s.From < 0 || s.From >= 24*60 || s.To < 0 || s.To > 24*60 {
		return nil
	}
	lasts := int64(s.To-s.From) * minute
	if lasts <= 0 {
		lasts += day
	}
	for weekday, begins := range s.Days {
		if !begins {
			continue
		}
		from := int64(weekday)*day + int64(s.From)*minute
		all = append(all, stretch{from, min(from+lasts, week)})
		if over := from + lasts - week; over > 0 {
			all = append(all, stretch{0, over})
		}
	}
	return all
}

// Contains reports whether the schedule is open at t.
func (s *Schedule) Contains(t time.Time) bool {
	if s == nil {
		return true
	}
	_, open := s.left(t.In(s.zone))
	return open
}

// Until returns the end of the time that holds t, the first moment at which the
// schedule is closed again: t itself where it is closed at t, the zero time
// where it never closes.
func (s *Schedule) Until(t time.Time) time.Time {
	if s == nil {
		return time.Time{}
	}
	t = t.In(s.zone)
	for { // each turn passes a change of the zone's clock, which come a few times a year; a week holds an end
		left, open := s.left(t)
		switch {
		case !open:
			return t
		case left == week:
			return time.Time{}
		}
		end := time.Unix(t.Unix()+left, 0).In(s.zone)
		_, change := t.ZoneBounds()
		if !change.IsZero() && !change.After(t) { // the standard library's fault, on the last day of a leap year
			change = t.Add(time.Duration(day) * time.Second)
		}
		if change.IsZero() || end.Before(change) {
			return end
		}
		t = change
	}
}

// left returns for how many seconds the schedule stays open after t, whose
// fraction of a second does not count, as long as the zone's clock is not
// changed. It is a week where the schedule never closes.
func (s *Schedule) left(t time.Time) (seconds int64, open bool) {
	_, offset := t.Zone()
	// The Unix time began on a Thursday.
	now := ((t.Unix()+int64(offset)+4*day)%week + week) % week
	for _, o := range s.open {
		switch {
		case now < o.from || now >= o.to:
			continue
		case o.to == week && s.open[0].from == 0:
			return min(o.to-now+s.open[0].to, week), true // on into the next week
		}
		return o.to - now, true
	}
	return 0, false
}
