package admin

import (
	"context"
	"errors"
	"time"
)

// Rules are what decides.
type Rules interface {
	// Rules returns those that are in force, in their order.
	Rules() []Rule
	// Listeners returns the names of the listeners.
	Listeners() []string
	// Explain says how a request would fare by the rules that are in force. It
	// blocks while a name is looked up. An error that wraps ErrBadQuestion says what
	// is wrong with the question.
	Explain(ctx context.Context, q Question) (*Explanation, error)
	// Limits returns those of the settings, by their names.
	Limits() []Limit
}

// ErrBadQuestion says that a [Question] makes no sense.
var ErrBadQuestion = errors.New("the question makes no sense")

// Rule is one of them.
type Rule struct {
	Name   string    `json:"name"`
	Deny   bool      `json:"deny"`
	Limits []string  `json:"limits,omitempty" doc:"What its sessions count towards"`
	Via    string    `json:"via,omitempty" doc:"The upstream that they leave by"`
	Hits   uint64    `json:"hits" doc:"Sessions that it has decided since the server began"`
	Last   time.Time `json:"last,omitzero" doc:"When it last did"`
}

// Limit is one of the settings.
type Limit struct {
	Name string `json:"name"`
	Per  string `json:"per" doc:"By what it counts"`
	Text string `json:"text" doc:"What it limits, as the settings say it"`
	Kind string `json:"kind" enum:"rate,directions,quota,sessions,new_sessions"`
}

// Question is a request to be explained, in the words of `sallyport explain`.
type Question struct {
	From     string `query:"from" required:"true" doc:"The client's IP address"`
	To       string `query:"to" required:"true" doc:"HOST:PORT"`
	User     string `query:"user" doc:"Who the client is"`
	Proof    string `query:"proof" doc:"claimed, ident, password, certificate or key"`
	Command  string `query:"command" doc:"connect, bind or udp; default: connect"`
	Protocol string `query:"protocol" doc:"socks4, socks4a, socks5, http, ssh or map"`
	Listener string `query:"listener" doc:"Its name; default: the only one"`
	At       string `query:"at" doc:"A time; default: now"`
}

// Explanation tells how a request fares, and why.
type Explanation struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"` // the log's word, where it is not allowed
	Detail  string `json:"detail,omitempty"` // what there is to say beyond the word
	Rule    string `json:"rule,omitempty"`   // the rule that decided

	Listener string    `json:"listener"`
	Protocol string    `json:"protocol"`
	Command  string    `json:"command"`
	From     string    `json:"from"`
	User     string    `json:"user,omitempty"` // who the client turns out to be
	Proof    string    `json:"proof,omitempty"`
	Target   string    `json:"target"`
	At       time.Time `json:"at"`

	Addresses []string  `json:"addresses,omitempty"` // what the target's name resolved to
	Granted   []string  `json:"granted,omitempty"`   // those of them that may be reached
	ByName    bool      `json:"by_name,omitempty"`   // an upstream looks the name up
	Via       string    `json:"via,omitempty"`       // the upstream
	Outgoing  string    `json:"outgoing,omitempty"`  // the address to leave by
	Until     time.Time `json:"until,omitzero"`      // when the session would be ended
	Limits    []string  `json:"limits,omitempty"`
	Steps     []Step    `json:"steps,omitempty"` // the rules in their order, up to the one that decided
	Notes     []string  `json:"notes,omitempty"` // what is left to say
}

// Step is a rule on the way of a request.
type Step struct {
	Rule  string   `json:"rule"`
	Deny  bool     `json:"deny"`
	Miss  string   `json:"miss,omitempty"`  // the setting that did not match; empty: the rule decided
	Text  string   `json:"text"`            // the same for a person
	Wants []string `json:"wants,omitempty"` // where that is the proof: what would have been believed
}
