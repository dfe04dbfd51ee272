package server

import (
	"container/list"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// Bounds of what an association remembers.
const (
	maxDestinations = 256              // the least recently used one is forgotten
	grantedFor      = time.Minute      // then the policy is asked again
	refusedFor      = 10 * time.Second // the same for what was refused, or failed
	nobodyFor       = time.Second      // the same for a virtual port that nobody offers: who was cut comes back
	maxQueue        = 8                // datagrams that wait for one decision
	maxQueued       = 128 << 10        // bytes that wait for all decisions
)

// destination is where a client sends to, by the name or address it uses, and
// what was decided about it.
type destination struct {
	target  socks.Addr
	pending bool           // the policy is being asked; what is sent meanwhile waits in queue
	at      netip.AddrPort // the address that was granted; invalid: refused
	exit    *exit          // by which it is reached
	to      *net.UDPAddr   // the same for the socket
	until   time.Time      // how long that holds
	up      Pacer          // of what is sent there; nil: as fast as it comes
	down    Pacer          // of what comes back
	grant   Grant          // what the policy said; while pending the decider's, then it belongs to the association's mutex
	queue   [][]byte
	place   *list.Element
}

// source is where a datagram may come from.
type source struct {
	exit *exit
	at   netip.AddrPort
}

// peer is an address that the client has sent to: it alone may answer.
type peer struct {
	destinations int    // that were granted to be there
	down         Pacer  // of the last of them; nil: as fast as it comes
	header       []byte // in front of what comes from it
}

// destinations is what one association knows of where its client sends to. The
// zero value is empty. It is not safe for concurrent use.
type destinations struct {
	bare     bool // what comes back to the client has no header
	byTarget map[socks.Addr]*destination
	peers    map[source]*peer
	order    list.List // the most recently used first
	queued   int       // bytes in all queues
}

// find returns the destination for a target, or nil where there is none.
func (ds *destinations) find(target socks.Addr) *destination {
	d := ds.byTarget[target]
	if d != nil {
		ds.order.MoveToFront(d.place)
	}
	return d
}

// add makes a destination that is to be decided on. Where there are too many it
// forgets one; it returns nil where all of them are pending.
func (ds *destinations) add(target socks.Addr) *destination {
	if ds.byTarget == nil {
		ds.byTarget, ds.peers = make(map[socks.Addr]*destination), make(map[source]*peer)
	}
	if len(ds.byTarget) >= maxDestinations && !ds.forget() {
		return nil
	}
	d := &destination{target: target, pending: true}
	d.place = ds.order.PushFront(d)
	ds.byTarget[target] = d
	return d
}

// forget drops the destination that was not used for the longest time.
func (ds *destinations) forget() bool {
	for e := ds.order.Back(); e != nil; e = e.Prev() {
		d, ok := e.Value.(*destination)
		if !ok || d.pending {
			continue
		}
		ds.move(d, netip.AddrPort{}, nil)
		ds.order.Remove(e)
		delete(ds.byTarget, d.target)
		return true
	}
	return false
}

// settle notes what was decided: the address that was granted, or none.
func (ds *destinations) settle(d *destination, at netip.AddrPort, by *exit, now time.Time) {
	ds.move(d, at, by)
	if p := ds.peers[source{by, at}]; p != nil {
		p.down = d.down
	}
	d.until = now.Add(refusedFor)
	if d.grant.Virtual {
		d.until = now.Add(nobodyFor)
	}
	if at.IsValid() {
		d.until = now.Add(grantedFor)
		if ends := d.grant.Until; !ends.IsZero() && ends.Before(d.until) {
			d.until = ends
		}
	}
}

// move puts a destination to another address, which from now on may answer;
// the one that it was at may not, unless another destination is there too.
func (ds *destinations) move(d *destination, at netip.AddrPort, by *exit) {
	if d.at == at && d.exit == by {
		return
	}
	if old := ds.peers[source{d.exit, d.at}]; old != nil {
		if old.destinations--; old.destinations == 0 {
			delete(ds.peers, source{d.exit, d.at})
		}
	}
	d.at, d.exit, d.to = at, by, nil
	if !at.IsValid() {
		return
	}
	d.to = net.UDPAddrFromAddrPort(at)
	p := ds.peers[source{by, at}]
	if p == nil {
		p = &peer{}
		if !ds.bare {
			p.header = socks.Datagram5{Host: by.shownAs(at, d.target)}.Append(nil)
		}
		ds.peers[source{by, at}] = p
	}
	p.destinations++
}

// leave has all destinations of an exit decided on again when they are used next.
func (ds *destinations) leave(by *exit) {
	for _, d := range ds.byTarget {
		if d.exit == by {
			ds.move(d, netip.AddrPort{}, nil)
			d.until = time.Time{}
		}
	}
}

// keep puts a payload into the queue of a pending destination. It reports false
// where too much waits already.
func (ds *destinations) keep(d *destination, payload []byte) bool {
	if len(d.queue) >= maxQueue || ds.queued+len(payload) > maxQueued {
		return false
	}
	d.queue = append(d.queue, append([]byte(nil), payload...))
	ds.queued += len(payload)
	return true
}

// take empties the queue of a destination.
func (ds *destinations) take(d *destination) [][]byte {
	queue := d.queue
	d.queue = nil
	for _, payload := range queue {
		ds.queued -= len(payload)
	}
	return queue
}
