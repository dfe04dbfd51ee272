package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	mostQuota     = 1 << 60 // bytes
	mostQuotaTime = 366 * day
)

func directions() words {
	return words{what: "what a quota counts", known: []string{"both", "up", "down"}}
}

// ofQuotas are the keys that stand only with a quota.
func ofQuotas() []string {
	return []string{"counts", "every", "begins", "rolling", "zone", "then", "warn"}
}

// checkQuota looks at what belongs to a quota, and fills in when its periods begin.
func (d *decoder) checkQuota(n *node, l *Limit, begins *node) {
	if !n.has("quota") {
		for _, key := range ofQuotas() {
			if n.has(key) {
				d.fail(n.value(key), "`"+key+"` belongs to a quota", "leave it out")
			}
		}
		return
	}
	hasEvery := n.has("every")
	switch {
	case l.QuotaTime > 0 && n.has("counts"):
		d.fail(n.value("counts"), "a quota of time counts neither up nor down", "leave it out")
	case !hasEvery && (begins != nil || n.has("rolling") || n.has("zone")):
		d.fail(n, "the quota has no periods that could begin", "leave `begins`, `rolling` and `zone` out")
	case l.Every.Rolling && l.Every.Unit == "month":
		d.fail(n.value("rolling"), "months are not as long as each other", "write `every: 30d`")
	case l.Every.Rolling && (begins != nil || n.has("zone")):
		d.fail(n.value("rolling"), "what is rolling begins nowhere, in no zone", "leave `begins` and `zone` out")
	case begins != nil:
		d.begins(begins, &l.Every)
	case l.Every.Unit == "week" && !l.Every.Rolling:
		l.Every.Weekday = time.Monday
	}
}

// quota returns n in bytes, or as a time; 0 and 0 for a fault.
func (d *decoder) quota(n *node) (bytes int64, online time.Duration) {
	if n.kind == scalar && isTime(n.text) {
		online, _ = d.span(n, bounds{time.Minute, mostQuotaTime, "from 1m to 366d"})
		return 0, online
	}
	value, m := d.amount(n, byteUnits(), "a size", "5 GiB")
	switch {
	case m != nil:
	case value < 1:
		m = &mistake{quote(n.text) + " is less than a byte", "a quota of nothing is a rule that denies"}
	case value > mostQuota:
		m = &mistake{quote(n.text) + " is too much", "at most 1048576 TiB"}
	}
	if !d.take(n, m) {
		return 0, 0
	}
	return int64(value), 0
}

// isTime reports whether text is written as times are.
func isTime(text string) bool {
	return strings.ContainsAny(text, "dhms") && strings.Trim(text, "0123456789.dhms") == ""
}

// ParseQuota reads how much, or for how long, as a person writes it to `sallyport
// usage grant`.
func ParseQuota(text string) (bytes int64, online time.Duration, err error) {
	if isTime(text) {
		online, ok := ParseDuration(text)
		if !ok || online < time.Second || online > mostQuotaTime {
			return 0, 0, fmt.Errorf("%q is no time from 1s to 366d", text)
		}
		return 0, online, nil
	}
	value, m := parseAmount(text, byteUnits(), "a size", "5 GiB")
	switch {
	case m != nil:
		return 0, 0, m.error()
	case value < 1 || value > mostQuota:
		return 0, 0, fmt.Errorf("%q is out of bounds: from 1 B to 1048576 TiB", text)
	}
	return int64(value), 0, nil
}

// ParseRate reads a rate, in bits a second, likewise.
func ParseRate(text string) (int64, error) {
	value, m := parseRate(text)
	if m != nil {
		return 0, m.error()
	}
	return int64(value), nil
}

func (m *mistake) error() error {
	if m.hint == "" {
		return errors.New(m.problem)
	}
	return fmt.Errorf("%s; %s", m.problem, m.hint)
}

// burst returns n in bytes; 0 for a fault.
func (d *decoder) burst(n *node) int64 {
	value, m := d.amount(n, byteUnits(), "a size", "2 MiB")
	if m == nil && (value < 1 || value > mostBurst) {
		m = &mistake{quote(n.text) + " is out of bounds", "from 1 B to 1 TiB"}
	}
	if !d.take(n, m) {
		return 0
	}
	return int64(value)
}

func periods() words {
	return words{what: "a period", known: []string{"hour", "day", "week", "month"}}
}

// period returns n as a unit of the calendar, or as days.
func (d *decoder) period(n *node) (unit string, days int) {
	const most = 366
	if number, isDays := strings.CutSuffix(n.text, "d"); isDays && n.kind == scalar {
		days, err := strconv.Atoi(number)
		if err == nil && days >= 1 && days <= most && strconv.Itoa(days) == number {
			return "", days
		}
		if err == nil {
			d.fail(n, quote(n.text)+" is not a period", "write 1d to 366d")
			return "", 0
		}
	}
	unit, _ = d.word(n, periods())
	return unit, 0
}

// begins decodes when a period begins: a day of the week or of the month, or a date.
func (d *decoder) begins(n *node, p *Period) {
	switch {
	case p.Unit == "week":
		i := slices.Index(dayNames(), n.text)
		if i < 0 || n.kind != scalar {
			d.fail(n, quote(n.text)+" is not a day of the week", "write one of "+strings.Join(dayNames(), ", "))
			return
		}
		p.Weekday = time.Weekday(i)
	case p.Unit == "month":
		p.Date, _ = d.number(n, 1, 31)
	case p.Days > 0:
		at, err := time.Parse(time.DateOnly, n.text)
		if err != nil || n.kind != scalar || at.Year() < 1970 {
			d.fail(n, quote(n.text)+" is not a date since 1970", "write a day on which one of the periods begins, such as 2026-11-30")
			return
		}
		p.Anchor = at
	case p.Unit != "":
		d.fail(n, "an hour and a day begin by the clock", "leave `begins` out, and say with `zone` by which")
	}
}

// percents returns n as percents of a quota, the least first.
func (d *decoder) percents(n *node) []int {
	var list []int
	d.each(n, func(item *node) {
		number, isPercent := strings.CutSuffix(item.text, "%")
		value, err := strconv.Atoi(number)
		switch {
		case item.kind != scalar || !isPercent || err != nil || value < 1 || value > 99 || strconv.Itoa(value) != number:
			d.fail(item, quote(item.text)+" is not a part of a quota to warn at", "write 80%, or a list such as [80%, 95%]; from 1% to 99%")
		case slices.Contains(list, value):
			d.fail(item, quote(item.text)+" stands here twice", "keep one of them")
		default:
			list = append(list, value)
		}
	})
	slices.Sort(list)
	return list
}

// then returns what a session gets beyond its quota: bits a second, or 0 for
// nothing.
func (d *decoder) then(n *node) int64 {
	if n.kind == scalar && n.text == "deny" {
		return 0
	}
	if n.kind == scalar && strings.Trim(n.text, "abcdefghijklmnopqrstuvwxyz") == "" {
		d.fail(n, quote(n.text)+" is not what can come then", "write deny, or a rate such as 1 Mbit/s")
		return 0
	}
	return d.rate(n)
}
