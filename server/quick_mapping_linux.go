package server

import (
	"context"
	"io"
	"net"
	"os"
	"time"

	"github.com/sallyport/sallyport/internal/engine"
)

// isPrompt reports whether a loop can connect to a target: it is spoken to as it comes, by TCP.
func isPrompt(t MapTarget) bool { return t.Socket == "" && t.TLS == nil }

// tryTargets goes on with the targets of the round that are left, as reachMapped does.
func (q *quick) tryTargets() {
	for len(q.round.left) > 0 {
		if !isPrompt(*q.round.target()) {
			q.roundElsewhere(nil)
			return
		}
		q.aim(q.round)
		to, known, err := q.judgeNow()
		switch {
		case !known:
			q.roundElsewhere(nil)
			return
		case err == nil:
			q.connect(to)
			return
		}
		if why := q.session.ending(); why != nil {
			q.refuse(why)
			return
		}
		q.round.failed(err, ReasonOf(err) == NoName) // else it is the rules'
	}
	q.refuse(q.round.outcome())
}

// roundElsewhere has a goroutine go on with the round. judge is as in reachMapped.
func (q *quick) roundElsewhere(judge verdict) {
	r := q.round
	q.connectElsewhere(func(ctx context.Context) (net.Conn, error) { return q.reachMapped(ctx, r, judge) })
}

// patience is how long the target at hand may take.
func (r *round) patience() time.Duration {
	if len(r.left) == 1 {
		return time.Until(r.until)
	}
	return r.share()
}

// introduceNow is introduce on a loop: what a target is to hear fits into any socket that
// has just been connected.
func (q *quick) introduceNow() error {
	m := q.round.mapping
	if m.ProxyVersion == 0 {
		return nil
	}
	header := AppendProxyHeader(nil, m.ProxyVersion, q.request.Client, q.request.Local)
	n, err := engine.Write(q.loop.Descriptor(q.target), header)
	switch {
	case err != nil:
		return os.NewSyscallError("write", err)
	case n < len(header):
		return io.ErrShortWrite
	}
	return nil
}
