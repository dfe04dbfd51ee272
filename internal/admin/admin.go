// Package admin is the way to a running server: an API and a dashboard, on a unix
// socket for whoever the server runs as and on an address for who signs in, and the
// client of the API. What it shows and does it gets from interfaces of its own.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
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
	Grant(g Grant) (Quota, error)
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

// Limits of the API. Nobody who may use it is in a hurry, or has much to say.
const (
	requestTime = 10 * time.Second // for a request to arrive
	endTime     = 2 * time.Second  // for answers under way when the server stops
	maxBody     = 64 << 10         // bytes of a request's body that are read
)

// Serve answers on socket by h until ctx ends, which ends the contexts of requests
// too. It closes the socket, and returns when everything that it started has ended,
// or after the time that answers get.
func Serve(ctx context.Context, socket net.Listener, h http.Handler, log *slog.Logger) {
	s := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       requestTime,
		IdleTimeout:       requestTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin socket failed: administrators and commands that use it cannot reach the server any more", "address", socket.Addr().String(), "error", err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-served:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if s.Shutdown(end) != nil {
		_ = s.Close() // nothing is left to be said
	}
	<-served
}
