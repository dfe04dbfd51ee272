// Package relay moves bytes between two connections, counts them, and ends well.
//
// What is sent is what arrives: a FIN is passed on as a FIN while the other direction goes on, and an end that was no
// completion (a reset, a limit, a cancelled context) arrives as a reset, so that nobody takes a part for the whole.
//
// There are two kinds, which do the same in the same order. Between any two connections a relay is two goroutines, the directions
// (direction.go), that share one session (session.go), which knows when the last byte moved and ends both at the first fault. A
// direction reads and writes through a port (port.go), and holds memory (buffers.go) only while it has bytes in hand.
//
// On Linux a relay between two sockets is a record on an event loop (record_linux.go) with two flows (flow_linux.go), and needs
// neither a goroutine nor a net.Conn. Bulk goes through pipes (pipe_linux.go).
package relay

import (
	"context"
	"errors"
	"fmt"
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

// Fault is the end of a relay by a panic: of its own code, or of what it was given.
type Fault struct {
	Value any
	Stack []byte
}

func (f *Fault) Error() string { return fmt.Sprintf("relay: a fault of the program: %v", f.Value) }

// Side is one of the two connections of a relay.
type Side struct {
	// Conn must keep its deadlines, as they are what ends a wait. If it has CloseWrite, that passes on the other
	// side's FIN; if it or what its NetConn method returns has SetLinger, that turns its Close into a reset.
	// PendingError, if it has that, returns a reset that has come and that no Read has met yet; it does not block.
	// TCP and Unix sockets are read and written beneath the Conn, all others through its Read and Write. Between two such
	// sockets the relay may take over the descriptors and close the Conns as soon as it begins.
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
	// goroutine at a time, and not after the relay's end. They must not block.
	Up, Down Pacer
}

// patience returns how long a relay may be silent, of which one side has said FIN or none has, and what to call it if it is for
// longer. 0: for ever.
func (l Limits) patience(half bool) (time.Duration, error) {
	if half && l.HalfClosed > 0 && (l.Idle <= 0 || l.HalfClosed <= l.Idle) {
		return min(l.HalfClosed, ages), ErrHalfClosed
	}
	return min(l.Idle, ages), ErrIdle
}

// Relay is a relay that goes on by itself.
type Relay interface {
	// Start begins, without waiting for anything. At the end done is called, once and in a goroutine of its own, with what Run
	// would return.
	Start(done func(error))

	// End ends the relay for a reason, unless it has ended; without one it does nothing. It does not wait for the end, and may be
	// called from any goroutine, once the relay was started.
	End(reason error)

	// OwnsSockets reports whether the relay has closed the two Conns and holds the descriptors itself, to close them at the end.
	OwnsSockets() bool
}

// New returns a relay that does what [Run] does. It must be started.
func New(client, target Side, m *Meter, l Limits) Relay {
	return newRelay(client, target, m, l, looped)
}

// Run relays between client and target until both directions have ended and no goroutine is left, and counts into m,
// which must not be nil. It returns nil when both sides said FIN, else the first fault: [ErrIdle], [ErrHalfClosed],
// [ErrClientReset], [ErrTargetReset], the cause of the end of ctx, or a [*Fault]. Any other error of a connection counts as a
// reset by its side.
//
// The connections belong to Run until it returns; their owners close them then. It takes over the deadlines of both, and drops
// those that were set. After a fault both connections have a past deadline, and SO_LINGER 0, so that their Close sends a reset.
// (The Close of a [crypto/tls.Conn] first says that all was said: after a fault its owner closes what is beneath.) Where Run has
// taken over the descriptors it has closed them when it returns, and reset the connections after a fault.
//
// If one side says FIN and the other has no CloseWrite, the FIN cannot be passed on. The other direction then still goes
// on, so that an answer under way arrives; it is for Limits to bound that.
func Run(ctx context.Context, client, target Side, m *Meter, l Limits) error {
	return run(ctx, client, target, m, l, looped)
}

// means are how bytes may be moved. Each needs more of the two connections than the one before, and costs less.
type means int

const (
	streams means = iota // by Read and Write
	sockets              // beneath the Conn, and without memory while it waits
	looped               // without a goroutine, and bulk through pipes
)

// newRelay is New with the best that the connections allow, up to a bound.
func newRelay(client, target Side, m *Meter, l Limits, best means) Relay {
	if best >= looped {
		if r := engage(client, target, m, l); r != nil {
			return r
		}
	}
	return newSession(client, target, m, l, best)
}

// run is Run, likewise.
func run(ctx context.Context, client, target Side, m *Meter, l Limits, best means) error {
	r := newRelay(client, target, m, l, best)
	ended := make(chan error, 1)
	done := func(err error) { ended <- err }
	s, isSession := r.(*session)
	if !isSession {
		r.Start(done)
	}
	stop := context.AfterFunc(ctx, func() { r.End(context.Cause(ctx)) })
	defer stop()
	if isSession {
		s.run(done) // here, and not in a goroutine of its own: it costs one stack less
	}
	return <-ended
}
