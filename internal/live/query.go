package live

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/server"
)

// Query asks for some of the open sessions.
type Query struct {
	Filter string // what must be in the user, client, target, rule, listener or protocol, in any case; empty: anything
	Sort   string // one of [Orders]; empty: the first
	Offset int    // of the first
	Limit  int    // how many; 0: all
}

// Orders are the words for Query.Sort: the fastest first, the one that has moved most,
// the newest, the oldest, and by user, client, target or rule.
func Orders() []string {
	return []string{"speed", "bytes", "newest", "oldest", "user", "client", "target", "rule"}
}

// Page is the answer to a [Query].
type Page struct {
	Open    int // sessions in all
	Matched int // sessions that pass the filter
	Lines   []Line
}

// Line is a session and what is known of it.
type Line struct {
	Session
	Record   server.Record
	Up, Down int64 // bytes
}

// entry is what sessions are put in order by: small, so that many are sorted soon.
type entry struct {
	Session
	first, second int64  // the greatest comes first
	word          string // in an order by words
}

// Query answers. What costs is a filter, and an order by words: of every session it
// is then asked what is known.
func (v *View) Query(q Query) Page {
	all := v.Sessions()
	page := Page{Open: len(all)}
	word, filter := wordOf(q.Sort), strings.ToLower(q.Filter)
	entries := make([]entry, 0, len(all))
	for _, s := range all {
		e := entry{Session: s}
		e.rank(q.Sort)
		if filter != "" || word != nil {
			r := s.Now()
			if !matches(&r, filter) {
				continue
			}
			if word != nil {
				e.word = word(&r)
			}
		}
		entries = append(entries, e)
	}
	page.Matched = len(entries)
	slices.SortFunc(entries, before)
	entries = entries[min(max(0, q.Offset), len(entries)):]
	if q.Limit > 0 {
		entries = entries[:min(q.Limit, len(entries))]
	}
	for _, e := range entries {
		page.Lines = append(page.Lines, Line{Session: e.Session, Record: e.Now(), Up: e.Up(), Down: e.Down()})
	}
	return page
}

// wordOf returns what is compared in an order by words; nil: it is none.
func wordOf(order string) func(*server.Record) string {
	switch order {
	case "user":
		return func(r *server.Record) string { return r.Identity.Name }
	case "client":
		return func(r *server.Record) string { return r.Client.Addr().StringExpanded() }
	case "target":
		return func(r *server.Record) string { return r.Target.String() }
	case "rule":
		return func(r *server.Record) string { return r.Rule }
	}
	return nil
}

// rank prepares the entry for an order of numbers. ID and Started belong to the
// server and do not change.
func (e *entry) rank(order string) {
	switch order {
	case "bytes":
		e.first = e.Up() + e.Down()
	case "newest":
		e.first = e.Started.UnixNano()
	case "oldest":
		e.first = -e.Started.UnixNano()
	case "", "speed":
		e.first, e.second = e.SpeedUp+e.SpeedDown, e.Up()+e.Down()
	}
}

// before is negative where a comes before b.
func before(a, b entry) int {
	switch {
	case a.word != b.word:
		return strings.Compare(a.word, b.word)
	case a.first != b.first:
		return cmp.Compare(b.first, a.first)
	case a.second != b.second:
		return cmp.Compare(b.second, a.second)
	}
	return cmp.Compare(a.ID, b.ID)
}

// matches reports whether what is known of a session has the filter, in lower case,
// somewhere.
func matches(r *server.Record, filter string) bool {
	texts := []string{r.Identity.Name, r.Client.String(), r.Target.String(), r.Rule, r.Listener, string(r.Protocol)}
	if r.Address.IsValid() {
		texts = append(texts, r.Address.String())
	}
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(strings.ToLower(text), filter) })
}
