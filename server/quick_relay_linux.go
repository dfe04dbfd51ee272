package server

import (
	"time"

	"github.com/sallyport/sallyport/internal/engine"
	"github.com/sallyport/sallyport/internal/relay"
)

// carried is what a quick leaves behind while its relay goes on: the relay, and no more
// than the end needs.
type carried struct {
	parted
	bed   *bed // nil: the session rests
	relay relay.Joined
}

// bed is for a session that does not rest yet.
type bed struct {
	*carried
	loop   *engine.Loop
	target engine.Handle
	timer  engine.Timer
}

// relay moves the session's bytes, from then on without the quick.
func (q *quick) relay() {
	session := q.session
	limits, head := session.limits(q.server.timeouts()), q.head
	c := &carried{parted: q.part(&q.path), bed: &q.bed}
	q.bed = bed{carried: c, loop: q.loop, target: q.target}
	q.stage = hasLeft
	q.loop.Set(&q.bed.timer, &q.bed, q.loop.Now()+restAfter)
	c.relay.Start(q.loop,
		relay.Socket{Handle: q.client, Came: q.came | engine.Writable, Head: head},
		relay.Socket{Handle: q.target, Came: q.targetCame | engine.Writable},
		&session.meter, limits, c)
	session.pass(&c.relay)
}

// restAfter is how long a session lasts before little is made of it, and its target is
// asked, whenever it is silent, whether it is still there: most are over sooner, and are
// saved the trouble.
const restAfter = time.Second

// Expired does both.
func (b *bed) Expired() {
	keepAlive(b.loop.Descriptor(b.target)) // so that one that is gone is noticed
	b.session.goToRest()
	b.bed = nil
}

// RelayMoves does it before its time: the timer is on the loop that is left.
func (c *carried) RelayMoves() {
	if b := c.bed; b != nil {
		b.loop.Stop(&b.timer)
		b.Expired()
	}
}

// Ready is never called: the descriptors are the relay's.
func (b *bed) Ready(engine.Handle, engine.Events) {}

// Broken is never called: Expired does not panic.
func (b *bed) Broken(fault any, _ []byte) { panic(fault) }

// RelayEnded is the last of the session.
func (c *carried) RelayEnded(reason error) {
	if c.bed != nil {
		c.bed.loop.Stop(&c.bed.timer)
	}
	c.end(reason)
}
