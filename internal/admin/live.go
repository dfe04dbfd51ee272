package admin

import (
	"errors"
	"time"
)

// Live is what happens at this moment. Its methods do not block, and may be called
// from many goroutines at once.
type Live interface {
	// Now returns what moves, and what was counted since the server began.
	Now() Now
	// Sessions returns a part of the open sessions.
	Sessions(q SessionQuery) SessionPage
	// EndSession ends the session, or returns ErrNoSession. It does not wait for it.
	EndSession(id uint64) error
	// SlowSession has the session go no faster than a rate such as "1 Mbit/s", both
	// directions together; empty: as fast as its limits allow. It returns ErrNoSession,
	// or an error that wraps ErrBadQuestion where that is no rate.
	SlowSession(id uint64, rate string) error
	// Next returns a channel that is closed when there is something new to see.
	Next() <-chan struct{}
}

// ErrNoSession says that no open session has the number.
var ErrNoSession = errors.New("there is no such open session")

// Now is what moves at this moment.
type Now struct {
	At        time.Time         `json:"at"`
	Started   time.Time         `json:"started" doc:"When the server began"`
	Open      int               `json:"open" doc:"Sessions that are open"`
	Opened    uint64            `json:"opened" doc:"Sessions since the server began"`
	Up        int64             `json:"up" doc:"Bytes from clients to targets since the server began"`
	Down      int64             `json:"down" doc:"Bytes from targets to clients since the server began"`
	SpeedUp   int64             `json:"speed_up" doc:"Bytes a second"`
	SpeedDown int64             `json:"speed_down" doc:"Bytes a second"`
	Refused   map[string]uint64 `json:"refused" doc:"Sessions that came to nothing, by their reason"`
	Ended     map[string]uint64 `json:"ended" doc:"Sessions that were relayed and are over, by their reason"`
	Samples   []Sample          `json:"samples" doc:"The last five minutes, second by second, the oldest first"`
	Refusals  []Refusal         `json:"refusals" doc:"The last sessions that came to nothing, the newest first"`
}

// Sample is what happened in one second.
type Sample struct {
	At      time.Time `json:"at"`
	Up      int64     `json:"up" doc:"Bytes a second"`
	Down    int64     `json:"down" doc:"Bytes a second"`
	Open    int       `json:"open" doc:"Sessions that were open"`
	Refused uint64    `json:"refused" doc:"Sessions that came to nothing"`
}

// Refusal is a session that came to nothing. Its texts are escaped as in the log.
type Refusal struct {
	At       time.Time `json:"at"`
	ID       uint64    `json:"id"`
	Client   string    `json:"client"`
	User     string    `json:"user,omitempty"`
	Protocol string    `json:"protocol,omitempty"`
	Target   string    `json:"target,omitempty"`
	Rule     string    `json:"rule,omitempty"`
	Reason   string    `json:"reason"`
	Detail   string    `json:"detail,omitempty"`
}

// SessionQuery asks for some of the open sessions.
type SessionQuery struct {
	Filter string // what must be in the user, client, target, rule, listener or protocol; empty: anything
	Sort   string // one of SessionOrders; empty: the first
	Offset int
	Limit  int
}

// SessionOrders are the words for SessionQuery.Sort.
func SessionOrders() []string {
	return []string{"speed", "bytes", "newest", "oldest", "user", "client", "target", "rule"}
}

// SessionPage is a part of the open sessions.
type SessionPage struct {
	Open     int       `json:"open" doc:"Sessions that are open"`
	Matched  int       `json:"matched" doc:"Of them, those that pass the filter"`
	Offset   int       `json:"offset"`
	Sessions []Session `json:"sessions"`
}

// Session is an open one. Its texts are escaped as in the log.
type Session struct {
	ID        uint64    `json:"id"`
	Started   time.Time `json:"started"`
	Listener  string    `json:"listener"`
	Client    string    `json:"client"`
	Through   string    `json:"through,omitempty" doc:"The load balancer that named the client"`
	TLS       bool      `json:"tls"`
	Protocol  string    `json:"protocol"`
	Command   string    `json:"command"`
	User      string    `json:"user,omitempty"`
	Proof     string    `json:"proof,omitempty"`
	Target    string    `json:"target"`
	Address   string    `json:"address,omitempty" doc:"What was dialled"`
	Rule      string    `json:"rule,omitempty"`
	Via       string    `json:"via,omitempty"`
	Up        int64     `json:"up" doc:"Bytes from the client to the target"`
	Down      int64     `json:"down" doc:"Bytes from the target to the client"`
	SpeedUp   int64     `json:"speed_up" doc:"Bytes a second"`
	SpeedDown int64     `json:"speed_down" doc:"Bytes a second"`
	Slowed    int64     `json:"slowed,omitempty" doc:"Bits a second that it was slowed to"`
}
