package relay

import (
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

// record is a relay between two sockets on an event loop. All of it belongs to the loop's goroutine. While nothing moves it is what
// the relay holds, besides two descriptors.
//
// Of the sides, and of the flows that read from them, the first is the client's, the second the target's.
type record struct {
	at     atomic.Pointer[engine.Loop] // the loop that it is on; it may be asked for from anywhere
	meter  *Meter
	owner  Owner
	limits Limits
	sides  [2]side
	flows  [2]flow
	last   time.Duration // when a byte last moved, by the loop's clock
	timer  engine.Timer  // for silence, and for the pauses of the pacers
	ending atomic.Bool   // End was called: nothing more is moved
	half   bool          // one side has said FIN
	over   bool
	queued bool // it will be told by the loop to go on
}

// elsewhere is an owner that is on no loop: it may block.
type elsewhere func(reason error)

// RelayEnded implements Owner.
func (done elsewhere) RelayEnded(reason error) { go done(reason) }

// RelayMoves implements Owner.
func (elsewhere) RelayMoves() {}

// side is one of the two sockets, and what is known of it. Events are told once, so what they said is kept until a call proves
// that it holds no longer.
type side struct {
	handle   engine.Handle
	fd       int32
	readable bool // there may be something to read
	writable bool // a write would not wait, as far as is known
	probe    bool // a read that brings less than there is room for does not mean that nothing is left
	failed   bool // an error may have come that nobody has met yet
}

// resets are what it is called when a side fails.
var resets = [2]error{ErrClientReset, ErrTargetReset}

// engage takes the sockets over for a loop, or returns nil where that cannot be, and nothing has happened.
func engage(client, target Side, m *Meter, l Limits) Relay {
	r := &record{meter: m, limits: l}
	for i, s := range []Side{client, target} {
		fd := duplicate(s.Conn)
		if fd < 0 {
			r.closeSides()
			return nil
		}
		r.sides[i] = side{fd: int32(fd), writable: true, probe: isUnix(s.Conn)} // until a write says no
		if len(s.Head) > 0 {
			r.flows[i].stock = &stock{rest: s.Head}
		}
	}
	loop, err := engine.Attach()
	if err != nil {
		r.closeSides()
		return nil
	}
	r.at.Store(loop)
	_ = client.Conn.Close() // so that the runtime's poller is not told of all that comes, too
	_ = target.Conn.Close()
	return r
}

// Start is what Relay says.
func (r *record) Start(done func(error)) {
	r.owner = elsewhere(done)
	r.loop().Post(r, r.begin)
}

// loop returns the one that it is on.
func (r *record) loop() *engine.Loop { return r.at.Load() }

// OwnsSockets returns true.
func (*record) OwnsSockets() bool { return true }

// duplicate returns another descriptor of conn, which the caller closes, or -1.
func duplicate(conn net.Conn) int {
	raw := rawSocket(conn)
	if raw == nil {
		return -1
	}
	copied := -1 // and never one of the standard streams
	err := raw.Control(func(fd uintptr) {
		if n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			copied = n
		}
	})
	if err != nil {
		return -1
	}
	return copied
}

// isUnix reports whether conn is a Unix socket, of which a read also ends where another writer, or a descriptor, begins.
func isUnix(conn net.Conn) bool {
	_, ok := conn.(*net.UnixConn)
	return ok
}

// begin is the first that is done on the loop.
func (r *record) begin() {
	for i := range r.sides {
		h, err := r.loop().Add(int(r.sides[i].fd), r, 0)
		if err != nil {
			r.end(faultOf(resets[i], err))
			return
		}
		r.sides[i].handle = h
	}
	r.begun()
	r.work() // nothing may ever come, and what was read before has to go
}

// begun begins to measure time and rates.
func (r *record) begun() {
	r.last = r.loop().Now()
	for i := range r.flows {
		if pacer := r.pacer(i); pacer != nil {
			r.pause(i, pacer.Took(0))
		}
	}
	r.schedule()
}

// Ready does what can be done now.
func (r *record) Ready(h engine.Handle, e engine.Events) {
	i := 0
	if h == r.sides[1].handle {
		i = 1
	}
	r.sides[i].note(e)
	switch {
	case e == 0: // its turn has come
		r.queued = false
		r.work()
	case r.flows[0].bulk || r.flows[1].bulk:
		r.enqueue() // bulk waits for whoever has little to say
	default:
		r.work()
	}
}

// enqueue has the loop tell the record when its turn has come.
func (r *record) enqueue() {
	if !r.queued {
		r.queued = true
		r.loop().Requeue(r.sides[0].handle, 0)
	}
}

// note keeps what has come.
func (s *side) note(e engine.Events) {
	s.readable = s.readable || e&(engine.Readable|engine.Urgent|engine.Ended|engine.Hung|engine.Failed) != 0
	s.writable = s.writable || e&(engine.Writable|engine.Hung|engine.Failed) != 0
	s.probe = s.probe || e&(engine.Urgent|engine.Ended|engine.Hung|engine.Failed) != 0
	s.failed = s.failed || e&engine.Failed != 0
}

// Expired ends pauses that are over, and a relay that was silent for too long.
func (r *record) Expired() {
	now := r.loop().Now()
	for i := range r.flows {
		f := &r.flows[i]
		if f.resume == 0 {
			continue
		}
		r.last = now // a pause is no silence
		if f.resume <= now {
			f.resume = 0
		}
	}
	if r.impatient() {
		return
	}
	r.schedule()
	if !r.queued { // else it has had its share
		r.work()
	}
}

// impatient ends a relay that was silent for too long, and reports whether it was.
func (r *record) impatient() bool {
	limit, reason := r.limits.patience(r.half)
	if limit <= 0 || r.last+limit > r.loop().Now() {
		return false
	}
	r.end(reason)
	return true
}

// longPatience is how long a patience needs no timer: it takes a little longer, which nobody minds.
const longPatience = 60 * engine.SweepRound

// Swept ends a relay of long patience that was silent for too long.
func (r *record) Swept() { _ = r.resting() && r.impatient() }

// resting reports whether no flow makes a pause, which is no silence.
func (r *record) resting() bool { return r.flows[0].resume == 0 && r.flows[1].resume == 0 }

// schedule sets the timer for what comes first: the end of a pause or of a short patience. That the latter is put off by every byte
// is seen to when it comes.
func (r *record) schedule() {
	at := never
	if limit, _ := r.limits.patience(r.half); limit > 0 && limit < longPatience {
		at = r.last + limit
	}
	for i := range r.flows {
		if resume := r.flows[i].resume; resume > 0 {
			at = min(at, resume)
		}
	}
	if at < never {
		r.loop().Set(&r.timer, r, at)
	}
}

// work moves what can be moved, both ways, and sees to what follows from it.
func (r *record) work() {
	again := false
	for i := range r.flows {
		more, err := r.move(i)
		if err != nil {
			r.end(err)
			return
		}
		again = again || more
	}
	if r.flows[0].ended && r.flows[1].ended {
		r.end(nil)
		return
	}
	for i := range r.sides {
		if err := r.unmet(i); err != nil {
			r.end(err)
			return
		}
	}
	if again {
		r.enqueue()
	}
}

// unmet returns the error of a side that no read will meet, since none is made for now or ever again.
func (r *record) unmet(i int) error {
	if f := &r.flows[i]; !f.ended && f.resume == 0 && r.sides[1-i].writable {
		return nil
	}
	return r.pendingError(i)
}

// pendingError returns the error that has come from a side and that no call has met, if one may have.
func (r *record) pendingError(i int) error {
	s := &r.sides[i]
	if !s.failed {
		return nil
	}
	s.failed = false
	pending, err := unix.GetsockoptInt(int(s.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && pending != 0 { // two FINs are no error
		err = unix.Errno(pending)
	}
	if err != nil {
		return faultOf(resets[i], err)
	}
	return nil
}

// End is what Relay says.
func (r *record) End(reason error) {
	if reason == nil {
		return
	}
	r.ending.Store(true) // it may be a pacer that calls
	r.post(func() {
		if !r.over {
			r.end(reason)
		}
	})
}

// post has f, which may be run twice, run on the loop that the record is on by then.
func (r *record) post(f func()) {
	loop := r.loop()
	loop.Post(r, func() {
		if r.loop() != loop {
			r.post(f) // it has moved meanwhile
			return
		}
		f()
	})
	if r.loop() != loop {
		r.post(f) // the one before may have ended, and dropped it
	}
}

// Broken ends the relay that has panicked.
func (r *record) Broken(fault any, stack []byte) {
	if !r.over {
		r.end(&Fault{fault, stack})
	}
}

// end closes both sockets, by a reset if there was a fault, and tells why the relay is over.
func (r *record) end(err error) {
	r.over = true
	r.loop().Stop(&r.timer)
	for i := range r.sides {
		r.flows[i].giveBack()
		if err != nil {
			_ = unix.SetsockoptLinger(int(r.sides[i].fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // as resetOnClose
		}
	}
	r.closeSides()
	defer r.loop().Detach()
	r.owner.RelayEnded(err)
}

func (r *record) closeSides() {
	for _, s := range r.sides {
		switch {
		case s.handle != 0:
			r.loop().Close(s.handle)
		case s.fd > 0:
			_ = unix.Close(int(s.fd)) // it is ours alone
		}
	}
}
