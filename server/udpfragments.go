package server

import (
	"bytes"
	"time"

	"github.com/sallyport/sallyport/socks"
)

const (
	// maxPayload is the longest payload that fits a UDP datagram, in bytes.
	maxPayload = 65_507
	// fragmentTime is the reassembly timer: RFC 1928, section 7, wants no less.
	fragmentTime = 5 * time.Second
	// lastFragment marks the end of a sequence in the FRAG field.
	lastFragment = 0x80
)

// fragments is the reassembly queue of an association (RFC 1928, section 7). It
// holds one sequence at a time, at most maxPayload bytes. The zero value is an
// empty queue.
//
// A sequence is thrown away when its time is up, when a lower number comes (a
// whole datagram, which is number 0, among them), and when it can no longer
// become whole: a number was left out, or another target is meant.
type fragments struct {
	target  socks.Addr
	highest byte      // the number of the last fragment taken; 0: the queue is empty
	tail    int       // where that one begins in queue
	since   time.Time // when the first one came
	queue   []byte
}

// add takes the payload of a datagram that came at now with a FRAG field. It
// returns what is whole now, if anything is: the payload itself, or the sequence
// that it ends. Either is the caller's.
func (f *fragments) add(frag byte, target socks.Addr, payload []byte, now time.Time) (whole []byte, ok bool) {
	number := frag &^ lastFragment
	if number < f.highest || number == 1 || target != f.target || now.Sub(f.since) >= fragmentTime {
		*f = fragments{}
	}
	switch {
	case frag == 0:
		return payload, true
	case f.highest > 0 && number == f.highest && bytes.Equal(f.queue[f.tail:], payload):
		return nil, false // the network's duplicate
	case number != f.highest+1 || len(f.queue)+len(payload) > maxPayload:
		*f = fragments{}
		return nil, false
	}
	if number == 1 {
		f.target, f.since = target, now
	}
	f.highest, f.tail = number, len(f.queue)
	f.queue = append(f.queue, payload...)
	if frag&lastFragment == 0 {
		return nil, false
	}
	whole = f.queue
	*f = fragments{}
	return whole, true
}
