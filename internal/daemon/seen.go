package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/server"
)

// shownRefusals is how many of the last refusals are shown.
const shownRefusals = 50

// seen is what [live.View] knows, in the words of [admin.Live].
type seen struct {
	view    *live.View
	started time.Time
}

// Now implements [admin.Live].
func (s seen) Now() admin.Now {
	t := s.view.Totals()
	now := admin.Now{
		At: time.Now(), Started: s.started, Open: t.Open, Opened: t.Opened, Up: t.Up, Down: t.Down,
		Refused: byWord(t.Refused), Ended: byWord(t.Ended),
	}
	for _, one := range s.view.Samples() {
		now.Samples = append(now.Samples, admin.Sample(one))
	}
	if n := len(now.Samples); n > 0 {
		now.SpeedUp, now.SpeedDown = now.Samples[n-1].Up, now.Samples[n-1].Down
	}
	all := s.view.Refusals(0)
	for _, r := range slices.Backward(all[max(0, len(all)-shownRefusals):]) {
		now.Refusals = append(now.Refusals, refusalOf(r))
	}
	return now
}

func byWord(counts map[server.Reason]uint64) map[string]uint64 {
	words := make(map[string]uint64, len(counts))
	for reason, n := range counts {
		words[string(reason)] = n
	}
	return words
}

func refusalOf(r live.Refusal) admin.Refusal {
	return admin.Refusal{
		At: r.At, ID: r.Record.ID, Client: address(r.Record.Client), User: access.Escape(r.Record.Identity.Name),
		Protocol: string(r.Record.Protocol), Target: target(&r.Record), Rule: r.Record.Rule,
		Reason: string(r.Reason), Detail: detailOf(r.Err),
	}
}

// target is what a session is for; empty: nothing yet.
func target(r *server.Record) string {
	switch t := r.Target; {
	case !t.IP.IsValid() && t.Name == "":
		return ""
	default:
		return access.Escape(t.String())
	}
}

// Sessions implements [admin.Live].
func (s seen) Sessions(q admin.SessionQuery) admin.SessionPage {
	found := s.view.Query(live.Query(q))
	page := admin.SessionPage{Open: found.Open, Matched: found.Matched, Offset: q.Offset, Sessions: []admin.Session{}}
	for _, l := range found.Lines {
		page.Sessions = append(page.Sessions, sessionOf(&l))
	}
	return page
}

func sessionOf(l *live.Line) admin.Session {
	r := &l.Record
	return admin.Session{
		ID: r.ID, Started: r.Started, Listener: r.Listener, Client: address(r.Client), Through: address(r.Through), TLS: r.TLS,
		Protocol: string(r.Protocol), Command: command(r.Command), User: access.Escape(r.Identity.Name), Proof: string(r.Identity.Proof),
		Target: target(r), Address: address(r.Address), Rule: r.Rule, Via: r.Via,
		Up: l.Up, Down: l.Down, SpeedUp: l.SpeedUp, SpeedDown: l.SpeedDown, Slowed: l.Slowed,
	}
}

// EndSession implements [admin.Live].
func (s seen) EndSession(id uint64) error {
	open := s.view.Find(id)
	if open == nil {
		return admin.ErrNoSession
	}
	open.End(fmt.Errorf("%w: by an administrator", server.Ended))
	return nil
}

// SlowSession implements [admin.Live].
func (s seen) SlowSession(id uint64, rate string) error {
	var bits int64
	var up, down server.Pacer
	if rate != "" {
		var err error
		if bits, err = config.ParseRate(rate); err != nil {
			return fmt.Errorf("%w: %w", admin.ErrBadQuestion, err)
		}
		up, down = limits.Brake(bits)
	}
	if !s.view.Slow(id, bits, up, down) {
		return admin.ErrNoSession
	}
	return nil
}

// Next implements [admin.Live].
func (s seen) Next() <-chan struct{} { return s.view.Next() }
