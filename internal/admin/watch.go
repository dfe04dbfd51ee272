package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// apiPath is where the operations of the API are.
const apiPath = "/api/v1/"

// Now asks what moves. Where there is no server the error wraps [ErrNobody].
func (c Client) Now(ctx context.Context) (n Now, err error) {
	err = c.do(ctx, http.MethodGet, apiPath+"now", nil, &n)
	return n, err
}

// Sessions asks for a part of the open sessions, at most 1000, likewise.
func (c Client) Sessions(ctx context.Context, q SessionQuery) (p SessionPage, err error) {
	asked := url.Values{"filter": {q.Filter}, "offset": {strconv.Itoa(q.Offset)}}
	if q.Sort != "" {
		asked.Set("sort", q.Sort)
	}
	if q.Limit > 0 {
		asked.Set("limit", strconv.Itoa(q.Limit))
	}
	err = c.do(ctx, http.MethodGet, apiPath+"sessions?"+asked.Encode(), nil, &p)
	return p, err
}

// EndSession has the server end a session, likewise.
func (c Client) EndSession(ctx context.Context, id uint64) error {
	return c.do(ctx, http.MethodDelete, apiPath+"sessions/"+strconv.FormatUint(id, 10), nil, nil)
}

// SlowSession has the server slow a session to a rate such as "1 Mbit/s", or, where that
// is empty, let it go, likewise.
func (c Client) SlowSession(ctx context.Context, id uint64, rate string) error {
	return c.do(ctx, http.MethodPut, apiPath+"sessions/"+strconv.FormatUint(id, 10)+"/rate", map[string]string{"rate": rate}, nil)
}
