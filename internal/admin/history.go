package admin

import (
	"context"
	"errors"
	"time"
)

// History is what was used.
type History interface {
	// Usage answers from the ledger. It blocks while that is read. An error that
	// wraps ErrBadQuestion says what is wrong with the query; ErrNoLedger says that
	// nothing is kept.
	Usage(ctx context.Context, q UsageQuery) (*UsageReport, error)
}

// ErrNoLedger says that there is no ledger.
var ErrNoLedger = errors.New("no ledger is kept")

// UsageQuery asks what was used, in the words of `sallyport usage`.
type UsageQuery struct {
	By     string `query:"by" doc:"What to sum up by: user, source, rule, listener, host, hour, day or month; default: day"`
	Since  string `query:"since" doc:"A date, a date and a time (UTC), or how long ago, such as 7d; default: 30d"`
	Until  string `query:"until" doc:"The same; default: now"`
	User   string `query:"user" doc:"Only of this user"`
	Source string `query:"source" doc:"Only of this client address"`
	Rule   string `query:"rule" doc:"Only of this rule"`
}

// UsageReport is the answer.
type UsageReport struct {
	Since time.Time   `json:"since,omitzero"`
	Until time.Time   `json:"until,omitzero"`
	Lines []UsageLine `json:"lines"`
	Sum   Use         `json:"sum"`
}

// UsageLine is what was used by one of those that were asked for.
type UsageLine struct {
	Name string `json:"name"`
	Use
}
