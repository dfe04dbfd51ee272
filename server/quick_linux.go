package server

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
	"github.com/sallyport/sallyport/socks"
)

// quick is a client connection that is served on a loop: by SOCKS, a CONNECT of HTTP or a
// port mapping, and to a target that can be decided on and connected to without asking
// anybody. It takes the steps of an exchange, which it is. As soon as another one is
// wanted, the exchange goes on in a goroutine from where it is (quick_leave_linux.go).
//
// All of it belongs to the loop's goroutine, until it has left.
type quick struct {
	exchange
	driver   driver
	waiter   waiter // its place among the handshakes
	entrance *entrance
	loop     *engine.Loop
	client   engine.Handle
	target   engine.Handle
	timer    engine.Timer
	stage    stage
	to       passage       // where it is to come to; the first of its addresses is at hand
	until    time.Duration // when the time for them is over, by the loop's clock
	fault    error         // of the first of them that failed
	path     route
	round    *round // of a mapping with a choice; nil: it is none
	out      []byte // what of the answer the client has not taken yet

	// What was told of either and not acted upon, which is told only once.
	came, targetCame engine.Events

	// What else a session needs until it rests lies here: one piece of memory costs less
	// than five.
	whole whole
	bed   bed
	at    [1]netip.AddrPort // the first of the target's addresses
	said  [40]byte          // the answer, if it is no longer than that: no grant is
}

// stage is how far a quick has come.
type stage int

const (
	toShake   stage = iota // the client is to say what it wants
	toDecide               // nobody is waited for
	toConnect              // the target is to answer
	toAnswer               // the client is to take the answer
	hasLeft                // a goroutine has it, or its relay
	hasEnded
)

func newQuick(e *entrance, l *engine.Loop, remote, local netip.AddrPort) *quick {
	sv := e.serving
	q := &quick{
		exchange: exchange{server: sv.server, remote: remote, local: local, listener: sv.listener.Load(), serving: sv, gone: sv.gone},
		waiter:   waiter{serving: sv}, entrance: e, loop: l,
	}
	q.beginIn(&q.whole)
	q.driver = newDriver(&q.exchange)
	return q
}

// begin puts the client's descriptor on the loop.
func (q *quick) begin(fd int) {
	var err error
	if q.client, err = q.loop.Add(fd, q, 0); err != nil {
		_ = unix.Close(fd)
		q.end(err)
		return
	}
	next := q.driver.first()
	if next.over() && q.listener.takesQuick() { // a mapping's, which there is nothing to wait for
		q.asked(next)
		return
	}
	q.server.state.handshakes.enter(&q.waiter, q.session.Client.Addr(), q)
	if why := q.entrance.refuse(); why != nil { // since the queue was cleared, maybe
		q.end(why)
		return
	}
	if !q.listener.takesQuick() { // any more
		q.shakeElsewhere(next)
		return
	}
	q.loop.Set(&q.timer, q, q.loop.Now()+q.server.timeouts().Handshake)
}

// End implements ender: it has the loop end what the quick does for a reason; nil: it is
// over anyway. It may be called from any goroutine.
func (q *quick) End(reason error) {
	if reason != nil {
		q.loop.Post(q, func() { q.stop(reason) })
	}
}

// stop ends what the quick does.
func (q *quick) stop(reason error) {
	switch q.stage {
	case toShake:
		q.unasked(reason)
	case toConnect:
		q.refuse(reason)
	case toAnswer:
		q.end(reason)
	}
}

// Ready goes on with what has come.
func (q *quick) Ready(h engine.Handle, came engine.Events) {
	if h == q.client {
		q.came |= came
	} else {
		q.targetCame |= came
	}
	switch {
	case q.stage == toShake:
		q.shake()
	case q.stage == toConnect && h == q.target:
		q.connectEnded(came)
	case q.stage == toConnect:
		q.clientFailed()
	case q.stage == toAnswer && h == q.client:
		q.answer()
	}
}

// Expired ends what has taken too long.
func (q *quick) Expired() {
	switch q.stage {
	case toShake:
		if q.server.state.handshakes.leave(&q.waiter) { // else stop will be called
			q.unasked(HandshakeSlow)
		}
	case toConnect:
		q.connectSlow()
	case toAnswer:
		q.end(q.unanswered(os.ErrDeadlineExceeded))
	}
}

// Broken ends the session that has met a fault of the proxy's own code.
func (q *quick) Broken(fault any, stack []byte) {
	q.server.report(fault, stack)
	if q.stage != hasLeft {
		q.end(Failed)
	}
}

// shake reads for the handshake, and does what that wants.
func (q *quick) shake() {
	if q.came&(engine.Readable|engine.Ended|engine.Hung|engine.Failed) == 0 {
		return
	}
	for q.stage == toShake && q.came != 0 {
		room, n, err := q.read()
		switch {
		case errors.Is(err, unix.EAGAIN):
			q.came = 0
			continue
		case err != nil:
			q.end(handshakeEnd(os.NewSyscallError("read", err)))
			return
		case n == 0:
			q.end(ClientGone)
			return
		}
		if n < room && q.came&(engine.Ended|engine.Hung|engine.Failed|engine.Urgent) == 0 {
			q.came = 0 // what comes behind that will be told
		}
		q.advance()
	}
	if q.stage == toShake {
		q.driver.buf = slices.Clone(q.driver.buf) // it lies in the loop's memory
	}
}

// read reads into the loop's memory, behind what was not taken yet.
func (q *quick) read() (room, n int, err error) {
	buf := q.loop.Scratch()[:headRead]
	had := copy(buf, q.driver.buf)
	n, err = engine.Read(q.loop.Descriptor(q.client), buf[had:])
	q.driver.buf = buf[:had+max(0, n)]
	return len(buf) - had, n, err
}

// advance goes on with the handshake as far as what was read leads.
func (q *quick) advance() {
	for {
		next, err := q.driver.advance()
		switch {
		case err != nil:
			q.end(handshakeEnd(err))
			return
		case next.request != nil && next.request.Command == socks.Connect:
			if q.server.state.handshakes.leave(&q.waiter) { // else it had to make room: stop will be called
				q.asked(next)
			}
			return
		case next.stream != nil:
			q.converse(next)
			return
		case next.over(), next.secure, next.credentials != nil:
			q.shakeElsewhere(next)
			return
		case len(next.reply) == 0:
			return
		}
		if n, _ := q.write(next.reply); n < len(next.reply) {
			q.shakeElsewhere(step{reply: next.reply[n:]}) // where an error will show again
			return
		}
	}
}

// write sends to the client what it takes at once.
func (q *quick) write(p []byte) (n int, err error) {
	n, err = engine.Write(q.loop.Descriptor(q.client), p)
	return max(0, n), err
}

// asked decides the request that the handshake, which it has left, has come to.
func (q *quick) asked(last step) {
	q.loop.Stop(&q.timer)
	q.stage = toDecide
	_ = q.requested(last, slices.Clone(q.driver.buf)) // it is no refusal
	q.driver.buf = nil
	q.openedFor(q)
	if why := q.entrance.cut(); why != nil { // since the sessions were ended, maybe
		q.session.End(why)
	}
	if m := q.listener.Mapping; m != nil && !m.isPlain() {
		q.round = q.newRound(m)
		q.tryTargets()
		return
	}
	to, known, err := q.judgeNow()
	switch {
	case !known:
		q.connectElsewhere(q.approach())
	case err != nil:
		q.refuse(err)
	default:
		q.connect(to)
	}
}

// judgeNow is judge for a decision that can be had at once, which the policy knows
// then.
func (q *quick) judgeNow() (to passage, known bool, err error) {
	if err := aims(q.request); err != nil {
		return passage{}, true, err
	}
	judge := q.server.state.judge.Load()
	grant, known, err := q.entrance.policy.DecideNow(q.request)
	if !known {
		return passage{}, false, nil
	}
	q.hear(&grant, err, judge)
	if why := q.session.ending(); why != nil {
		err = why
	}
	if err := q.enter(grant, err); err != nil {
		return passage{}, true, err
	}
	to, err = q.passage(q.at[:0], grant)
	return to, true, err
}

// end records how the connection ended, and closes it.
func (q *quick) end(reason error) {
	if q.stage == hasEnded {
		return
	}
	q.stage = hasEnded
	q.loop.Stop(&q.timer)
	q.server.state.handshakes.leave(&q.waiter)
	defer q.drop() // and be it that the recorder panics
	q.closed(reason)
}

// drop closes what is left. Another call does nothing.
func (q *quick) drop() {
	gone := q.gone
	if gone == nil {
		return
	}
	q.gone = nil
	q.path.end()
	q.loop.Close(q.target)
	q.loop.Close(q.client)
	q.loop.Detach()
	gone()
}
