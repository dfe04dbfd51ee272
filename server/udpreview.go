package server

import (
	"net/netip"
	"time"
)

// review puts every destination that was granted to judge; an association that
// has none is put to it as such. It ends with its last destination.
func (a *association) review(judge *Judge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var reason error
	left, pending := 0, false
	for _, d := range a.known.byTarget {
		pending = pending || d.pending
		if !d.at.IsValid() || d.pending {
			continue // refused, or being decided on: that will catch up
		}
		until, err := (*judge)(a.held(d))
		if err != nil {
			reason = err
			a.known.withdraw(d)
			continue
		}
		d.grant.Until = until
		left++
	}
	if left == 0 && (reason == nil || pending) {
		a.until, reason = (*judge)(a.session.life.held(&a.request, Grant{}, netip.AddrPort{}))
	}
	if left == 0 && reason != nil {
		a.session.End(reason)
	}
	a.setAlarm()
}

// held is what is judged about a destination. Callers hold mu.
func (a *association) held(d *destination) Held {
	h := a.session.life.held(&a.request, d.grant, d.at)
	h.Request.Target = d.target
	return h
}

// endsAt says when the association ends while no destination is granted.
func (a *association) endsAt(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = until
	a.setAlarm()
}

// setAlarm sees to it that the next grant that ends is noticed, and where there is
// none, the end of the hours in which there could be one. Callers hold mu.
func (a *association) setAlarm() {
	a.alarm.stop()
	a.alarm = nil
	if a.ended {
		return
	}
	var next time.Time
	bare := true
	for _, d := range a.known.byTarget {
		bare = bare && !d.pending && !d.at.IsValid()
		if d.pending || !d.at.IsValid() || d.grant.Until.IsZero() {
			continue
		}
		if ends := d.grant.Until; next.IsZero() || ends.Before(next) {
			next = ends
		}
	}
	if bare {
		next = a.until
	}
	if !next.IsZero() {
		a.alarm = newAlarm(next, a.expire)
	}
}

// expire withdraws the destinations whose grant has ended. The association ends
// with the last of them, and where there is none when its hours do.
func (a *association) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	left, over := 0, isOver(a.until, time.Now())
	for _, d := range a.known.byTarget {
		switch {
		case d.pending:
			left++
		case !d.at.IsValid():
		case isOver(d.grant.Until, time.Now()):
			a.known.withdraw(d)
			over = true
		default:
			left++
		}
	}
	if over && left == 0 {
		a.session.End(Schedule)
	}
	a.setAlarm()
}

// withdraw takes the address of a destination away: nothing goes there, and
// nothing comes from there. The next datagram for it asks the policy anew.
func (ds *destinations) withdraw(d *destination) {
	ds.move(d, netip.AddrPort{}, nil)
	d.until = time.Time{}
}
