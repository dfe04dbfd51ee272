package limits

import "time"

// Unit is a part of the calendar after which a quota begins anew. The words are those
// of the settings.
type Unit string

// The units.
const (
	Hour  Unit = "hour"
	Day   Unit = "day"
	Week  Unit = "week"
	Month Unit = "month"
)

// Every says when a quota begins anew: with each unit of the calendar, or after so
// many days, by the clocks of a zone; or never (the zero value). What is counted
// goes by *slots*: parts of time that follow each other without a gap. Most often
// the slot is the whole window; a rolling one has slotsOf of them.
type Every struct {
	Unit    Unit           // empty: Days, or never
	Days    int            // so many days, where there is no unit
	Weekday time.Weekday   // of Week: on which it begins
	Date    int            // of Month: on which day, 1 to 31; in a shorter month on its last. 0: the first
	Anchor  time.Time      // of Days: a date (of UTC) on which one begins; zero: 1970-01-01
	Rolling bool           // what was used counts for as long as the period is, and no longer. Not of Month
	Zone    *time.Location // nil: UTC. Of no meaning to what is rolling
}

// slotsOf is into how many slots a rolling window is divided. What was used counts
// until its whole slot has left the window, for a sixtieth too long at the most.
const slotsOf = 60

const daySeconds = 24 * 60 * 60

// never reports whether there is just one window, for ever.
func (e Every) never() bool { return e.Unit == "" && e.Days == 0 }

// slot returns the slot that holds t, up to its end, which it does not hold; of never
// the zero times.
func (e Every) slot(t time.Time) (from, until time.Time) {
	switch {
	case e.never():
		return time.Time{}, time.Time{}
	case e.Rolling:
		from = time.Unix(floor(t.Unix(), e.slotSeconds())*e.slotSeconds(), 0)
		return from, from.Add(time.Duration(e.slotSeconds()) * time.Second)
	case e.Unit == Hour:
		return e.hour(t)
	}
	local := t.In(e.zone())
	_, offset := local.Zone()
	// The clock may show a date twice, where it is put back over midnight: a window
	// begins when its date comes first, and does not come again.
	n := e.number(floor(t.Unix()+int64(offset), daySeconds))
	for !e.begins(n + 1).After(t) {
		n++
	}
	return e.begins(n), e.begins(n + 1)
}

// since returns the beginning of the oldest slot that still counts while the one
// that begins at from lasts.
func (e Every) since(from time.Time) time.Time {
	if e.Rolling {
		return from.Add(-slotsOf * time.Duration(e.slotSeconds()) * time.Second)
	}
	return from
}

// counts returns until when a slot counts.
func (e Every) counts(until time.Time) time.Time {
	if e.Rolling {
		return until.Add(slotsOf * time.Duration(e.slotSeconds()) * time.Second)
	}
	return until
}

// slotSeconds is how long a slot of a rolling window is.
func (e Every) slotSeconds() int64 {
	switch e.Unit {
	case Hour:
		return 3600 / slotsOf
	case Day:
		return daySeconds / slotsOf
	case Week:
		return 7 * daySeconds / slotsOf
	}
	return int64(e.Days) * daySeconds / slotsOf
}

func (e Every) zone() *time.Location {
	if e.Zone == nil {
		return time.UTC
	}
	return e.Zone
}

// hour returns the hour on the clock. One that is repeated comes twice, and where
// clocks are changed within an hour it is cut there.
func (e Every) hour(t time.Time) (from, until time.Time) {
	local := t.In(e.zone())
	_, offset := local.Zone()
	from = time.Unix(floor(t.Unix()+int64(offset), 3600)*3600-int64(offset), 0)
	until = from.Add(time.Hour)
	if !shows(from, offset, local) {
		from, _ = local.ZoneBounds()
	}
	if !shows(until.Add(-1), offset, local) {
		until = nextChange(local)
	}
	return from, until
}

// shows reports whether at t the clock goes by the offset, in the zone of another time.
func shows(t time.Time, offset int, as time.Time) bool {
	_, now := t.In(as.Location()).Zone()
	return now == offset
}

// nextChange returns when the zone's clock may be changed next; zero: never. The
// standard library's answer is in the past on the last day of a leap year.
func nextChange(t time.Time) time.Time {
	_, end := t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		return t.Add(daySeconds * time.Second)
	}
	return end
}

// number returns which window begins last, at or before a day; days are counted
// from 1970-01-01.
func (e Every) number(day int64) int64 {
	switch e.Unit {
	case Day:
		return day
	case Week:
		return floor(day-e.firstWeek(), 7)
	case Month:
		d := date(day)
		n := int64(d.Year()-1970)*12 + int64(d.Month()) - 1
		if e.month(n) > day {
			n--
		}
		return n
	}
	return floor(day-e.anchor(), int64(e.Days))
}

// begins returns when a window begins: as soon as the clock shows its date.
func (e Every) begins(n int64) time.Time {
	var day int64
	switch e.Unit {
	case Day:
		day = n
	case Week:
		day = 7*n + e.firstWeek()
	case Month:
		day = e.month(n)
	default:
		day = e.anchor() + n*int64(e.Days)
	}
	return midnight(day, e.zone())
}

// firstWeek is the first day after 1970-01-01, a Thursday, on which a week begins.
func (e Every) firstWeek() int64 { return int64(e.Weekday-time.Thursday+7) % 7 }

func (e Every) anchor() int64 {
	if e.Anchor.IsZero() {
		return 0
	}
	return floor(e.Anchor.Unix(), daySeconds)
}

// month returns the day on which the window of a month begins; months are counted
// from January 1970.
func (e Every) month(n int64) int64 {
	first := time.Date(1970, time.Month(n+1), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1)
	return floor(first.Unix(), daySeconds) + int64(min(max(e.Date, 1), last.Day())-1)
}

// midnight returns the first moment at which the clocks of a zone show the day, or,
// where they leave midnight out, what comes after it.
func midnight(day int64, zone *time.Location) time.Time {
	wanted := day * daySeconds                      // on the clock, as if it were UTC
	t := time.Unix(wanted-2*daySeconds, 0).In(zone) // surely before it
	for {
		_, offset := t.Zone()
		change := nextChange(t)
		comes := time.Unix(wanted-int64(offset), 0).In(zone)
		if comes.Before(t) {
			comes = t
		}
		if change.IsZero() || comes.Before(change) {
			return comes
		}
		t = change.In(zone)
	}
}

func date(day int64) time.Time { return time.Unix(day*daySeconds, 0).UTC() }

// floor divides, and rounds down.
func floor(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}
