package limits

import (
	"math/rand/v2"
	"testing"
	"time"
)

func zone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		tb.Fatal(err)
	}
	return z
}

const (
	berlin  = "Europe/Berlin"
	newYork = "America/New_York"
	beirut  = "Asia/Beirut"      // clocks are put forward at midnight: some days begin at 1:00
	johns   = "America/St_Johns" // until 2011 they were put back at 0:01: some dates come twice
	howe    = "Australia/Lord_Howe"
	apia    = "Pacific/Apia" // had no 30th of December in 2011
)

var everyDay = Every{Unit: Day}

// windows are where windows begin and end, above all where clocks and calendars do odd
// things.
var windows = []struct {
	name             string
	every            Every
	zone             string
	at, from, before string
}{
	{"a day", everyDay, "UTC", "2026-11-25T22:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"},
	{"its first moment", everyDay, "UTC", "2026-11-25T00:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"},
	{"its last one", everyDay, "UTC", "2026-11-25T23:59:59.999999999Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"},
	{"a day of a zone", everyDay, berlin, "2026-11-25T23:30:00Z", "2026-11-26T00:00:00+01:00", "2026-11-27T00:00:00+01:00"},
	{"a day of 23 hours", everyDay, berlin, "2026-03-29T12:00:00+02:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
	{"a day of 25 hours", everyDay, berlin, "2026-10-25T02:30:00+01:00", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"},
	{"a day without midnight", everyDay, beirut, "2026-03-29T01:00:00+03:00", "2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"},
	{"the day before it", everyDay, beirut, "2026-03-28T23:59:59+02:00", "2026-03-28T00:00:00+02:00", "2026-03-29T01:00:00+03:00"},
	{"clocks are put back over midnight", everyDay, johns, "2010-11-07T00:00:30-02:30", "2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30"},
	{"the date before is shown again", everyDay, johns, "2010-11-06T23:30:00-03:30", "2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30"},
	{"a date that never was", everyDay, apia, "2011-12-31T00:00:00+14:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"},
	{"the day before it", everyDay, apia, "2011-12-29T23:59:59-10:00", "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"},
	{"a leap day", everyDay, "UTC", "2028-02-29T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"},
	{"the last day of a leap year", everyDay, berlin, "2040-12-31T12:00:00+01:00", "2040-12-31T00:00:00+01:00", "2041-01-01T00:00:00+01:00"},
	{"before 1970", everyDay, "UTC", "1969-12-31T12:00:00Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"},

	{"an hour", Every{Unit: Hour}, "UTC", "2026-11-25T22:10:00Z", "2026-11-25T22:00:00Z", "2026-11-25T23:00:00Z"},
	{"an hour of half a zone", Every{Unit: Hour}, "Asia/Kolkata", "2026-11-25T22:10:00Z", "2026-11-25T21:30:00Z", "2026-11-25T22:30:00Z"},
	{"before an hour is skipped", Every{Unit: Hour}, berlin, "2026-03-29T01:30:00+01:00", "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"},
	{"an hour that is repeated", Every{Unit: Hour}, berlin, "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"},
	{"and again", Every{Unit: Hour}, berlin, "2026-10-25T02:30:00+01:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"},
	{"an hour over new year in UTC", Every{Unit: Hour}, johns, "2026-12-31T20:10:00-03:30", "2026-12-31T20:00:00-03:30", "2026-12-31T21:00:00-03:30"},
	{"half an hour is put back", Every{Unit: Hour}, howe, "2026-04-05T01:45:00+11:00", "2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30"},
	{"the rest of the hour", Every{Unit: Hour}, howe, "2026-04-05T01:45:00+10:30", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"},

	{"a week begins on Monday", Every{Unit: Week, Weekday: time.Monday}, "UTC", "2026-11-25T22:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
	{"on Sunday", Every{Unit: Week}, "UTC", "2026-11-25T22:00:00Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"},
	{"on its first day", Every{Unit: Week, Weekday: time.Wednesday}, "UTC", "2026-11-25T00:00:00Z", "2026-11-25T00:00:00Z", "2026-12-02T00:00:00Z"},
	{"on its last day", Every{Unit: Week, Weekday: time.Thursday}, "UTC", "2026-11-25T22:00:00Z", "2026-11-19T00:00:00Z", "2026-11-26T00:00:00Z"},
	{"a week over a change of clocks", Every{Unit: Week, Weekday: time.Monday}, newYork, "2026-11-01T12:00:00-05:00", "2026-10-26T00:00:00-04:00", "2026-11-02T00:00:00-05:00"},
	{"a week over new year", Every{Unit: Week, Weekday: time.Monday}, "UTC", "2027-01-01T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"},

	{"a month", Every{Unit: Month}, "UTC", "2026-11-25T22:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"},
	{"December", Every{Unit: Month}, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
	{"from the 15th, before it", Every{Unit: Month, Date: 15}, "UTC", "2026-11-14T23:00:00Z", "2026-10-15T00:00:00Z", "2026-11-15T00:00:00Z"},
	{"from the 15th, after it", Every{Unit: Month, Date: 15}, "UTC", "2026-11-15T00:00:00Z", "2026-11-15T00:00:00Z", "2026-12-15T00:00:00Z"},
	{"from the 31st, in a short month", Every{Unit: Month, Date: 31}, "UTC", "2026-11-30T12:00:00Z", "2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"},
	{"from the 31st, February", Every{Unit: Month, Date: 31}, "UTC", "2026-02-27T12:00:00Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"},
	{"from the 29th, a leap year", Every{Unit: Month, Date: 29}, "UTC", "2028-02-29T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-29T00:00:00Z"},
	{"from the 29th, no leap year", Every{Unit: Month, Date: 29}, "UTC", "2027-02-28T12:00:00Z", "2027-02-28T00:00:00Z", "2027-03-29T00:00:00Z"},
	{"from the 30th, January", Every{Unit: Month, Date: 30}, "UTC", "2026-01-15T12:00:00Z", "2025-12-30T00:00:00Z", "2026-01-30T00:00:00Z"},
	{"a month over a change of clocks", Every{Unit: Month}, berlin, "2026-10-31T12:00:00+01:00", "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00"},

	{"30 days", Every{Days: 30}, "UTC", "1970-01-30T23:00:00Z", "1970-01-01T00:00:00Z", "1970-01-31T00:00:00Z"},
	{"30 days from a date", Every{Days: 30, Anchor: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}, "UTC", "2026-11-25T22:00:00Z", "2026-11-20T00:00:00Z", "2026-12-20T00:00:00Z"},
	{"before that date", Every{Days: 30, Anchor: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}, "UTC", "2026-11-19T22:00:00Z", "2026-10-21T00:00:00Z", "2026-11-20T00:00:00Z"},
	{"10 days over a change of clocks", Every{Days: 10, Anchor: time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)}, berlin, "2026-10-26T22:00:00Z", "2026-10-20T00:00:00+02:00", "2026-10-30T00:00:00+01:00"},

	{"a slot of a rolling hour", Every{Unit: Hour, Rolling: true}, "UTC", "2026-11-25T22:10:59Z", "2026-11-25T22:10:00Z", "2026-11-25T22:11:00Z"},
	{"of a rolling day", Every{Unit: Day, Rolling: true}, "UTC", "2026-11-25T22:10:59Z", "2026-11-25T22:00:00Z", "2026-11-25T22:24:00Z"},
	{"of 30 rolling days", Every{Days: 30, Rolling: true}, "UTC", "2026-11-25T22:10:59Z", "2026-11-25T12:00:00Z", "2026-11-26T00:00:00Z"},
	{"clocks are nothing to it", Every{Unit: Day, Rolling: true}, berlin, "2026-10-25T02:30:00+01:00", "2026-10-25T01:12:00Z", "2026-10-25T01:36:00Z"},
}

func TestWindows(t *testing.T) {
	for _, test := range windows {
		t.Run(test.name, func(t *testing.T) {
			test.every.Zone = zone(t, test.zone)
			from, until := test.every.slot(moment(t, test.at))
			if !from.Equal(moment(t, test.from)) || !until.Equal(moment(t, test.before)) {
				t.Errorf("at %s the window is %s to %s, want %s to %s", test.at, from.In(test.every.Zone).Format(time.RFC3339), until.In(test.every.Zone).Format(time.RFC3339), test.from, test.before)
			}
		})
	}
}

func moment(tb testing.TB, text string) time.Time {
	tb.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		tb.Fatal(err)
	}
	return at
}

// TestWindowsMeet: each moment is in one window, whatever the calendar: windows hold
// what they are asked for, and one ends where the next begins.
func TestWindowsMeet(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Beirut", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "Asia/Kathmandu", "Africa/Casablanca"}
	loaded := make(map[string]*time.Location)
	for _, name := range zones {
		loaded[name] = zone(t, name)
	}
	random := rand.New(rand.NewPCG(6, 4))
	for range 20_000 {
		e := Every{Zone: loaded[zones[random.IntN(len(zones))]], Rolling: random.IntN(4) == 0}
		switch random.IntN(5) {
		case 0:
			e.Unit = Hour
		case 1:
			e.Unit = Day
		case 2:
			e.Unit, e.Weekday = Week, time.Weekday(random.IntN(7))
		case 3:
			e.Unit, e.Date, e.Rolling = Month, random.IntN(32), false
		case 4:
			e.Days, e.Anchor = 1+random.IntN(366), time.Unix(random.Int64N(2e9), 0)
		}
		at := time.Unix(random.Int64N(3e9)-5e8, random.Int64N(1e9))
		from, until := e.slot(at)
		if at.Before(from) || !at.Before(until) {
			t.Fatalf("%+v at %s: a window from %s to %s", e, at.UTC(), from.UTC(), until.UTC())
		}
		for _, same := range []time.Time{from, until.Add(-1)} {
			if f, u := e.slot(same); !f.Equal(from) || !u.Equal(until) {
				t.Fatalf("%+v: at %s the window is %s to %s, at %s %s to %s", e, at.UTC(), from.UTC(), until.UTC(), same.UTC(), f.UTC(), u.UTC())
			}
		}
		if next, _ := e.slot(until); !next.Equal(until) {
			t.Fatalf("%+v: a window ends at %s, and the next begins at %s", e, until.UTC(), next.UTC())
		}
		if _, last := e.slot(from.Add(-1)); !last.Equal(from) {
			t.Fatalf("%+v: a window begins at %s, and the one before ends at %s", e, from.UTC(), last.UTC())
		}
	}
}
