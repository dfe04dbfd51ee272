package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
)

// What a [Client] asks for, one method for each operation of the API that a command
// needs.

// Reload has the server read its settings anew. The faults of settings are a [*Faults].
func (c Client) Reload(ctx context.Context) error {
	err := c.do(ctx, http.MethodPost, "reload", nil, nil)
	if p, ok := errors.AsType[*problem](err); ok && p.Code == http.StatusUnprocessableEntity {
		return &Faults{Text: p.Detail}
	}
	return err
}

// Upgrade has another process take the server's place, and returns when that serves.
func (c Client) Upgrade(ctx context.Context) (u Upgrade, err error) {
	err = c.do(ctx, http.MethodPost, "upgrade", nil, &u)
	return u, err
}

// Status asks how the server is.
func (c Client) Status(ctx context.Context) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, "status", nil, &s)
	return s, err
}

// Now asks what moves.
func (c Client) Now(ctx context.Context) (n Now, err error) {
	err = c.do(ctx, http.MethodGet, "now", nil, &n)
	return n, err
}

// Sessions asks for a part of the open sessions, at most 1000.
func (c Client) Sessions(ctx context.Context, q SessionQuery) (p SessionPage, err error) {
	asked := url.Values{"filter": {q.Filter}, "offset": {strconv.Itoa(q.Offset)}}
	if q.Sort != "" {
		asked.Set("sort", q.Sort)
	}
	if q.Limit > 0 {
		asked.Set("limit", strconv.Itoa(q.Limit))
	}
	err = c.do(ctx, http.MethodGet, "sessions?"+asked.Encode(), nil, &p)
	return p, err
}

// EndSession has the server end a session.
func (c Client) EndSession(ctx context.Context, id uint64) error {
	return c.do(ctx, http.MethodDelete, "sessions/"+strconv.FormatUint(id, 10), nil, nil)
}

// SlowSession has the server slow a session to a rate such as "1 Mbit/s", or, where that
// is empty, let it go.
func (c Client) SlowSession(ctx context.Context, id uint64, rate string) error {
	return c.do(ctx, http.MethodPut, "sessions/"+strconv.FormatUint(id, 10)+"/rate", map[string]string{"rate": rate}, nil)
}

// Rules asks for the rules, and what each has decided.
func (c Client) Rules(ctx context.Context) (r []Rule, err error) {
	err = c.do(ctx, http.MethodGet, "rules", nil, &r)
	return r, err
}

// Limits asks for the limits.
func (c Client) Limits(ctx context.Context) (l []Limit, err error) {
	err = c.do(ctx, http.MethodGet, "limits", nil, &l)
	return l, err
}

// Quotas asks how all stand with the quotas.
func (c Client) Quotas(ctx context.Context) (q Quotas, err error) {
	err = c.do(ctx, http.MethodGet, "quotas", nil, &q)
	return q, err
}

// Grant has the server allow somebody more than a quota.
func (c Client) Grant(ctx context.Context, g Grant) (q Quota, err error) {
	err = c.do(ctx, http.MethodPost, "grants", g, &q)
	return q, err
}

// SetRate has the server change a rate.
func (c Client) SetRate(ctx context.Context, r Rate) error {
	return c.do(ctx, http.MethodPut, "limits/"+url.PathEscape(r.Limit)+"/rate", rateBody{r.Rate, r.Up, r.Down}, nil)
}
