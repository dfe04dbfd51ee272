package access

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every machine
)

// daily is a span of every day.
func daily(from, to int) Span {
	return Span{Days: [7]bool{true, true, true, true, true, true, true}, From: from, To: to}
}

// on is a span of one day of the week.
func on(weekday time.Weekday, from, to int) Span {
	s := Span{From: from, To: to}
	s.Days[weekday] = true
	return s
}

func zoneOf(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// scheduleEdges are moments in UTC around the edges of a schedule, and when it
// closes; "closed" where it is closed at that moment, "never" where it has no end.
var scheduleEdges = []struct {
	name  string
	zone  string
	spans []Span
	until [][2]string
}{
	{"the first and the last moment", "UTC", []Span{on(time.Wednesday, 540, 1080)}, [][2]string{
		{"2026-11-25T08:59:59.999Z", "closed"},
		{"2026-11-25T09:00:00Z", "2026-11-25T18:00:00Z"},
		{"2026-11-25T17:59:59.999Z", "2026-11-25T18:00:00Z"},
		{"2026-11-25T18:00:00Z", "closed"},
		{"2026-11-24T12:00:00Z", "closed"},
	}},
	{"across midnight, and over the end of the week", "UTC", []Span{on(time.Saturday, 1320, 360)}, [][2]string{
		{"2026-11-28T21:59:59Z", "closed"},
		{"2026-11-28T22:00:00Z", "2026-11-29T06:00:00Z"},
		{"2026-11-29T05:59:59Z", "2026-11-29T06:00:00Z"},
		{"2026-11-29T06:00:00Z", "closed"},
		{"2026-11-29T22:00:00Z", "closed"},
	}},
	{"spans that touch, overlap and repeat", "UTC", []Span{on(time.Monday, 600, 700), on(time.Monday, 540, 600), on(time.Monday, 550, 560), on(time.Monday, 540, 600)}, [][2]string{
		{"2026-11-23T09:00:00Z", "2026-11-23T11:40:00Z"},
		{"2026-11-23T11:39:59Z", "2026-11-23T11:40:00Z"},
	}},
	{"whole days", "UTC", []Span{on(time.Saturday, 0, 1440), on(time.Sunday, 0, 0)}, [][2]string{
		{"2026-11-27T23:59:59Z", "closed"},
		{"2026-11-28T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"},
	}},
	{"always", "Europe/Berlin", []Span{daily(0, 1440)}, [][2]string{{"2026-03-29T00:59:59Z", "never"}}},
	{"always, in two spans", "Europe/Berlin", []Span{daily(420, 300), daily(240, 420)}, [][2]string{{"2026-10-25T00:30:00Z", "never"}}},
	{"never", "UTC", nil, [][2]string{{"2026-11-25T12:00:00Z", "closed"}}},
	{"minutes out of bounds", "UTC", []Span{daily(-1, 100), daily(0, 1441), daily(1440, 0), daily(600, -1)}, [][2]string{{"2026-11-25T00:00:00Z", "closed"}, {"2026-11-25T12:00:00Z", "closed"}}},
	{"before 1970", "UTC", []Span{on(time.Wednesday, 1439, 1440)}, [][2]string{
		{"1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"}, {"1969-12-31T23:58:59Z", "closed"}, {"1970-01-01T00:00:00Z", "closed"},
	}},
	// Berlin, 29 March 2026: after 1:59:59 comes 3:00. 25 October: after 2:59:59 comes 2:00 again.
	{"begins in the gap", "Europe/Berlin", []Span{daily(150, 210)}, [][2]string{
		{"2026-03-29T00:59:59Z", "closed"}, {"2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"},
	}},
	{"ends in the gap", "Europe/Berlin", []Span{daily(90, 150)}, [][2]string{
		{"2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"}, {"2026-03-29T01:00:00Z", "closed"},
	}},
	{"lies in the gap", "Europe/Berlin", []Span{daily(130, 170)}, [][2]string{
		{"2026-03-29T00:59:59Z", "closed"}, {"2026-03-29T01:00:00Z", "closed"}, {"2026-03-30T00:10:00Z", "2026-03-30T00:50:00Z"},
	}},
	{"ends where the gap begins", "Europe/Berlin", []Span{daily(60, 120)}, [][2]string{{"2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"}}},
	{"is an hour shorter", "Europe/Berlin", []Span{on(time.Saturday, 1320, 360)}, [][2]string{{"2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"}}},
	{"touches over the gap", "Europe/Berlin", []Span{daily(60, 130), daily(170, 240)}, [][2]string{{"2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z"}}},
	{"lies in what is repeated", "Europe/Berlin", []Span{daily(130, 140)}, [][2]string{
		{"2026-10-25T00:10:00Z", "2026-10-25T00:20:00Z"},
		{"2026-10-25T00:20:00Z", "closed"},
		{"2026-10-25T01:10:00Z", "2026-10-25T01:20:00Z"},
		{"2026-10-25T01:20:00Z", "closed"},
	}},
	{"begins in what is repeated", "Europe/Berlin", []Span{daily(150, 240)}, [][2]string{
		{"2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"}, {"2026-10-25T01:00:00Z", "closed"}, {"2026-10-25T01:30:00Z", "2026-10-25T03:00:00Z"},
	}},
	{"ends in what is repeated", "Europe/Berlin", []Span{daily(60, 150)}, [][2]string{
		{"2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"}, {"2026-10-25T00:30:00Z", "closed"}, {"2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"},
	}},
	{"ends where the repetition does", "Europe/Berlin", []Span{daily(60, 180)}, [][2]string{{"2026-10-24T23:00:00Z", "2026-10-25T02:00:00Z"}}},
	{"is an hour longer", "America/New_York", []Span{on(time.Saturday, 1320, 360)}, [][2]string{{"2026-11-01T02:00:00Z", "2026-11-01T11:00:00Z"}}},
	{"the spring of New York", "America/New_York", []Span{daily(60, 180)}, [][2]string{{"2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z"}}},
	// Lord Howe, 5 April 2026: after 1:59:59 comes 1:30. 4 October: after 1:59:59 comes 2:30.
	{"half an hour back", "Australia/Lord_Howe", []Span{daily(100, 110)}, [][2]string{
		{"2026-04-04T14:40:00Z", "2026-04-04T14:50:00Z"}, {"2026-04-04T15:10:00Z", "2026-04-04T15:20:00Z"},
	}},
	{"half an hour on", "Australia/Lord_Howe", []Span{daily(90, 135)}, [][2]string{{"2026-10-03T15:00:00Z", "2026-10-03T15:30:00Z"}}},
	{"a zone of 5:45", "Asia/Kathmandu", []Span{daily(540, 1080)}, [][2]string{
		{"2026-11-25T03:14:59Z", "closed"}, {"2026-11-25T03:15:00Z", "2026-11-25T12:15:00Z"}, {"2026-11-25T12:15:00Z", "closed"},
	}},
	// Apia left out Friday, 30 December 2011: it went from UTC-10 to UTC+14.
	{"a day that never was", "Pacific/Apia", []Span{on(time.Friday, 0, 1440)}, [][2]string{
		{"2011-12-30T09:59:59Z", "closed"}, {"2011-12-30T10:00:00Z", "closed"},
	}},
	{"into a day that never was", "Pacific/Apia", []Span{on(time.Thursday, 1320, 120)}, [][2]string{{"2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z"}}},
	{"out of a day that never was", "Pacific/Apia", []Span{on(time.Friday, 1320, 120)}, [][2]string{{"2011-12-30T10:00:00Z", "2011-12-30T12:00:00Z"}}},
	// Beirut puts its clocks forward at midnight.
	{"a day without its midnight", "Asia/Beirut", []Span{on(time.Sunday, 0, 120)}, [][2]string{{"2026-03-28T21:59:59Z", "closed"}, {"2026-03-28T22:00:00Z", "2026-03-28T23:00:00Z"}}},
}

func TestScheduleEdges(t *testing.T) {
	for _, test := range scheduleEdges {
		t.Run(test.name, func(t *testing.T) {
			s := NewSchedule(test.spans, zoneOf(t, test.zone))
			for _, edge := range test.until {
				at, err := time.Parse(time.RFC3339Nano, edge[0])
				if err != nil {
					t.Fatal(err)
				}
				got := "closed"
				switch until := s.Until(at); {
				case s.Contains(at) && until.IsZero():
					got = "never"
				case s.Contains(at):
					got = until.UTC().Format(time.RFC3339Nano)
				case !until.Equal(at):
					got = "closed, until " + until.String()
				}
				if got != edge[1] {
					t.Errorf("%s: %s, want %s", edge[0], got, edge[1])
				}
			}
		})
	}
}

// TestScheduleOnTheLastDayOfALeapYear: the standard library says of it that the
// zone's clock was changed in the past, next.
func TestScheduleOnTheLastDayOfALeapYear(t *testing.T) {
	zone := zoneOf(t, "Europe/Berlin")
	s := NewSchedule([]Span{{Days: [7]bool{true, true, true, true, true, true, true}, From: 9 * 60, To: 23 * 60}}, zone)
	want := time.Date(2040, 12, 31, 23, 0, 0, 0, zone)
	if got := s.Until(time.Date(2040, 12, 31, 12, 0, 0, 0, zone)); !got.Equal(want) {
		t.Errorf("closes at %s, want %s", got, want)
	}
}

func TestNoSchedule(t *testing.T) {
	var s *Schedule
	if now := time.Now(); !s.Contains(now) || !s.Until(now).IsZero() {
		t.Error("a rule without hours has an end")
	}
	if at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC); !NewSchedule([]Span{daily(700, 800)}, nil).Contains(at) {
		t.Error("without a zone it is not UTC")
	}
}

// shows is the reference: whether the clock on the wall shows a time of a span.
func shows(spans []Span, t time.Time) bool {
	weekday, now := t.Weekday(), t.Hour()*60+t.Minute()
	for _, s := range spans {
		across := s.To <= s.From
		switch {
		case s.Days[weekday] && now >= s.From && (across || now < s.To), across && s.Days[(weekday+6)%7] && now < s.To:
			return true
		}
	}
	return false
}

func randomSpans(r *rand.Rand) (spans []Span) {
	for range 1 + r.IntN(4) {
		s := Span{From: r.IntN(96) * 15, To: r.IntN(97) * 15}
		for d := range s.Days {
			s.Days[d] = r.IntN(3) > 0
		}
		spans = append(spans, s)
	}
	return spans
}

// TestRandomSchedules goes minute by minute through some days around the changes
// of many clocks.
func TestRandomSchedules(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	r := rand.New(rand.NewPCG(seed, 0))
	changes := []string{
		"2026-03-29T01:00:00Z Europe/Berlin", "2026-10-25T01:00:00Z Europe/Berlin", "2026-03-08T07:00:00Z America/New_York",
		"2026-11-01T06:00:00Z America/New_York", "2026-04-04T15:00:00Z Australia/Lord_Howe", "2026-10-03T15:30:00Z Australia/Lord_Howe",
		"1985-12-31T18:30:00Z Asia/Kathmandu", "2011-12-30T10:00:00Z Pacific/Apia", "2018-11-04T03:00:00Z America/Sao_Paulo",
		"2026-03-28T22:00:00Z Asia/Beirut", "2050-03-27T01:00:00Z Europe/Berlin", "2026-06-01T00:00:00Z UTC",
	}
	for turn := range 60 {
		at, name := changes[turn%len(changes)][:20], changes[turn%len(changes)][21:]
		change, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		zone := zoneOf(t, name)
		spans := randomSpans(r)
		s := NewSchedule(spans, zone)
		const minutes = 11 * 24 * 60 // longer than any span, so that its end is in sight
		first := change.Add(-36 * time.Hour)
		var open []bool
		for m := range minutes {
			open = append(open, shows(spans, first.Add(time.Duration(m)*time.Minute).In(zone)))
		}
		for m := range 3 * 24 * 60 {
			now := first.Add(time.Duration(m)*time.Minute + time.Duration(r.IntN(60))*time.Second)
			want := now
			if open[m] {
				ends := slices.Index(open[m:], false)
				if want = (time.Time{}); ends >= 0 {
					want = first.Add(time.Duration(m+ends) * time.Minute)
				}
			}
			if got := s.Until(now); s.Contains(now) != open[m] || !got.Equal(want) {
				t.Fatalf("%v in %s with %+v: %v until %v, want %v until %v (seed %d)", now, name, spans, s.Contains(now), got, open[m], want, seed)
			}
		}
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add(int64(1774746000), "Europe/Berlin", byte(0x7f), 60, 150, byte(1), 1320, 360)
	f.Add(int64(1325239200), "Pacific/Apia", byte(0x20), 1320, 120, byte(0x10), 0, 1440)
	f.Add(int64(-1), "Australia/Lord_Howe", byte(0x08), 0, 0, byte(0), -1, 1441)
	f.Fuzz(func(t *testing.T, unix int64, name string, days byte, from, to int, moreDays byte, moreFrom, moreTo int) {
		zone, err := time.LoadLocation(name)
		if err != nil || unix < -1<<31 || unix > 1<<33 {
			t.Skip()
		}
		spans := []Span{{From: from, To: to}, {From: moreFrom, To: moreTo}}
		for d := range 7 {
			spans[0].Days[d], spans[1].Days[d] = days&(1<<d) != 0, moreDays&(1<<d) != 0
		}
		s := NewSchedule(spans, zone)
		spans = slices.DeleteFunc(spans, func(s Span) bool { return s.From < 0 || s.From > 1439 || s.To < 0 || s.To > 1440 })
		now := time.Unix(unix, 0).In(zone)
		if s.Contains(now) != shows(spans, now) {
			t.Fatalf("%v: %v", now, s.Contains(now))
		}
		until := s.Until(now)
		switch {
		case !s.Contains(now):
			if !until.Equal(now) {
				t.Fatalf("closed at %v, and until %v", now, until)
			}
		case until.IsZero():
			return
		case !until.After(now), until.Sub(now) > 9*24*time.Hour, s.Contains(until), !s.Contains(until.Add(-time.Nanosecond)):
			t.Fatalf("open at %v until %v", now, until)
		}
	})
}
