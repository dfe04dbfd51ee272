package server

import (
	"context"
	"slices"
)

// connectLine begins the head of a CONNECT.
const connectLine = connectMethod + " "

// converse goes on with a client of HTTP, who next says so of: on the loop if it asks
// for a CONNECT and nobody has to be asked who it is. What it has said is left as it is
// where anybody else is to read it.
func (q *quick) converse(next step) {
	q.session.Protocol = HTTP
	head, err := wholeHead(q.driver.buf, 0)
	switch {
	case err != nil || !begins(q.driver.buf, connectLine) || head == 0 && len(q.driver.buf) >= headRead:
	case head == 0:
		return // the rest will come
	default:
		if asked := q.tunnel(q.driver.buf[:head]); asked != nil {
			next = step{request: asked}
		}
	}
	if !q.server.state.handshakes.leave(&q.waiter) {
		return // it had to make room: stop will be called
	}
	if next.request == nil {
		q.streamElsewhere(next.stream)
		return
	}
	q.driver.buf = q.driver.buf[head:]
	q.asked(next)
}

// tunnel is what the head of a CONNECT asks for; nil: that takes more than is to be had
// on a loop.
func (q *quick) tunnel(head []byte) *Request {
	r, err := parseRequest(head)
	if err != nil || r.method != connectMethod || r.passedBy(q.server.state.pseudonym.String()) {
		return nil
	}
	login, shown, err := q.shown(r)
	if err != nil || shown != nil {
		return nil
	}
	return r.asks(&replierHTTP{session: q.session, login: login != LoginNone})
}

// unasked ends what has not come to a request, for a reason that a client of HTTP is
// told. It has left the handshakes.
func (q *quick) unasked(reason error) {
	if q.session.Protocol != HTTP {
		q.end(reason)
		return
	}
	q.streamElsewhere(func(_, _ context.Context, x *exchange) error {
		h := newHTTPConn(x)
		h.replier = &replierHTTP{session: h.session}
		_, reason := h.refuse(reason, nil)
		return reason
	})
}

// streamElsewhere has a goroutine serve the connection, which has left the handshakes.
func (q *quick) streamElsewhere(s streamer) {
	_ = q.requested(step{stream: s}, slices.Clone(q.driver.buf)) // it is no refusal
	q.driver.buf = nil
	if !q.depart() {
		return
	}
	x := &q.exchange
	q.entrance.elsewhere(func(handshakes, sessions context.Context) {
		defer x.contain()
		x.serve(handshakes, sessions, nil)
	})
}
