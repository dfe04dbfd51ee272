package relay

import "github.com/sallyport/sallyport/internal/engine"

// Move implements engine.Mover: what was read and not written goes along.
func (r *record) Move(to *engine.Loop) {
	r.owner.RelayMoves() // first: if it has a fault, the relay ends where it is
	from := r.loop()
	from.Stop(&r.timer)
	for i := range r.sides {
		from.Release(r.sides[i].handle)
		r.sides[i].handle = 0 // it is closed by its number, should the end come first
	}
	r.queued = false
	r.at.Store(to)
	to.Post(r, r.settle)
	from.Detach()
}

// settle is the first that is done on another loop.
func (r *record) settle() {
	if r.over {
		return
	}
	for i := range r.sides {
		s := &r.sides[i]
		var more engine.Events
		if r.flows[1-i].asked {
			more = engine.Writable
		}
		h, err := r.loop().Add(int(s.fd), r, more) // which tells of what is there, too
		if err != nil {
			r.end(faultOf(resets[i], err))
			return
		}
		s.handle = h
	}
	r.schedule()
	r.work()
}
