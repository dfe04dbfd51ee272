package relay

import (
	"runtime/debug"

	"github.com/sallyport/sallyport/internal/engine"
)

// Socket is a socket that a loop watches already.
type Socket struct {
	Handle engine.Handle
	Came   engine.Events // what was told of it and nobody has acted upon
	Head   []byte        // as in Side
}

// Joined is a relay between two sockets that a loop watches. It is a part of what its owner keeps of it, and starts once.
type Joined struct{ record record }

// Owner is told of a relay's end.
type Owner interface {
	// RelayEnded is called once, on the goroutine of the loop that the relay is on by then, with what Run would return: maybe before
	// Start returns. The sockets are closed by then.
	RelayEnded(reason error)

	// RelayMoves is called before the relay goes on on another loop, on the goroutine of the one that it is on. What the owner has
	// on that it gives up.
	RelayMoves()
}

// Start begins, and takes over the sockets and the caller's use of the loop, whose Detach it is that comes behind RelayEnded. It is
// called on the loop's goroutine.
func (j *Joined) Start(loop *engine.Loop, client, target Socket, m *Meter, l Limits, owner Owner) {
	r := &j.record
	r.meter, r.limits, r.owner = m, l, owner
	r.at.Store(loop)
	for i, s := range [2]Socket{client, target} {
		r.sides[i] = side{handle: s.Handle, fd: int32(loop.Descriptor(s.Handle))}
		r.sides[i].note(s.Came)
		if len(s.Head) > 0 {
			r.flows[i].stock = &stock{rest: s.Head}
		}
		loop.Hand(s.Handle, r)
	}
	defer func() { // whoever calls is not to meet a fault of ours
		if fault := recover(); fault != nil {
			r.Broken(fault, debug.Stack())
		}
	}()
	r.begun()
	r.work()
}

// End is what Relay says.
func (j *Joined) End(reason error) { j.record.End(reason) }
