package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

// connect begins to connect to the target, if it is one that the system itself
// reaches. Its addresses are tried one after the other, as by dialFirst, as long as
// each answers soon.
func (q *quick) connect(to passage) {
	if len(to.addrs) > 1 {
		to.addrs = interleave(to.addrs)
		to.addrs = to.addrs[:min(len(to.addrs), maxAttempts)]
	}
	q.to, q.fault = to, nil
	q.until = q.loop.Now() + q.patience()
	if len(to.addrs) == 0 || to.way != nil && (to.way.Upstream != nil || to.way.Outbound != nil) {
		q.dialElsewhere()
		return
	}
	q.dial()
}

// dialled is the address at hand.
func (q *quick) dialled() netip.AddrPort { return q.to.addrs[0] }

// dial begins to connect to the address at hand.
func (q *quick) dial() {
	if q.dialled().Addr().Zone() != "" {
		q.dialElsewhere()
		return
	}
	fd, err := socketTo(q.dialled())
	if err != nil {
		q.dialElsewhere() // where the same will show, and be said
		return
	}
	err = engine.Connect(fd, q.dialled())
	switch {
	case err == nil, errors.Is(err, unix.EALREADY):
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EAGAIN): // it may pass: Go's Dialer tries again
		_ = unix.Close(fd)
		q.dialElsewhere()
		return
	default:
		_ = unix.Close(fd)
		q.missed(dialError(q.dialled(), err))
		return
	}
	var more engine.Events
	if err != nil {
		more = engine.Writable // that is what tells of its answer
	}
	target, fault := q.loop.Add(fd, q, more)
	if fault != nil {
		_ = unix.Close(fd)
		q.missed(fault)
		return
	}
	q.target = target
	if err == nil {
		q.connected()
		return
	}
	q.stage = toConnect
	at := q.until
	if len(q.to.addrs) > 1 {
		at = min(at, q.loop.Now()+attemptDelay)
	}
	q.loop.Set(&q.timer, q, at)
	q.clientFailed() // right behind its request
}

// patience is how long the target may take.
func (q *quick) patience() time.Duration {
	if q.round != nil {
		return q.round.patience()
	}
	return q.server.timeouts().Connect
}

// missed goes on where the address at hand was not reached, if there is another.
func (q *quick) missed(reason error) {
	q.loop.Close(q.target)
	q.targetCame = 0
	q.fault = cmp.Or(q.fault, reason)
	if len(q.to.addrs) == 1 {
		q.failed(q.fault)
		return
	}
	q.to.addrs = q.to.addrs[1:]
	q.dial()
}

// failed goes on where a target was not reached, if there is another.
func (q *quick) failed(reason error) {
	if q.round == nil {
		q.refuse(reason)
		return
	}
	q.loop.Close(q.target)
	q.targetCame = 0
	q.round.failed(reason, blamesTarget(reason))
	q.tryTargets()
}

// connectSlow ends the waiting for the address at hand.
func (q *quick) connectSlow() {
	switch {
	case len(q.to.addrs) > 1 && q.loop.Now() < q.until: // from here on several are tried beside each other
		q.to.addrs = append(q.to.addrs[1:len(q.to.addrs):len(q.to.addrs)], q.dialled())
		q.dialElsewhere()
	case q.round != nil && len(q.round.left) > 1 && time.Now().Before(q.round.until):
		q.failed(TimedOut)
	default:
		q.refuse(TimedOut)
	}
}

// dialElsewhere has a goroutine go on with what was granted.
func (q *quick) dialElsewhere() {
	q.loop.Close(q.target)
	if q.round != nil {
		q.roundElsewhere(q.to.found)
		return
	}
	q.connectElsewhere(q.by(q.to.found))
}

// found is a verdict that is known.
func (p passage) found(context.Context) (passage, error) { return p, nil }

// socketTo returns a socket for a target.
func socketTo(to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = engine.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// dialError is what Go's Dialer would say.
func dialError(to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", err)}
}

// connectEnded is called when something has come from a target that did not answer
// at once.
func (q *quick) connectEnded(came engine.Events) {
	if came&(engine.Writable|engine.Failed) == 0 {
		return
	}
	switch err := engine.Connect(q.loop.Descriptor(q.target), q.dialled()); { // to ask again is to be told what came of it
	case errors.Is(err, unix.EALREADY): // it was not about that
	case err != nil:
		q.missed(dialError(q.dialled(), err))
	default:
		q.connected()
	}
}

// clientFailed ends reaching the target where the client has reset its connection
// meanwhile.
func (q *quick) clientFailed() {
	if q.came&engine.Failed == 0 {
		return
	}
	failed, err := unix.GetsockoptInt(q.loop.Descriptor(q.client), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && failed != 0 {
		q.refuse(ClientReset)
	}
}

// connected answers the client.
func (q *quick) connected() {
	q.loop.Stop(&q.timer)
	local := engine.Local(q.loop.Descriptor(q.target))
	if local == q.dialled() { // it has met itself; Go's Dialer knows what to do about it
		q.dialElsewhere()
		return
	}
	if q.round != nil {
		if err := q.introduceNow(); err != nil {
			q.failed(err)
			return
		}
		q.path.release = q.round.reached()
	}
	q.session.reached(q.dialled())
	if why := q.session.ending(); why != nil {
		q.refuse(why)
		return
	}
	q.out = q.arrive(q.said[:0], &q.path, local)
	q.answer()
}

// answer sends what is left of the answer.
func (q *quick) answer() {
	var n int
	var err error
	for len(q.out) > 0 && err == nil {
		n, err = q.write(q.out)
		q.out = q.out[n:]
	}
	switch {
	case len(q.out) == 0:
		q.out = nil
		q.loop.Stop(&q.timer)
		q.relay()
	case errors.Is(err, unix.EAGAIN):
		if q.stage != toAnswer {
			q.stage = toAnswer
			q.loop.AwaitRoom(q.client)
			q.loop.Set(&q.timer, q, q.loop.Now()+lingerTime)
		}
	default:
		q.end(q.unanswered(os.NewSyscallError("write", err)))
	}
}

// unanswered is why a client did not get its answer.
func (q *quick) unanswered(err error) error { return fmt.Errorf("%w: %w", ClientGone, err) }
