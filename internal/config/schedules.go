package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones exist on every machine
)

const minutesOfDay = 24 * 60

// decodeSchedules fills in s.Schedules.
func (d *decoder) decodeSchedules(n *node) {
	d.namedEntries(n, d.schedule)
}

// schedule decodes one entry of `schedules`: a mapping, or a list of them that
// share a zone.
func (d *decoder) schedule(key *node, name string, n *node) {
	if name == "" {
		d.fail(key, "a schedule without a name", "")
	}
	if n.kind == list && len(n.items) == 0 {
		d.fail(n, "the schedule is empty: it would never hold", scheduleHint)
	}
	var s Schedule
	var zone *node
	d.eachOrNone(n, func(item *node) {
		var in *node
		s.Spans = append(s.Spans, d.spans(item, &in)...)
		switch {
		case in == nil:
		case zone == nil:
			zone = in
			s.Zone = d.zone(in)
		case zone.text != in.text:
			d.fail(in, "a schedule goes by one zone", "the other one is in "+placeFrom(in, zone)+"; make two schedules, and two rules")
		}
	})
	if s.Zone == nil {
		s.Zone = time.Local
	}
	d.settings.Schedules[name] = s
}

const scheduleHint = "write `{days: mon-fri, hours: 09:00-18:00}`"

// spans decodes days with their hours; without days it is all of them, and
// without hours the whole day. It leaves in zone where that is written.
func (d *decoder) spans(n *node, zone **node) []Span {
	if n.kind != mapping {
		d.fail(n, "expected keys with values, found "+n.describe(), scheduleHint)
		return nil
	}
	days := [7]bool{true, true, true, true, true, true, true}
	list := []Span{{To: minutesOfDay}}
	d.mapping(n, fields{
		"days":  func(v *node) { days = d.days(v) },
		"hours": func(v *node) { list = d.hours(v) },
		"zone":  func(v *node) { *zone = v },
	})
	if !n.has("days") && !n.has("hours") {
		d.fail(n, "the schedule says neither days nor hours", scheduleHint)
	}
	for i := range list {
		list[i].Days = days
	}
	return list
}

// dayNames are the days by time.Weekday.
func dayNames() []string {
	return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
}

// dayWords stand for several days.
func dayWords() map[string][7]bool {
	return map[string][7]bool{
		"daily":    {true, true, true, true, true, true, true},
		"weekdays": {false, true, true, true, true, true, false},
		"weekends": {true, false, false, false, false, false, true},
	}
}

const daysHint = "write mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or one of daily, weekdays, weekends"

// days returns n as days of the week.
func (d *decoder) days(n *node) [7]bool {
	var days [7]bool
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		some, m := parseDays(text)
		d.take(item, m)
		for i := range some {
			days[i] = days[i] || some[i]
		}
	})
	return days
}

// parseDays takes a day, a range of them, or a word.
func parseDays(text string) ([7]bool, *mistake) {
	days, ok := daysOf(text)
	if !ok {
		return days, notDays(text)
	}
	return days, nil
}

func daysOf(text string) (days [7]bool, ok bool) {
	if some, ok := dayWords()[text]; ok {
		return some, true
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, to := slices.Index(dayNames(), first), slices.Index(dayNames(), last)
	if from < 0 || to < 0 {
		return days, false
	}
	for i := from; i != to; i = (i + 1) % 7 { // fri-mon goes round
		days[i] = true
	}
	days[to] = true
	return days, true
}

// notDays words why text is no days.
func notDays(text string) *mistake {
	m := &mistake{quote(text) + " is not a day of the week", daysHint}
	if strings.Contains(text, ",") {
		m.hint = "write a list: [" + strings.ReplaceAll(strings.ReplaceAll(text, " ", ""), ",", ", ") + "]"
		return m
	}
	known := []string{"daily", "weekdays", "weekends"}
	for _, name := range []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"} {
		known = append(known, name, name[:3])
	}
	var meant []string
	for part := range strings.SplitSeq(text, "-") {
		near := nearest(strings.TrimSpace(part), known)
		if near == "" {
			return m
		}
		if strings.HasSuffix(near, "day") {
			near = near[:3]
		}
		meant = append(meant, near)
	}
	if _, ok := daysOf(strings.Join(meant, "-")); ok {
		m.hint = "did you mean " + quote(strings.Join(meant, "-")) + "?"
	}
	return m
}

// hours returns n as parts of a day, without days.
func (d *decoder) hours(n *node) []Span {
	var list []Span
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		span, m := parseHours(text)
		if d.take(item, m) {
			list = append(list, span)
		}
	})
	return list
}

// parseHours takes a part of a day, such as 09:00-18:00, or 22:00-06:00 for one
// that ends on the next day.
func parseHours(text string) (Span, *mistake) {
	bad := &mistake{quote(text) + " is not a span of hours", "write 09:00-18:00, or 22:00-06:00 for one that ends on the next day"}
	first, last, ok := strings.Cut(text, "-")
	from, okFrom := parseClock(first)
	to, okTo := parseClock(last)
	switch {
	case !ok || !okFrom || !okTo:
		return Span{}, bad
	case from == minutesOfDay:
		return Span{}, &mistake{"a span cannot begin at 24:00", "write 00:00, and the next day"}
	case from == to:
		return Span{}, &mistake{"the span " + text + " ends where it begins", "write 00:00-24:00 for the whole day"}
	}
	return Span{From: from, To: to}, nil
}

// parseClock returns HH:MM, up to 24:00, in minutes.
func parseClock(text string) (int, bool) {
	if len(text) != len("09:00") || text[2] != ':' {
		return 0, false
	}
	hours, err1 := strconv.ParseUint(text[:2], 10, 8)
	minutes, err2 := strconv.ParseUint(text[3:], 10, 8)
	all := int(hours)*60 + int(minutes)
	return all, err1 == nil && err2 == nil && minutes < 60 && all <= minutesOfDay
}

// zone returns n as a time zone; nil for a fault.
func (d *decoder) zone(n *node) *time.Location {
	text, ok := d.text(n)
	if !ok {
		return nil
	}
	zone, known := d.zones[text]
	if !known && text != "Local" {
		zone, _ = time.LoadLocation(text)
		d.zones[text] = zone
	}
	if zone == nil {
		d.fail(n, quote(text)+" is not a time zone", "write its name in the IANA database, such as Europe/Berlin or UTC; leave it out for this machine's own")
		return nil
	}
	return zone
}

// scheduleName returns n as the name of a schedule.
func (d *decoder) scheduleName(n *node) string {
	if n.kind == list {
		d.fail(n, "expected the name of a schedule, found a list", "a schedule may have several spans: `[{days: mon-fri, hours: 09:00-18:00}, {days: sat}]`")
		return ""
	}
	name, ok := d.text(n)
	if ok {
		d.scheduleRefs = append(d.scheduleRefs, n)
	}
	return name
}
