package config

import (
	"net/url"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// Ledger says where what was used is kept, and how.
type Ledger struct {
	Off  bool
	Path string // of an SQLite file; a relative name starts at the settings file's folder; empty: the usual one, or URL
	URL  string // of a PostgreSQL database, as libpq takes it; it may hold a password. Empty: an SQLite file
	Node string // what this server is called among those that share the database; empty: as the machine
	// DenyWhenLost: while the database is away, who has used up what was leased of a quota is refused; else he may go on.
	DenyWhenLost bool
	Flush        time.Duration // from one write to the next
	Keep         LedgerKeep
	Apart        LedgerApart
}

// LedgerApart is how many things of the clients' choice are counted apart in a day.
type LedgerApart struct {
	Hosts   int // target hosts of a user, or of a source that has proved no name
	Names   int // names of a source that were not proved
	Sources int // addresses of an IPv6 /64
}

// LedgerKeep is for how long use is kept by minute, hour and day. No longer for
// the finer than for the coarser.
type LedgerKeep struct{ Minutes, Hours, Days time.Duration }

// mostNode is how many bytes the name of a node may have.
const mostNode = 100

// mostApart is how many of each may be counted apart in a day, and usualApart how many are.
const (
	mostApart  = 250_000
	usualApart = 1000
)

const day = 24 * time.Hour

// bounds are those of a time, and how they are written.
type bounds struct {
	least, most time.Duration
	text        string
}

func flushBounds() bounds { return bounds{100 * time.Millisecond, time.Minute, "from 100ms to 1m"} }

func keepBounds() bounds { return bounds{time.Hour, 36500 * day, "from 1h to 36500d"} }

func defaultLedger() Ledger {
	return Ledger{Flush: time.Second, Apart: LedgerApart{usualApart, usualApart, usualApart}, Keep: LedgerKeep{Minutes: 2 * day, Hours: 60 * day, Days: 3 * 365 * day}}
}

const (
	writeStore    = "write `sqlite:/var/lib/sallyport/ledger.db`"
	writeDatabase = "write `postgres://USER@HOST/DATABASE`"
)

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
		"keep":    d.ledgerKeep,
		"hosts":   func(v *node) { d.ledgerApart(v, &d.settings.Ledger.Apart.Hosts) },
		"names":   func(v *node) { d.ledgerApart(v, &d.settings.Ledger.Apart.Names) },
		"sources": func(v *node) { d.ledgerApart(v, &d.settings.Ledger.Apart.Sources) },
		"node":    d.ledgerNode,
		"when_lost": func(v *node) {
			word, _ := d.word(v, lostWords())
			d.settings.Ledger.DenyWhenLost = word == "deny"
		},
	})
}

func (d *decoder) ledgerApart(n *node, most *int) {
	if number, ok := d.number(n, 1, mostApart); ok {
		*most = number
	}
}

func lostWords() words {
	return words{what: "what becomes of sessions while the ledger is away", known: []string{"allow", "deny"}}
}

func (d *decoder) ledgerNode(n *node) {
	name, ok := d.text(n)
	switch {
	case !ok:
	case name == "" || len(name) > mostNode || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		d.fail(n, "the name of a node is 1 to 100 letters, digits and signs", "leave it out: the name of the machine will do")
	default:
		d.settings.Ledger.Node = name
	}
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
		d.ledgerURL(n, text)
	case !isFile:
		d.fail(n, "expected off, sqlite: and the name of a file, or postgres: and a database, found "+n.describe(), writeStore+" or `postgres://USER@HOST/DATABASE`")
	case name == "" || strings.Contains(name, "\x00"):
		d.fail(n, "the ledger needs the name of a file", writeStore)
	case filepath.IsAbs(name):
		l.Path = name
	default:
		l.Path = filepath.Join(filepath.Dir(n.src.file), name)
	}
}

// ledgerURL takes the URL of a database. The driver will look at the rest of it.
func (d *decoder) ledgerURL(n *node, text string) {
	u, err := url.Parse(text)
	if err != nil {
		d.fail(n, "the ledger's database has a URL that cannot be read", writeDatabase)
		return
	}
	if u.Query().Has("password") || u.Query().Has("sslpassword") {
		d.fail(n, "a password does not stand behind the question mark", "write `postgres://USER:PASSWORD@HOST/DATABASE`, or keep it in ~/.pgpass")
		return
	}
	if _, there := u.User.Password(); there {
		d.secrets = append(d.secrets, secret{n, "~/.pgpass, or what $PGPASSFILE names"})
	}
	d.settings.Ledger.URL = text
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
