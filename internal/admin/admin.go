// Package admin is the way to a running server: an API and a dashboard, on a unix
// socket for whoever the server runs as and on an address for who signs in, and the
// client of the API. What it shows and does it gets from interfaces of its own.
package admin

import (
	"context"
	"time"
)

// Daemon is what the API shows and steers. All methods may be called from many
// goroutines at once.
type Daemon interface {
	// Reload reads the settings anew. Faults that left the old ones in force are
	// a [*Faults]; any other error says why nothing was tried.
	Reload(ctx context.Context) error
	// Upgrade has another process take over, and returns when that serves. The
	// error says why none does.
	Upgrade(ctx context.Context) (Upgrade, error)
	// Status returns what there is to know. It may wait for a reload to end.
	Status() Status
	// Quotas returns how all stand with the quotas.
	Quotas() Quotas
	// Grant allows somebody more than a quota; an error says why not.
	Grant(ctx context.Context, g Grant) (Quota, error)
	// SetRate changes a limit until the next reload; an error says why not.
	SetRate(r Rate) error
}

// Faults are what keeps settings from coming into force.
type Faults struct {
	Text string // for a person, of one or more lines
}

// Error returns the text.
func (f *Faults) Error() string { return f.Text }

// Status is what is known of a running server.
type Status struct {
	Version   string     `json:"version"`
	Started   time.Time  `json:"started"`
	Settings  string     `json:"settings,omitempty"` // the settings file, from the root; empty: the built-in settings
	Listeners []Listener `json:"listeners"`
	Sessions  int        `json:"sessions"`              // that are open
	Reload    *Reload    `json:"last_reload,omitempty"` // nil: there was none
	Ledger    *Ledger    `json:"ledger,omitempty"`      // nil: there is none
}

// Ledger is how the ledger fares. The counts are since the start.
type Ledger struct {
	Store  string     `json:"store"` // without a password
	Node   string     `json:"node"`
	Lost   bool       `json:"lost"`            // it cannot be written at the moment
	Since  *time.Time `json:"since,omitempty"` // when it was lost, or was back; nil: it never was lost
	Writes int64      `json:"writes"`
	Failed int64      `json:"failed_writes"`
}

// Listener is where clients come to.
type Listener struct {
	Name      string   `json:"name"`
	Address   string   `json:"address"`
	Protocols []string `json:"protocols"`
}

// Reload is how the last reload went.
type Reload struct {
	At     time.Time `json:"at"`
	Faults string    `json:"faults,omitempty"` // empty: the settings of then are in force
}

// Upgrade is how one process took the place of another.
type Upgrade struct {
	Before   int `json:"before"`   // the process that ends with its last session
	PID      int `json:"pid"`      // the process that serves
	Sessions int `json:"sessions"` // that the first one still has
}

// maxBody is how many bytes of a request's body are read. Nobody who may use the API has
// much to say.
const maxBody = 64 << 10
