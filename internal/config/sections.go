package config

import "time"

// decodeTimeouts fills in s.Timeouts.
func (d *decoder) decodeTimeouts(n *node) {
	t := &d.settings.Timeouts
	into := func(timeout *time.Duration, least time.Duration) func(*node) {
		return func(v *node) {
			if value, ok := d.duration(v, least); ok {
				*timeout = value
			}
		}
	}
	d.mapping(n, fields{
		"association": into(&t.Association, 1),
		"handshake":   into(&t.Handshake, 1),
		"connect":     into(&t.Connect, 1),
		"bind":        into(&t.Bind, 1),
		"ident":       into(&t.Ident, 1),
		"idle":        into(&t.Idle, 1),
		"half_closed": into(&t.HalfClosed, 1),
		"drain":       into(&t.Drain, 0),
		"upgrade":     into(&t.Upgrade, 0),
	})
}

func logLevels() words {
	return words{what: "a log level", known: []string{"debug", "info", "warn", "error"}}
}

func logFormats() words {
	return words{what: "a log format", known: []string{"text", "json"}}
}

func (d *decoder) decodeLog(n *node) {
	into := func(setting *string, w words) func(*node) {
		return func(v *node) {
			if word, ok := d.word(v, w); ok {
				*setting = word
			}
		}
	}
	l := &d.settings.Log
	d.mapping(n, fields{
		"level":         into(&l.Level, logLevels()),
		"format":        into(&l.Format, logFormats()),
		"access":        func(v *node) { l.Access = d.newFile(v) },
		"access_format": func(v *node) { l.AccessFormat = d.accessFormat(v) },
		"access_size":   func(v *node) { l.AccessSize = d.accessSize(v) },
		"access_age":    func(v *node) { l.AccessAge, _ = d.span(v, accessAges()) },
		"access_keep":   func(v *node) { l.AccessKeep, _ = d.number(v, 1, mostAccessKeep) },
	})
	if n.has("access_keep") && !n.has("access_size") && !n.has("access_age") {
		d.fail(n, "`access_keep` says how many files are kept, and nothing says when another is begun", "write `access_size: 100 MiB` or `access_age: 1d` beside it")
	}
}

func accessAges() bounds {
	return bounds{time.Hour, 366 * 24 * time.Hour, "from 1h to 366d"}
}
