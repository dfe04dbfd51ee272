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
	d.mapping(n, fields{
		"level":  into(&d.settings.Log.Level, logLevels()),
		"format": into(&d.settings.Log.Format, logFormats()),
	}, "access", "access_format")
}
