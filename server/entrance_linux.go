package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

// entrance is a listening socket on a loop, whose clients begin there (quick.go). It
// does what acceptAll does, and takes no goroutine for a client.
type entrance struct {
	serving *serving
	policy  PromptPolicy
	socket  net.Listener // its owner may close it at any time
	raw     syscall.RawConn
	ended   chan error // gets why nobody is accepted any more, once

	// elsewhere runs f in a goroutine of its own, with the contexts of the serving's
	// connections: the first ends them while in their handshakes, the second later.
	elsewhere func(f func(handshakes, sessions context.Context))

	// Why handshakes and sessions are to end; nil: they need not.
	refuse, cut func() error

	// For the loop only.
	loop    *engine.Loop
	handle  engine.Handle // of what looks out for clients
	queued  bool          // it goes on accepting when its turn has come
	over    bool
	entered bool // it has a place at the gate
	resting bool // it waits for something before it goes on accepting
	pause   backoff
	look    engine.Timer

	// For next: a function is made once, and puts there what it has taken.
	take   func(listening uintptr)
	fd     int
	remote netip.AddrPort
	fault  error
}

const (
	// acceptsAtOnce is how many clients are accepted before those who are there get
	// their turn.
	acceptsAtOnce = 32

	// socketLook is how often a listening socket is looked after: nobody is told when
	// its owner closes it.
	socketLook = time.Second
)

// acceptOnLoop is acceptAll for clients that may be served on a loop. It reports
// false, and has done nothing, where none can.
func (s *Server) acceptOnLoop(handshakes, sessions context.Context, sv *serving) (done bool, err error) {
	e := newEntrance(s, sv)
	if e == nil {
		return false, nil
	}
	if e.loop, err = engine.Attach(); err != nil {
		return false, nil
	}
	defer e.loop.Detach()
	e.elsewhere = func(f func(handshakes, sessions context.Context)) { go f(handshakes, sessions) }
	e.refuse, e.cut = func() error { return ended(handshakes) }, func() error { return ended(sessions) }
	context.AfterFunc(handshakes, func() { s.state.handshakes.clear(sv, context.Cause(handshakes)) }) // at the last, when all have gone

	e.loop.Post(e, e.begin)
	select {
	case err = <-e.ended:
	case <-handshakes.Done():
		e.loop.Post(e, func() { e.finish(context.Cause(handshakes)) })
		err = <-e.ended
	}
	return true, err
}

// ended returns the cause of the end of ctx, if it has ended.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// newEntrance returns nil where nobody could be served on a loop.
func newEntrance(s *Server, sv *serving) *entrance {
	policy, prompt := s.Policy.(PromptPolicy)
	l := sv.listener.Load()
	if !prompt || s.Outbound != nil || !l.takesQuick() {
		return nil
	}
	raw := rawListener(sv.socket)
	if raw == nil {
		return nil
	}
	_ = raw.Control(func(listening uintptr) { handDown(int(listening)) })
	e := &entrance{serving: sv, policy: policy, socket: sv.socket, raw: raw, ended: make(chan error, 1)}
	e.take = func(listening uintptr) { e.fd, e.remote, e.fault = engine.Accept(int(listening)) }
	return e
}

// rawListener returns access to a listening socket of TCP; nil: it is none, or cannot
// be told to be.
func rawListener(socket net.Listener) syscall.RawConn {
	switch socket.(type) {
	case *net.TCPListener, *aside:
	default:
		return nil
	}
	raw, err := socket.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// takesQuick reports whether clients of the listener may be served on a loop.
func (l *Listener) takesQuick() bool {
	if l.Mapping != nil {
		return l.TLS == nil && slices.ContainsFunc(l.Mapping.Targets, isPrompt)
	}
	return !l.TLSOnly && !l.speaks(SSH) // whose clients may wait to be greeted
}

// begin puts the socket on the loop.
func (e *entrance) begin() {
	if a, ok := e.socket.(*aside); ok {
		a.take()
	}
	var failed error
	lookout := -1
	err := e.raw.Control(func(fd uintptr) { lookout, failed = engine.Lookout(int(fd)) })
	if err = errors.Join(err, failed); err == nil {
		if e.handle, err = e.loop.Add(lookout, e, 0); err != nil {
			_ = unix.Close(lookout)
		}
	}
	if err != nil {
		e.finish(err)
		return
	}
	e.loop.Set(&e.look, e, e.loop.Now()+socketLook)
	e.accept()
}

// finish ends accepting. The socket is left to its owner.
func (e *entrance) finish(err error) {
	if e.over {
		return
	}
	e.over = true
	e.leaveGate()
	e.loop.Stop(&e.look)
	e.loop.Close(e.handle)
	e.ended <- err
}

// Ready accepts, once a turn.
func (e *entrance) Ready(_ engine.Handle, came engine.Events) {
	if came == 0 {
		e.queued = false
	}
	if !e.queued {
		e.accept()
	}
}

// Expired looks whether the socket is still there.
func (e *entrance) Expired() {
	if err := e.raw.Control(func(uintptr) {}); err != nil {
		e.finish(err)
		return
	}
	e.loop.Set(&e.look, e, e.loop.Now()+socketLook)
}

// Broken ends accepting: whoever serves the listener is told.
func (e *entrance) Broken(fault any, stack []byte) {
	e.serving.server.report(fault, stack)
	e.finish(Failed)
}

// accept accepts whoever has come, as long as the gate has places.
func (e *entrance) accept() {
	if e.resting || e.over {
		return
	}
	e.unblock()
	for range acceptsAtOnce {
		if !e.enterGate() {
			return
		}
		fd, remote, err := e.next()
		if err != nil {
			e.failed(err)
			return
		}
		if e.pause.over() {
			e.serving.sayAccepting()
		}
		e.entered = false // it is the client's place
		e.admit(fd, remote)
	}
	e.queued = true
	e.loop.Requeue(e.handle, 0)
}

// unblock sees to it that accepting does not hold up the loop. Whoever makes a file of
// the socket and gives that to another process turns the socket blocking for all.
func (e *entrance) unblock() {
	_ = e.raw.Control(func(fd uintptr) { // else it is closed, which accepting tells
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK == 0 {
			_ = unix.SetNonblock(int(fd), true)
		}
	})
}

// enterGate takes a place at the gate for the next client, if there is none yet, or
// rests until one is free.
func (e *entrance) enterGate() bool {
	if e.entered {
		return true
	}
	s := e.serving.server
	free, news := s.state.gate.try()
	if news != nil {
		s.sayPaused(*news, s.state.gate.limit)
	}
	e.entered = free == nil
	if !e.entered {
		e.rest(func(ctx context.Context) error {
			select {
			case <-free:
			case <-ctx.Done():
			}
			return nil
		})
	}
	return e.entered
}

func (e *entrance) leaveGate() {
	if e.entered {
		e.entered = false
		e.serving.server.state.gate.leave()
	}
}

// rest goes on accepting when wait returns, or ends with its error.
func (e *entrance) rest(wait func(context.Context) error) {
	e.resting = true
	e.elsewhere(func(handshakes, _ context.Context) {
		err := wait(handshakes)
		e.loop.Post(e, func() {
			e.resting = false
			if err != nil {
				e.finish(err)
			}
			e.accept()
		})
	})
}

// failed sees to a fault in accepting.
func (e *entrance) failed(err error) {
	switch {
	case errors.Is(err, unix.EAGAIN): // that was the last one for now
	case !isTemporary(err):
		e.finish(err)
	default:
		e.leaveGate()
		e.rest(func(ctx context.Context) error {
			if !e.pause.wait(ctx) {
				return err
			}
			if e.pause.first() {
				e.serving.sayFailing(err)
			}
			return nil
		})
	}
}

// next accepts one client.
func (e *entrance) next() (fd int, remote netip.AddrPort, err error) {
	closed := e.raw.Control(e.take)
	switch fd, remote, err = e.fd, e.remote, e.fault; {
	case closed != nil:
		return -1, netip.AddrPort{}, closed
	case errors.Is(err, unix.EAGAIN):
		return -1, netip.AddrPort{}, err
	case err != nil:
		return -1, netip.AddrPort{}, &net.OpError{Op: "accept", Net: "tcp", Addr: e.socket.Addr(), Err: os.NewSyscallError("accept4", err)}
	}
	return fd, remote, nil
}

// admit begins to serve a client.
func (e *entrance) admit(fd int, remote netip.AddrPort) {
	if !e.serving.admit() {
		_ = unix.Close(fd)
		return
	}
	local := e.serving.address
	if local.Addr().IsUnspecified() {
		local = withZone(engine.Local(fd))
	}
	loop := e.loop.Share()
	q := newQuick(e, loop, withZone(remote), local)
	if loop != e.loop {
		loop.Post(q, func() { q.begin(fd) })
		return
	}
	defer func() {
		if fault := recover(); fault != nil { // it is the client's, and not that of all who come
			q.Broken(fault, debug.Stack())
		}
	}()
	q.begin(fd)
}

// withZone names the zone of an address, where it has one, as package net does.
func withZone(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Zone() == "" {
		return a
	}
	index, err := strconv.Atoi(a.Addr().Zone())
	if err != nil {
		return a
	}
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return a
	}
	return netip.AddrPortFrom(a.Addr().WithZone(i.Name), a.Port())
}
