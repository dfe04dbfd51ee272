package daemon

import (
	"context"

	"github.com/sallyport/sallyport/internal/admin"
)

// What a running server tells of itself, as [admin] has it.
type (
	// LiveNow is what moves, and what was counted.
	LiveNow = admin.Now
	// LiveSessions is a part of the open sessions.
	LiveSessions = admin.SessionPage
	// LiveSession is one of them.
	LiveSession = admin.Session
	// LiveRefusal is a session that came to nothing.
	LiveRefusal = admin.Refusal
	// LiveQuery asks for some of them; the order is one of LiveOrders.
	LiveQuery = admin.SessionQuery
)

// LiveOrders are the words for the order of a [LiveQuery].
func LiveOrders() []string { return admin.SessionOrders() }

// ErrNobody says that no server answers.
var ErrNobody = admin.ErrNobody

// Watch is a view of a running server. Its methods block until the server has answered or
// ctx ends; where none does their errors wrap [ErrNobody].
type Watch struct{ client admin.Client }

// Watch finds the running server's socket. It asks the server no more than whether it is the
// one that is meant.
func (r Remote) Watch(ctx context.Context) (Watch, error) {
	socket, unread := r.socket()
	if socket == "" {
		return Watch{}, r.noSocket(unread)
	}
	return Watch{admin.Client{Socket: socket}}, r.meant(ctx, socket)
}

// Now asks what moves.
func (w Watch) Now(ctx context.Context) (LiveNow, error) {
	n, err := w.client.Now(ctx)
	return n, whereElse(err)
}

// Sessions asks for a part of the open sessions, at most 1000.
func (w Watch) Sessions(ctx context.Context, q LiveQuery) (LiveSessions, error) {
	p, err := w.client.Sessions(ctx, q)
	return p, whereElse(err)
}

// LiveLimits are the limits that count by user: those of each rule, what they limit, and
// how users stand with the quotas among them.
type LiveLimits struct {
	OfRule map[string][]string // names of limits by the name of a rule
	Text   map[string]string   // by the name of a limit, as the settings say it
	Quotas []QuotaLine
}

// Limits asks for them.
func (w Watch) Limits(ctx context.Context) (LiveLimits, error) {
	all := LiveLimits{OfRule: map[string][]string{}, Text: map[string]string{}}
	limits, err := w.client.Limits(ctx)
	if err != nil {
		return all, whereElse(err)
	}
	rules, err := w.client.Rules(ctx)
	if err != nil {
		return all, whereElse(err)
	}
	quotas, err := w.client.Quotas(ctx)
	for _, l := range limits {
		if l.Per == "user" {
			all.Text[l.Name] = l.Text
		}
	}
	for _, r := range rules {
		for _, name := range r.Limits {
			if _, byUser := all.Text[name]; byUser {
				all.OfRule[r.Name] = append(all.OfRule[r.Name], name)
			}
		}
	}
	for _, q := range quotas.Quotas {
		if q.Per == "user" {
			all.Quotas = append(all.Quotas, q)
		}
	}
	return all, whereElse(err)
}

// EndSession ends a session.
func (w Watch) EndSession(ctx context.Context, id uint64) error {
	return whereElse(w.client.EndSession(ctx, id))
}

// SlowSession slows a session to a rate such as "1 Mbit/s"; empty: lets it go.
func (w Watch) SlowSession(ctx context.Context, id uint64, rate string) error {
	return whereElse(w.client.SlowSession(ctx, id, rate))
}
