package admin

import "time"

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
	Note     string     `json:"note,omitempty"` // after a grant: what a person should know
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
type Rate struct{ Limit, Rate, Up, Down string }
