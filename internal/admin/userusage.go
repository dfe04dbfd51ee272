package admin

import (
	"context"
	"errors"
	"html/template"
	"net/url"
	"time"
)

// usePeriods is what was used in the last periods of one length, as a chart.
type usePeriods struct {
	Title       string // in English
	Chart       template.HTML
	First, Last string // the names of the outer periods
	Most        int64  // bytes of the highest bar
	Sum         Use
	History     string // the page with the same in figures
}

// useOf makes charts of what a user (empty: all) has used, by day and by month; none where
// nothing is kept.
func (d *desk) useOf(ctx context.Context, user string) ([]usePeriods, error) {
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	var all []usePeriods
	for _, p := range []struct {
		by, title, layout string
		count             int
		begins            func(ago int) time.Time
	}{
		{"day", "The last 30 days", time.DateOnly, 30, func(ago int) time.Time { return now.AddDate(0, 0, -ago) }},
		{"month", "The last 12 months", "2006-01", 12, func(ago int) time.Time { return month.AddDate(0, -ago, 0) }},
	} {
		var names []string
		for ago := p.count - 1; ago >= 0; ago-- {
			names = append(names, p.begins(ago).Format(p.layout))
		}
		q := UsageQuery{By: p.by, Since: p.begins(p.count - 1).Format(time.DateOnly), User: user}
		report, err := d.History.Usage(ctx, q)
		if errors.Is(err, ErrNoLedger) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		use := periods(names, report.Lines)
		use.Title = p.title
		use.History = (&url.URL{Path: "/history", RawQuery: url.Values{"by": {q.By}, "since": {q.Since}, "user": {user}}.Encode()}).String()
		all = append(all, use)
	}
	return all, nil
}

// periods draws a bar for each of the names, also where nothing was used.
func periods(names []string, lines []UsageLine) usePeriods {
	used := map[string]Use{}
	for _, l := range lines {
		used[l.Name] = l.Use
	}
	p := usePeriods{First: names[0], Last: names[len(names)-1]}
	var pairs [][2]float64
	for _, name := range names {
		u := used[name]
		pairs = append(pairs, [2]float64{float64(u.Down), float64(u.Up)})
		p.Most = max(p.Most, u.Down+u.Up)
		p.Sum.Up, p.Sum.Down = p.Sum.Up+u.Up, p.Sum.Down+u.Down
	}
	p.Chart = bars(len(names), pairs)
	return p
}
