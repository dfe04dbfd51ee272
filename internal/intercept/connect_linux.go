//go:build amd64 || arm64

package intercept

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// How long a program waits for the proxy at the most: about as long as it would wait for
// a silent target, or, where it has said that it does not wait at all, as short as most
// programs have patience for a connection.
const (
	waitingPatience = 2 * time.Minute
	hurriedPatience = 20 * time.Second
)

// connectStream judges where a socket of TCP is to be connected. It takes the socket over.
func (i *Interceptor) connectStream(ctx, relays context.Context, call *notification, s socket, a address) {
	isDNS := a.to.Port() == dnsPort
	switch {
	case (a.family == unix.AF_INET) != (s.option(unix.SO_DOMAIN) == unix.AF_INET), // which the kernel refuses
		isHere(a.to.Addr()) && !isDNS:
		i.pass(call)
	case s.peer().IsValid():
		i.connectAgain(call, s, a.to)
	case !i.beginConnect():
		i.answer(call, unix.EADDRNOTAVAIL) // EAGAIN tells many that it is under way
	default:
		again := *call
		i.work.Go(func() {
			if isDNS {
				i.serveNames(ctx, &again, s, a.to)
			} else {
				i.reach(ctx, relays, &again, s, a.to)
			}
		})
		return
	}
	s.close()
}

// beginConnect takes a place for a connection on its way; endConnect gives it back.
func (i *Interceptor) beginConnect() bool {
	select {
	case i.connects <- struct{}{}:
		return true
	default:
		return false
	}
}

func (i *Interceptor) endConnect() { <-i.connects }

// connectAgain is for a socket that is connected. To where it is already, it may be that
// a signal had the program's call made a second time (Linux before 6.17).
func (i *Interceptor) connectAgain(call *notification, s socket, to netip.AddrPort) {
	if named, ok := i.passages.of(s.local()); ok && i.door.at.has(s.peer()) && named == to {
		i.answer(call, 0)
		return
	}
	i.pass(call)
}

// reach connects a program's socket to a target, and relays for as long as it is.
func (i *Interceptor) reach(ctx, relays context.Context, call *notification, s socket, to netip.AddrPort) {
	proxy, err := i.throughProxy(ctx, call, s, to)
	if err != nil {
		s.close()
		i.endConnect()
		i.answer(call, errnoOf(err))
		return
	}
	p := &passage{proxy: proxy, named: to}
	err = i.lead(ctx, s, p)
	s.close() // else the program could not end the connection
	i.endConnect()
	if err != nil {
		proxy.Close()
		i.answer(call, errnoOf(err))
		return
	}
	i.passages.begin(p)
	i.answer(call, 0)
	i.relay(relays, p)
}

// throughProxy connects to the target, as long as the program waits for it. Its error is
// what the program is told.
func (i *Interceptor) throughProxy(ctx context.Context, call *notification, s socket, to netip.AddrPort) (net.Conn, error) {
	patience, late := hurriedPatience, unix.ETIMEDOUT
	if s.waits() {
		patience = waitingPatience
		if own := s.patience(unix.SO_SNDTIMEO); own < patience {
			patience, late = own, unix.EINPROGRESS // socket(7)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, late)
	defer cancel()
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	defer i.whileCalling(call, interrupt)()
	conn, err := i.dialAny(ctx, to)
	if err == nil {
		return conn, nil
	}
	if errno, ok := errors.AsType[unix.Errno](context.Cause(ctx)); ok {
		return nil, errno
	}
	return nil, refusal(err)
}

// dialAny connects to an address, or to the host whose name it stands for. Where there is
// no such host, the program might have meant another.
func (i *Interceptor) dialAny(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	name, ok := i.names.behind(to.Addr())
	if !ok {
		return i.dial(ctx, socks.FromIP(to))
	}
	conn, err := i.dial(ctx, socks.Addr{Name: name, Port: to.Port()})
	for _, other := range i.search.next(name) {
		if err == nil || !isUnknown(err) {
			break
		}
		var fault error
		if conn, fault = i.dial(ctx, socks.Addr{Name: other, Port: to.Port()}); !isUnknown(fault) {
			err = fault
		}
	}
	return conn, err
}

// isUnknown reports whether an error may be that there is no such host. By SOCKS one does not
// hear more than that it cannot be reached.
func isUnknown(err error) bool {
	reason := server.ReasonOf(err)
	return err != nil && (reason == server.NoName || reason == server.Unreachable)
}

// whileCalling calls cancel when the caller has been killed, or a signal is to be handled.
// The function that it returns ends that.
func (i *Interceptor) whileCalling(call *notification, cancel context.CancelCauseFunc) (stop func()) {
	const look = 250 * time.Millisecond
	done, watching := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watching)
		tick := time.NewTicker(look)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if isInterrupted(call.thread) || !i.calls.waits(call) {
				cancel(restart)
				return
			}
		}
	}()
	return func() { close(done); <-watching }
}

// lead connects a program's socket to the door, and notes its two ends.
func (i *Interceptor) lead(ctx context.Context, s socket, p *passage) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.leaveDevice(); err != nil {
		return unix.ENETUNREACH
	}
	door := s.destination(p.named.Addr(), i.door.at)
	if err := s.connect(door); err != nil {
		return err
	}
	p.from = s.source(door)
	var err error
	if p.program, err = i.door.take(ctx, p.from); err != nil {
		return unix.ECONNABORTED
	}
	return nil
}

// serveNames has a program ask our resolver.
func (i *Interceptor) serveNames(ctx context.Context, call *notification, s socket, to netip.AddrPort) {
	p := &passage{named: to}
	err := i.lead(ctx, s, p)
	s.close()
	i.endConnect()
	if err != nil {
		i.answer(call, errnoOf(err))
		return
	}
	defer p.program.Close()
	defer context.AfterFunc(ctx, func() { p.program.Close() })()
	i.passages.begin(p)
	defer i.passages.end(p)
	i.answer(call, 0)
	i.resolver.answerStream(p.program)
}

// refusal is what a program is told where the proxy does not connect it.
func refusal(err error) unix.Errno {
	switch server.ReasonOf(err) {
	case server.Refused:
		return unix.ECONNREFUSED
	case server.Unreachable, server.NoName:
		return unix.EHOSTUNREACH
	case server.TimedOut:
		return unix.ETIMEDOUT
	case server.Denied:
		return unix.EACCES
	}
	return unix.ENETUNREACH // the proxy is not there, or will not have us
}
