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

// Join starts a relay between two sockets that a loop watches, and takes them over. It is called on the loop's goroutine, and done
// is, too, with what Run would return, maybe before Join returns. The sockets are closed by then.
func Join(loop *engine.Loop, client, target Socket, m *Meter, l Limits, done func(error)) (going Relay) {
	r := &record{loop: loop, meter: m, limits: l, done: done, joined: true}
	for i, s := range [2]Socket{client, target} {
		r.sides[i] = side{handle: s.Handle, fd: int32(loop.Descriptor(s.Handle))}
		r.sides[i].note(s.Came)
		if len(s.Head) > 0 {
			r.flows[i].stock = &stock{rest: s.Head}
		}
		loop.Hand(s.Handle, r)
	}
	going = r
	defer func() { // whoever calls is not to meet a fault of ours
		if fault := recover(); fault != nil {
			r.Broken(fault, debug.Stack())
		}
	}()
	r.begun()
	r.work()
	return r
}
