package server

import (
	"context"
	"net"
	"os"
	"slices"

	"github.com/sallyport/sallyport/internal/engine"
)

// shakeElsewhere has a goroutine go on with the handshake, which wants next. It
// keeps its place among the handshakes.
func (q *quick) shakeElsewhere(next step) {
	q.driver.buf = slices.Clone(q.driver.buf) // it lies in the loop's memory
	if !q.depart() {
		return
	}
	x, queue := &q.exchange, &q.server.state.handshakes
	q.entrance.elsewhere(func(handshakes, sessions context.Context) {
		defer x.contain()
		ctx, end := context.WithCancelCause(handshakes)
		defer end(nil)
		if why := queue.pass(&q.waiter, endFunc(end)); why != nil {
			x.end(sessions, why)
			return
		}
		leave := func() { queue.leave(&q.waiter) }
		x.serve(handshakes, sessions, x.handshake(ctx, leave, &q.driver, next))
	})
}

// refuse has a goroutine tell the client that its request came to nothing.
func (q *quick) refuse(reason error) {
	q.loop.Close(q.target)
	q.path.end() // it may have come as far as that
	q.connectElsewhere(func(context.Context) (net.Conn, error) { return nil, reason })
}

// connectElsewhere has a goroutine answer the request.
func (q *quick) connectElsewhere(how approach) {
	if !q.depart() {
		return
	}
	x := &q.exchange
	q.entrance.elsewhere(func(_, sessions context.Context) {
		defer x.contain()
		ctx, end := context.WithCancelCause(sessions)
		x.session.pass(endFunc(end))
		x.connectAlone(ctx, sessions, how)
	})
}

// depart takes the client's descriptor off the loop, and makes an ordinary
// connection of it. Where that cannot be had it ends the session, and reports false.
func (q *quick) depart() bool {
	q.loop.Stop(&q.timer)
	conn, err := release(q.loop, q.client)
	if err != nil {
		q.end(err)
		return false
	}
	q.stage = hasLeft
	q.conn, q.accepted = conn, conn
	q.loop.Detach()
	return true
}

// release makes a connection of a descriptor on a loop, or closes it.
func release(l *engine.Loop, h engine.Handle) (net.Conn, error) {
	file := os.NewFile(uintptr(l.Release(h)), "client")
	defer file.Close() // the connection has another one
	return net.FileConn(file)
}
