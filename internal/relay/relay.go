// Package relay moves bytes between two connections, counts them, and ends well.
//
// What is sent is what arrives: a FIN is passed on as a FIN while the other direction goes on, and an end that was no
// completion (a reset, a limit, a cancelled context) arrives as a reset, so that nobody takes a part for the whole.
//
// A relay is two directions (direction.go) that share one session (session.go), which knows when the last byte moved
// and ends both at the first fault. A direction reads and writes through a port (port.go), and holds memory
// (buffers.go) only while it has bytes in hand. A relay in which nothing moves sleeps (sleep.go): on Linux it then has no
// goroutine either.
package relay

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// Why a relay ended that did not end by a FIN from both sides. The two resets wrap what the system said.
var (
	ErrIdle        = errors.New("relay: no byte moved within the idle limit")
	ErrHalfClosed  = errors.New("relay: no byte moved within the half-closed limit")
	ErrClientReset = errors.New("relay: client reset the connection")
	ErrTargetReset = errors.New("relay: target reset the connection")
)

// Side is one of the two connections of a relay.
type Side struct {
	// Conn must keep its deadlines, as they are what ends a wait. If it has CloseWrite, that passes on the other
	// side's FIN; if it or what its NetConn method returns has SetLinger, that turns its Close into a reset.
	// PendingError, if it has that, returns a reset that has come and that no Read has met yet; it does not block.
	// TCP and Unix sockets are read and written beneath the Conn, all others through its Read and Write.
	Conn net.Conn

	// Head holds bytes that were already read from Conn. They go to the other side first, and are counted.
	Head []byte
}

// Meter counts what a relay moved. It is live, and may be read by any goroutine at any time. The zero value is ready.
type Meter struct{ up, down atomic.Int64 }

// Up returns how many bytes of the client were written to the target.
func (m *Meter) Up() int64 { return m.up.Load() }

// Down returns how many bytes of the target were written to the client.
func (m *Meter) Down() int64 { return m.down.Load() }

// Add counts bytes that were moved by other means than Run.
func (m *Meter) Add(up, down int64) {
	m.up.Add(up)
	m.down.Add(down)
}

// Limits bound the time in which no byte moves, neither up nor down, and how fast they do. A write that makes no progress
// is a time in which none moves, and a pause that a Pacer makes is not. 0 means no bound.
type Limits struct {
	// Idle bounds a relay's silence.
	Idle time.Duration

	// HalfClosed takes the place of Idle, if it is the smaller one, from one side's FIN (which counts as a byte) until
	// the other side's.
	HalfClosed time.Duration

	// Up and Down say how fast the client's bytes and the target's may go; nil: as fast as they do. Each is used by one
	// goroutine at a time, and not after Run.
	Up, Down Pacer
}

// Run relays between client and target until both directions have ended and no goroutine is left, and counts into m,
// which must not be nil. It returns nil when both sides said FIN, else the first fault: [ErrIdle], [ErrHalfClosed],
// [ErrClientReset], [ErrTargetReset], or the cause of the end of ctx. Any other error of a connection counts as a reset
// by its side.
//
// Run never closes a connection; that is left to the owners, who do it after Run: of a relay that sleeps it may pass
// unnoticed. It takes over the deadlines of both,
// and drops those that were set. After a fault both connections have a past deadline, and SO_LINGER 0, so that their
// Close sends a reset. (The Close of a [crypto/tls.Conn] first says that all was said: after a fault its owner closes what
// is beneath.)
//
// If one side says FIN and the other has no CloseWrite, the FIN cannot be passed on. The other direction then still goes
// on, so that an answer under way arrives; it is for Limits to bound that.
func Run(ctx context.Context, client, target Side, m *Meter, l Limits) error {
	return run(ctx, client, target, m, l, sleeping)
}

// Start does what Run does, and calls done once with what Run would return, when Run would. It uses the caller's goroutine
// while bytes move, and returns when the relay has ended, or earlier: from then on the relay goes on by itself, and while
// it sleeps without any goroutine. done may block, and be called before Start returns.
func Start(ctx context.Context, client, target Side, m *Meter, l Limits, done func(error)) {
	start(ctx, client, target, m, l, sleeping, done)
}

// means are how bytes may be moved. Each needs more of the two connections than the one before, and costs less.
type means int

const (
	streams  means = iota // by Read and Write
	sockets               // beneath the Conn, and without memory while it waits
	spliced               // and bulk through pipes
	sleeping              // and without a goroutine after a while in which nothing moved
)

// run is Run with the best that the connections allow, up to a bound.
func run(ctx context.Context, client, target Side, m *Meter, l Limits, best means) error {
	ended := make(chan error, 1)
	start(ctx, client, target, m, l, best, func(err error) { ended <- err })
	return <-ended
}

// start is Start, likewise.
func start(ctx context.Context, client, target Side, m *Meter, l Limits, best means, done func(error)) {
	newSession(client, target, m, l, best).run(ctx, done)
}
