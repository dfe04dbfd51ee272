package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Quotas are how all stand with the quotas of whom anything is known.
type Quotas struct {
	Quotas []Quota       `json:"quotas"`
	Counts []QuotaCounts `json:"counts"`
}

// Quota is how one key stands with a quota.
type Quota struct {
	Limit    string     `json:"limit"`
	Per      string     `json:"per"`
	Key      string     `json:"key"`
	Claimed  bool       `json:"claimed,omitempty"` // the name was only claimed
	Counts   string     `json:"counts"`            // both, up, down, or time
	Unit     string     `json:"unit"`              // of the numbers that follow: bytes, or seconds
	Used     int64      `json:"used"`
	Left     int64      `json:"left"`
	Most     int64      `json:"most"` // the quota, and what was granted
	Granted  int64      `json:"granted"`
	Then     int64      `json:"then"`            // bits a second beyond it; 0: nothing
	Until    *time.Time `json:"until,omitempty"` // when it begins anew; nil: it is a rolling one
	Sessions int        `json:"sessions"`
}

// QuotaCounts is what followed from a quota since the server began.
type QuotaCounts struct {
	Limit   string `json:"limit"`
	Warned  int64  `json:"warned"`
	Refused int64  `json:"refused"` // sessions
	Ended   int64  `json:"ended"`   // sessions
}

// Grant allows somebody more than a quota.
type Grant struct {
	Limit   string `json:"limit,omitempty"` // empty: the only one that counts by user
	Key     string `json:"key"`
	Claimed bool   `json:"claimed,omitempty"`
	Amount  string `json:"amount"` // "2 GiB", or "2h" of a quota of time
}

// Rate is a new one for a limit. Just those are given that the limit has, such as
// "20 Mbit/s".
type Rate struct {
	Limit string `json:"limit"`
	Rate  string `json:"rate"`
	Up    string `json:"up"`
	Down  string `json:"down"`
}

// maxBody is how much of a request's body is read, in bytes.
const maxBody = 64 << 10

func handleQuotas(mux *http.ServeMux, d Daemon) {
	mux.HandleFunc("GET /quotas", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, d.Quotas())
	})
	mux.HandleFunc("POST /grant", func(w http.ResponseWriter, r *http.Request) {
		var g Grant
		if !reads(w, r, &g) {
			return
		}
		q, err := d.Grant(g)
		if err != nil {
			answer(w, http.StatusConflict, refusal{Error: err.Error()})
			return
		}
		answer(w, http.StatusOK, q)
	})
	mux.HandleFunc("POST /rate", func(w http.ResponseWriter, r *http.Request) {
		var rate Rate
		if !reads(w, r, &rate) {
			return
		}
		if err := d.SetRate(rate); err != nil {
			answer(w, http.StatusConflict, refusal{Error: err.Error()})
			return
		}
		answer(w, http.StatusOK, struct{}{})
	})
}

// reads reads the body of a request, or answers that it is none of ours.
func reads(w http.ResponseWriter, r *http.Request, into any) bool {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(into); err != nil {
		answer(w, http.StatusBadRequest, refusal{Error: "the request is not understood: " + err.Error()})
		return false
	}
	return true
}

// Quotas asks how all stand with the quotas. Where there is no server the error wraps
// [ErrNobody].
func (c Client) Quotas(ctx context.Context) (q Quotas, err error) {
	err = c.do(ctx, http.MethodGet, "/quotas", nil, &q)
	return q, err
}

// Grant has the server allow somebody more than a quota, likewise.
func (c Client) Grant(ctx context.Context, g Grant) (q Quota, err error) {
	err = c.do(ctx, http.MethodPost, "/grant", g, &q)
	return q, err
}

// SetRate has the server change a rate, likewise.
func (c Client) SetRate(ctx context.Context, r Rate) error {
	return c.do(ctx, http.MethodPost, "/rate", r, &struct{}{})
}
