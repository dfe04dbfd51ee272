package admin

import (
	"bytes"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// mostWatching bounds the pages that are kept up to date at once.
	mostWatching = 100
	// perPage is how many sessions a page has.
	perPage = 50
	// manySessions is from how many on a page is sent anew only every other second.
	manySessions = 2000
)

// nowData is what the page Now shows.
type nowData struct {
	Now
	Throughput, Open, Refusals template.HTML // charts
	PeakSpeed                  int64         // bytes a second
	PeakOpen                   int
	PeakRefused                uint64
	Reasons                    []reasonLine
	RefusedInAll               uint64
}

// reasonLine is a reason and how often it was given.
type reasonLine struct {
	Word  string
	Count uint64
	Share uint64 // of the most frequent one, in percent
}

func (d *desk) showNow(_ *http.Request, v *sight) error {
	n := nowData{Now: d.Live.Now()}
	var up, down, open, refused []float64
	for _, s := range n.Samples {
		up, down = append(up, float64(s.Up)), append(down, float64(s.Down))
		open, refused = append(open, float64(s.Open)), append(refused, float64(s.Refused))
		n.PeakSpeed, n.PeakOpen, n.PeakRefused = max(n.PeakSpeed, s.Up, s.Down), max(n.PeakOpen, s.Open), max(n.PeakRefused, s.Refused)
	}
	n.Throughput, n.Open, n.Refusals = lines(down, up), lines(open), lines(refused)
	n.Reasons = reasonLines(n.Refused)
	for _, r := range n.Reasons {
		n.RefusedInAll += r.Count
	}
	v.Data = n
	return nil
}

// sessionsData is what the page Sessions shows.
type sessionsData struct {
	SessionPage
	Orders         []string
	Sort, Filter   string
	First, Last    int // of those that match, from 1
	Before, Behind int // the offsets of the pages beside this one; -1: there is none
}

func (d *desk) showSessions(r *http.Request, v *sight) error {
	q := SessionQuery{Filter: r.FormValue("filter"), Sort: r.FormValue("sort"), Limit: perPage}
	q.Offset, _ = strconv.Atoi(r.FormValue("offset")) // what is no number is the beginning
	q.Offset = max(0, q.Offset)
	page := d.Live.Sessions(q)
	s := sessionsData{SessionPage: page, Orders: SessionOrders(), Sort: q.Sort, Filter: q.Filter, Before: -1, Behind: -1}
	s.First, s.Last = q.Offset+1, q.Offset+len(page.Sessions)
	if q.Offset > 0 {
		s.Before = max(0, q.Offset-perPage)
	}
	if s.Last < page.Matched {
		s.Behind = q.Offset + perPage
	}
	v.Data = s
	return nil
}

// keepLive sends the live part of a page, and again when there is something new, as
// server-sent events, until the browser or the server leaves or the visit ends.
func (d *desk) keepLive(w http.ResponseWriter, r *http.Request, s screen) {
	select {
	case d.watching <- struct{}{}:
		defer func() { <-d.watching }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Time{}) != nil { // nothing more is read, and it may take long
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	var last []byte
	for next := d.Live.Next(); ; next = d.Live.Next() {
		now, err := d.part(r, s)
		if err != nil {
			return
		}
		if !bytes.Equal(now, last) {
			last = now
			if control.SetWriteDeadline(time.Now().Add(requestTime)) != nil || writeEvent(w, now) != nil || control.Flush() != nil {
				return
			}
		}
		if !d.wait(r, next) {
			return
		}
	}
}

// part makes the live part of a page.
func (d *desk) part(r *http.Request, s screen) ([]byte, error) {
	v, err := d.look(r, s)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = templates()[v.Code][s.Name].ExecuteTemplate(&b, "live", v)
	return b.Bytes(), err
}

// writeEvent writes one event of many lines.
func writeEvent(w http.ResponseWriter, text []byte) error {
	var b bytes.Buffer
	for line := range strings.Lines(string(text)) {
		b.WriteString("data: " + strings.TrimRight(line, "\r\n") + "\n")
	}
	b.WriteString("\n")
	_, err := b.WriteTo(w)
	return err
}

// wait returns when there is something new; false: there is nobody to show it to. The
// more is open, the less often.
func (d *desk) wait(r *http.Request, next <-chan struct{}) bool {
	turns := 1
	if d.Live.Sessions(SessionQuery{Limit: 1}).Open > manySessions {
		turns = 2
	}
	for range turns {
		select {
		case <-next:
			next = d.Live.Next()
		case <-r.Context().Done():
			return false
		case <-leaving(r.Context()):
			return false
		}
	}
	who, _, err := d.guard.identify(r)
	return err == nil && who.Role != ""
}
