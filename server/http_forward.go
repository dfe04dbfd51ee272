package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/relay"
)

// forward sends a request to its target and the answer to the client.
func (h *httpConn) forward(handshakes, sessions context.Context, r *httpRequest) (more bool, reason error) {
	o, to, err := h.reachOrigin(sessions, r)
	if err != nil {
		return h.refuse(err, r)
	}
	h.served = true
	for {
		h.session.reached(o.at)
		if sessions.Err() != nil {
			o.abort()
			return h.refuse(context.Cause(sessions), r)
		}
		f := &forwarding{httpConn: h, origin: o, r: r, stopping: handshakes.Done(), leaving: h.server.state.leaving.begun}
		more, err = f.run(sessions)
		if !errors.Is(err, errStale) {
			return more, err
		}
		if o, err = h.redial(sessions, to); err != nil {
			return h.refuse(err, r)
		}
	}
}

// reachOrigin decides, and returns a connection to the target: the one that was
// kept, where the decision allows its address, else a new one.
func (h *httpConn) reachOrigin(sessions context.Context, r *httpRequest) (*origin, passage, error) {
	kept := h.kept
	h.kept = nil
	ctx, end := h.awaiting(sessions)
	defer end()
	to, err := h.judge(ctx)
	if err == nil && r.repeatable() && kept.takes(h.session.Identity, to) {
		h.session.note(func(r *Record) { r.Proxy = kept.proxy })
		return kept, to, nil
	}
	kept.close()
	if err != nil {
		return nil, to, err
	}
	c, err := h.dial(ctx, to)
	if err != nil {
		return nil, to, err
	}
	return h.newOrigin(c, to), to, nil
}

// redial takes the place of a kept connection that turned out to be dead.
func (h *httpConn) redial(sessions context.Context, to passage) (*origin, error) {
	ctx, end := h.awaiting(sessions)
	defer end()
	c, err := h.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return h.newOrigin(c, to), nil
}

// switching is the code of an answer that agrees to an upgrade.
const switching = 101

// errStale says that a kept connection was dead, and that the request can be
// sent on another.
var errStale = errors.New("the connection that was kept is dead")

// forwarding is one request on its way. Two goroutines serve it: up writes the
// request and then watches the client; the other reads the answer.
type forwarding struct {
	*httpConn
	origin   *origin
	r        *httpRequest
	stopping <-chan struct{} // closed when the server takes no more requests at all
	leaving  <-chan struct{} // closed when it takes no more clients
	silence  *silence

	up    sync.WaitGroup
	out   *transfer       // of the request
	waits atomic.Bool     // out pauses
	sent  chan struct{}   // closed when the request is written, or nothing more of it can be
	rush  func()          // ends the pauses of out
	over  <-chan struct{} // closed when the answer is not to be paced any more
	lost  bool            // not all of it was written; read after sent
}

// run owns the connection to the target: it closes or keeps it.
func (f *forwarding) run(sessions context.Context) (more bool, reason error) {
	ctx, cancel := context.WithCancelCause(sessions)
	defer cancel(nil)
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(expired)
		expire(f.conn)
		expire(f.origin.conn)
	})
	defer stop()
	f.silence = newSilence(f.server.timeouts(), cancel)
	defer f.silence.end()
	rush := make(chan struct{})
	f.rush, f.over = sync.OnceFunc(func() { close(rush) }), ctx.Done()
	defer context.AfterFunc(ctx, f.rush)()
	f.sent, f.out = make(chan struct{}), f.toTarget()
	f.out.pace = pace{pacer: (*upward)(f.session), over: rush, paused: f.paused}
	f.up.Go(func() { f.send(cancel) })

	response, err := f.answer()
	var ends ending
	if err == nil && response.code != switching {
		ends, err = f.pass(response)
	}
	f.finish(f.patience(response, err))
	f.silence.end()
	if !stop() {
		<-expired
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
		return f.fail(err, response, ends)
	case response.code == switching:
		return false, f.upgrade(sessions, response)
	}
	return f.done(response, ends), nil
}

// done keeps or closes the connection to the target behind a whole answer, and
// reports whether the client's stays open.
func (f *forwarding) done(response *httpResponse, ends ending) (more bool) {
	if response.reusable(f.r.method) && !f.lost && len(f.origin.in.buf) == 0 {
		f.origin.keep(f.session.Identity)
		f.kept = f.origin
	} else {
		f.origin.close()
	}
	if ends.close || f.lost {
		f.lingers = closeWrite(f.conn)
		return false
	}
	return true
}

// fail ends a request that did not come to its end. A client that has seen a
// part of the answer must not take it for all: where the framing would not tell
// it, or the target was reset, it gets a reset.
func (f *forwarding) fail(err error, response *httpResponse, ends ending) (more bool, reason error) {
	f.origin.abort()
	switch {
	case errors.Is(err, errStale):
		return false, err
	case response == nil:
		_ = f.conn.SetDeadline(time.Time{}) // where it fails, so does the writing
		return f.refuse(err, f.r)
	case !errors.Is(err, io.ErrUnexpectedEOF) || !ends.chunks && response.length < 0:
		resetOnClose(f.conn)
	}
	return false, err
}

// upgrade goes on as a relay once the target has agreed to another protocol.
func (f *forwarding) upgrade(sessions context.Context, response *httpResponse) error {
	if f.lost {
		f.origin.abort()
		resetOnClose(f.conn)
		return fmt.Errorf("%w: 101 before the request had ended", BadReply)
	}
	defer f.origin.close()
	head := response.appendHead(nil, f.server.state.pseudonym.String(), ending{})
	if err := f.write(head); err != nil {
		return fmt.Errorf("%w: %w", ClientGone, err)
	}
	f.session.meter.Add(0, int64(len(head)))
	return relay.Run(sessions,
		relay.Side{Conn: f.conn, Head: f.in.buf},
		relay.Side{Conn: f.origin.conn, Head: f.origin.in.buf},
		&f.session.meter,
		f.session.limits(f.server.timeouts()))
}

// toTarget is the transfer of the request.
func (f *forwarding) toTarget() *transfer {
	return &transfer{
		in: &f.in, body: f.r.body(), to: f.origin.conn, chunks: f.r.chunked,
		out:   f.r.appendForward(nil, f.server.state.pseudonym.String()),
		moved: func(n int) { f.session.meter.Add(int64(n), 0); f.silence.broken() },
		from:  faults{ended: ClientGone, reset: ClientReset, garbled: BadRequest}, into: TargetReset,
	}
}

// paused notes a pause of the request.
func (f *forwarding) paused(begins bool) {
	f.waits.Store(begins)
	f.silence.broken()
}

// send writes the request, then reads on to notice when the client leaves.
func (f *forwarding) send(cancel context.CancelCauseFunc) {
	err := f.out.run()
	f.lost = err != nil
	close(f.sent)
	switch {
	case err == nil:
		f.watch(cancel)
	case !f.out.stuck && !isTimeout(err): // stuck: the target may have answered all the same; a timeout: it has
		cancel(err)
	}
}

// watch reads what the client sends before it has its answer.
func (f *forwarding) watch(cancel context.CancelCauseFunc) {
	a := &ahead{conn: f.conn, head: f.in.buf}
	err := a.read()
	f.in.set(a.head)
	switch {
	case errors.Is(err, io.EOF):
		f.silence.half() // it may still listen
	case err != nil && !isTimeout(err):
		cancel(fmt.Errorf("%w: %w", ClientReset, err))
	}
}

// answer returns the head of the target's final answer, or of 101, and passes
// the interim ones on.
func (f *forwarding) answer() (*httpResponse, error) {
	for first := true; ; first = false {
		raw, err := f.origin.in.head()
		if err != nil {
			return nil, f.noAnswer(err, first)
		}
		response, err := parseResponse(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", BadReply, err)
		}
		switch {
		case response.code == switching && f.r.upgrade() == "":
			return nil, fmt.Errorf("%w: 101 to who did not ask for it", BadReply)
		case response.code == switching || !response.interim():
			return response, nil
		}
		f.silence.broken()
		if f.r.minor == 0 {
			continue // HTTP/1.0 has none
		}
		interim := response.appendHead(nil, f.server.state.pseudonym.String(), ending{})
		if err := f.toClient().write(interim); err != nil {
			return nil, err
		}
	}
}

func (f *forwarding) noAnswer(err error, first bool) error {
	if reason := brokenHead(err); ReasonOf(reason) == BadRequest {
		return fmt.Errorf("%w: %w", BadReply, err)
	}
	if first && f.origin.reused && len(f.origin.in.buf) == 0 && !isTimeout(err) {
		return errStale
	}
	return fmt.Errorf("%w: %w", TargetReset, err)
}

// toClient is a transfer to the client, of nothing yet.
func (f *forwarding) toClient() *transfer {
	return &transfer{
		in: &f.origin.in, to: f.conn,
		moved: func(n int) { f.session.meter.Add(0, int64(n)); f.silence.broken() },
		from:  faults{ended: TargetReset, reset: TargetReset, garbled: BadReply}, into: ClientReset,
		pace: pace{pacer: (*downward)(f.session), over: f.over, paused: func(bool) { f.silence.broken() }},
	}
}

// pass sends the answer to the client as it comes.
func (f *forwarding) pass(response *httpResponse) (ending, error) {
	t := f.toClient()
	t.body = response.body(f.r.method)
	_, open := t.body.(*openBody)
	t.chunks = response.chunked && f.r.minor > 0 && !response.bodiless(f.r.method)
	ends := ending{chunks: t.chunks, close: open || f.r.closes() || isClosed(f.stopping) || isClosed(f.leaving) || f.unexpected()}
	t.out = response.appendHead(nil, f.server.state.pseudonym.String(), ends)
	return ends, t.run()
}

// unexpected reports whether the client may leave out the body, as it got its
// answer in the place of 100: then it is not known what it sends next. Once it
// has begun, it must go on to the end.
func (f *forwarding) unexpected() bool { return f.r.expects() && !f.out.began.Load() }

// patience is how long the sending of the request may stand still when the answer
// is there: an answer can be faster. A target that is about to close does not
// read it any more.
func (f *forwarding) patience(response *httpResponse, err error) time.Duration {
	switch {
	case err != nil || f.unexpected():
		return 0
	case response.code == switching || response.reusable(f.r.method):
		return lingerTime
	}
	return lingerTime / 20
}

// finish waits until the request is sent, or nothing of it has moved for a while,
// and ends the sending.
func (f *forwarding) finish(patience time.Duration) {
	for before := int64(-1); patience > 0 && !isClosed(f.sent) && (f.waits.Load() || f.session.Up() != before); {
		before = f.session.Up()
		timer := time.NewTimer(patience)
		select {
		case <-f.sent:
		case <-timer.C:
		}
		timer.Stop()
	}
	if !isClosed(f.sent) {
		f.rush()
		expire(f.origin.conn)
	}
	_ = f.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection: nothing waits then
	f.up.Wait()
	_ = f.conn.SetReadDeadline(time.Time{})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// closeWrite says FIN, where c can.
func closeWrite(c net.Conn) bool {
	half, ok := c.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}
