package config

import (
	"path/filepath"
	"strings"
	"time"
)

// Ledger says where what was used is kept, and how.
type Ledger struct {
	Off   bool
	Path  string        // of an SQLite file; a relative name starts at the settings file's folder; empty: the usual one
	Flush time.Duration // from one write to the next
	Keep  LedgerKeep
}

// LedgerKeep is for how long use is kept by minute, hour and day. No longer for
// the finer than for the coarser.
type LedgerKeep struct{ Minutes, Hours, Days time.Duration }

const day = 24 * time.Hour

// bounds are those of a time, and how they are written.
type bounds struct {
	least, most time.Duration
	text        string
}

func flushBounds() bounds { return bounds{100 * time.Millisecond, time.Minute, "from 100ms to 1m"} }

func keepBounds() bounds { return bounds{time.Hour, 36500 * day, "from 1h to 36500d"} }

func defaultLedger() Ledger {
	return Ledger{Flush: time.Second, Keep: LedgerKeep{Minutes: 2 * day, Hours: 60 * day, Days: 3 * 365 * day}}
}

const writeStore = "write `sqlite:/var/lib/sallyport/ledger.db`"

// decodeLedger takes off, a store, or keys.
func (d *decoder) decodeLedger(n *node) {
	if n.kind == scalar {
		d.ledgerStore(n)
		return
	}
	d.mapping(n, fields{
		"store": d.ledgerStore,
		"flush": func(v *node) {
			if value, ok := d.span(v, flushBounds()); ok {
				d.settings.Ledger.Flush = value
			}
		},
		"keep": d.ledgerKeep,
	}, "when_lost")
}

func (d *decoder) ledgerStore(n *node) {
	l := &d.settings.Ledger
	if n.kind == scalar && (n.text == "off" || n.plain && n.text == "false") {
		l.Off = true
		return
	}
	text, ok := d.text(n)
	if !ok {
		return
	}
	name, isFile := strings.CutPrefix(text, "sqlite:")
	switch {
	case strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://"):
		d.fail(n, "PostgreSQL is not in this version yet", writeStore)
	case !isFile:
		d.fail(n, "expected off or sqlite: and the name of a file, found "+n.describe(), writeStore)
	case name == "" || strings.Contains(name, "\x00"):
		d.fail(n, "the ledger needs the name of a file", writeStore)
	case filepath.IsAbs(name):
		l.Path = name
	default:
		l.Path = filepath.Join(filepath.Dir(n.src.file), name)
	}
}

func (d *decoder) ledgerKeep(n *node) {
	k := &d.settings.Ledger.Keep
	into := func(keep *time.Duration) func(*node) {
		return func(v *node) {
			if value, ok := d.span(v, keepBounds()); ok {
				*keep = value
			}
		}
	}
	d.mapping(n, fields{"minutes": into(&k.Minutes), "hours": into(&k.Hours), "days": into(&k.Days)})
	if k.Minutes > k.Hours || k.Hours > k.Days {
		d.fail(n, "what is finer would be kept for longer than what is coarser", "the defaults are `{minutes: 2d, hours: 60d, days: 1095d}`")
	}
}

// span returns n as a time between two bounds.
func (d *decoder) span(n *node, within bounds) (time.Duration, bool) {
	if n.kind != scalar {
		d.fail(n, "expected a time such as 90s, found "+n.describe(), "")
		return 0, false
	}
	value, ok := ParseDuration(n.text)
	var m *mistake
	switch {
	case !ok:
		m = &mistake{quote(n.text) + " is not a time", "write 90s, 10m, 1h30m or 2d"}
	case value < within.least || value > within.most:
		m = &mistake{quote(n.text) + " is out of bounds", within.text}
	}
	return value, d.take(n, m)
}
