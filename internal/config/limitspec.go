package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	leastRate    = 1000              // bits a second
	mostRate     = 1_000_000_000_000 // the same
	mostBurst    = 1 << 40           // bytes
	mostSessions = 1_000_000
)

// decodeLimits fills in s.Limits.
func (d *decoder) decodeLimits(n *node) {
	d.namedEntries(n, d.limit)
}

func pers() words {
	return words{what: "what a limit is counted by", known: []string{"session", "source", "user", "group", "rule", "listener", "server"}}
}

const limitHint = "write one of `rate`, `up` and `down`, `quota`, `sessions`, `new_sessions`"

func (d *decoder) limit(key *node, name string, n *node) {
	if name == "" {
		d.fail(key, "a limit without a name", "")
	}
	before := len(d.faults) + d.unshown
	var l Limit
	var kind string
	var per, begins *node
	// is notes of what kind the limit is; whatever else stands with it.
	is := func(what string, decode func(*node)) func(*node) {
		return func(v *node) {
			if kind != "" && kind != what {
				d.fail(v, "a limit is of one kind, and this one is a limit of "+kind, "make two limits: a rule may use both")
				return
			}
			kind = what
			decode(v)
		}
	}
	d.mapping(n, fields{
		"rate":         is("the rate", func(v *node) { l.Rate = d.rate(v) }),
		"up":           is("the rate by direction", func(v *node) { l.Up = d.rate(v) }),
		"down":         is("the rate by direction", func(v *node) { l.Down = d.rate(v) }),
		"quota":        is("the quota", func(v *node) { l.Quota, l.QuotaTime = d.quota(v) }),
		"sessions":     is("the sessions", func(v *node) { l.Sessions, _ = d.number(v, 1, mostSessions) }),
		"new_sessions": is("the new sessions", func(v *node) { l.NewSessions, l.NewPer = d.frequency(v) }),
		"burst":        func(v *node) { l.Burst = d.burst(v) },
		"shared":       func(v *node) { l.Shared = d.bool(v); d.sharedRates = append(d.sharedRates, v) },
		"counts":       func(v *node) { l.Counts, _ = d.word(v, directions()) },
		"every":        func(v *node) { l.Every.Unit, l.Every.Days = d.period(v) },
		"begins":       func(v *node) { begins = v },
		"rolling":      func(v *node) { l.Every.Rolling = d.bool(v) },
		"zone":         func(v *node) { l.Every.Zone = d.zone(v) },
		"then":         func(v *node) { l.Then = d.then(v) },
		"warn":         func(v *node) { l.Warn = d.percents(v) },
		"per":          func(v *node) { per = v; l.Per, _ = d.word(v, pers()) },
	})
	if before == len(d.faults)+d.unshown {
		d.checkLimit(n, kind, per)
		d.checkQuota(n, &l, begins)
	}
	d.settings.Limits[name] = l
}

// checkLimit looks at what must and must not stand together.
func (d *decoder) checkLimit(n *node, kind string, per *node) {
	bySession := per != nil && per.text == "session"
	switch {
	case kind == "":
		d.fail(n, "the limit does not say what is limited", limitHint)
	case per == nil:
		d.fail(n, "the limit does not say what it is counted by", "write `per: user`, or one of "+strings.Join(pers().known, ", "))
	case n.has("burst") && !n.isRate():
		d.fail(n.value("burst"), "`burst` belongs to a rate", "leave it out")
	case n.has("shared") && !n.isRate():
		d.fail(n.value("shared"), "`shared` belongs to a rate", "leave it out: quotas are shared where the ledger is")
	case n.has("shared") && bySession:
		d.fail(n.value("shared"), "a session is on one server only", "leave it out, or write `per: user` or another")
	case n.has("quota") && bySession && n.has("every"):
		d.fail(n.value("every"), "the quota of a session does not begin anew", "leave `every` out, or write `per: user` or another")
	case n.has("quota") && !bySession && !n.has("every"):
		d.fail(n, "the quota does not say when it begins anew", "write `every: day`, or hour, week, month, 30d")
	case bySession && (n.has("sessions") || n.has("new_sessions")):
		d.fail(per, "sessions are not counted by session", "write `per: source`, `per: user` or another")
	}
}

func (n *node) isRate() bool { return n.has("rate") || n.has("up") || n.has("down") }

// value returns the value of a key that is there.
func (n *node) value(key string) *node {
	i := slices.IndexFunc(n.pairs, func(p pair) bool { return p.key.text == key })
	return n.pairs[i].value
}

// limitNames returns n as names of limits.
func (d *decoder) limitNames(n *node) []string {
	var list []string
	d.each(n, func(item *node) {
		name, ok := d.text(item)
		switch {
		case !ok:
		case slices.Contains(list, name):
			d.fail(item, "the limit "+quote(name)+" stands here twice", "keep one of them")
		default:
			d.limitRefs = append(d.limitRefs, item)
			list = append(list, name)
		}
	})
	return list
}

// unit is how amounts are written.
type unit struct {
	name string
	size float64
}

// byteUnits are those of sizes, in bytes.
func byteUnits() []unit {
	return []unit{
		{"B", 1},
		{"kB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"KiB", 1 << 10},
		{"MiB", 1 << 20},
		{"GiB", 1 << 30},
		{"TiB", 1 << 40},
	}
}

// rateUnits are those of rates, in bits a second.
func rateUnits() []unit {
	list := []unit{{"bit/s", 1}, {"kbit/s", 1e3}, {"Mbit/s", 1e6}, {"Gbit/s", 1e9}, {"Tbit/s", 1e12}}
	for _, u := range byteUnits() {
		list = append(list, unit{u.name + "/s", 8 * u.size})
	}
	return list
}

// rate returns n in bits a second; 0 for a fault.
func (d *decoder) rate(n *node) int64 {
	if n.kind != scalar {
		d.fail(n, "expected a rate such as 20 Mbit/s, found "+n.describe(), "")
		return 0
	}
	value, m := parseRate(n.text)
	if !d.take(n, m) {
		return 0
	}
	return int64(value)
}

func parseRate(text string) (float64, *mistake) {
	value, m := parseAmount(text, rateUnits(), "a rate", "20 Mbit/s")
	switch {
	case m != nil:
		return 0, m
	case value < leastRate:
		return 0, &mistake{quote(text) + " is too slow", "at least 1 kbit/s"}
	case value > mostRate:
		return 0, &mistake{quote(text) + " is too fast", "at most 1 Tbit/s"}
	}
	return value, nil
}

// amount returns n as a number with one of the units, in the smallest of them.
func (d *decoder) amount(n *node, units []unit, what, example string) (float64, *mistake) {
	if n.kind != scalar {
		return 0, &mistake{"expected " + what + " such as " + example + ", found " + n.describe(), ""}
	}
	return parseAmount(n.text, units, what, example)
}

func parseAmount(text string, units []unit, what, example string) (float64, *mistake) {
	name := strings.TrimLeft(text, "0123456789.")
	number := text[:len(text)-len(name)]
	name = strings.TrimPrefix(name, " ")
	value, err := strconv.ParseFloat(number, 64)
	i := slices.IndexFunc(units, func(u unit) bool { return u.name == name })
	switch {
	case err != nil || strings.HasPrefix(number, ".") || strings.HasSuffix(number, "."):
		return 0, &mistake{quote(text) + " is not " + what, "write " + example}
	case name == "":
		return 0, &mistake{quote(text) + " has no unit", "write " + what + " such as " + example}
	case i < 0:
		return 0, noUnit(name, units, what, example)
	}
	return value * units[i].size, nil
}

// noUnit words that name is not one of the units, of which capitals tell k from
// K and bits from bytes.
func noUnit(name string, units []unit, what, example string) *mistake {
	m := &mistake{quote(name) + " is not a unit of " + what, "write " + what + " such as " + example}
	var all []string
	for _, u := range units {
		all = append(all, u.name)
	}
	meant := name
	if before, ok := strings.CutSuffix(strings.ToLower(name), "ps"); ok && strings.Contains(example, "/s") {
		meant = strings.TrimSuffix(before, "b") + "bit/s"
	}
	if slices.Contains(all, name+"/s") {
		meant = name + "/s"
	}
	if near := nearest(meant, all); near != "" {
		m.hint = "did you mean " + quote(near) + "? The units are " + strings.Join(all, ", ")
	}
	return m
}

// frequencyUnits are those of `new_sessions`.
func frequencyUnits() map[string]time.Duration {
	return map[string]time.Duration{"s": time.Second, "min": time.Minute, "h": time.Hour}
}

// frequency returns n as so many in a time; 0 for a fault.
func (d *decoder) frequency(n *node) (int, time.Duration) {
	const right = "write 20/s, 100/min or 1000/h; at most 1000000"
	if n.kind != scalar {
		d.fail(n, "expected a number in a time such as 20/s, found "+n.describe(), "")
		return 0, 0
	}
	number, name, _ := strings.Cut(n.text, "/")
	value, err := strconv.Atoi(number)
	per, ok := frequencyUnits()[name]
	switch {
	case err != nil || strconv.Itoa(value) != number:
		d.fail(n, quote(n.text)+" is not a number in a time", right)
	case !ok:
		d.fail(n, quote(n.text)+" does not say in which time", right)
	case value < 1 || value > mostSessions:
		d.fail(n, number+" is not a number from 1 to "+strconv.Itoa(mostSessions), right)
	default:
		return value, per
	}
	return 0, 0
}
