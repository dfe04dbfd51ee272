package server

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/socks"
)

func targetNumber(i int) socks.Addr {
	return socks.Addr{IP: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Port: uint16(i)}
}

func (ds *destinations) mustAdd(t *testing.T, i int) *destination {
	t.Helper()
	d := ds.add(targetNumber(i))
	if d == nil {
		t.Fatalf("no room for destination %d", i)
	}
	return d
}

// granted adds a destination that was granted at an address with the same number.
func (ds *destinations) granted(t *testing.T, i int) {
	t.Helper()
	d := ds.mustAdd(t, i)
	d.pending = false
	ds.settle(d, netip.AddrPortFrom(d.target.IP, d.target.Port), nil, time.Time{})
}

func (ds *destinations) mayAnswer(i int) bool {
	return ds.peers[source{nil, netip.AddrPortFrom(targetNumber(i).IP, uint16(i))}] != nil
}

// TestDestinationsAreForgotten: the least recently used one goes, and with it
// the right of its peer to answer; pending ones stay.
func TestDestinationsAreForgotten(t *testing.T) {
	var ds destinations
	pending := ds.mustAdd(t, 1)
	for i := 2; i <= maxDestinations; i++ {
		ds.granted(t, i)
	}
	ds.find(targetNumber(2))
	ds.granted(t, 1000)
	if ds.find(pending.target) != pending || !ds.mayAnswer(2) || !ds.mayAnswer(1000) {
		t.Error("one that is pending, just used or new was forgotten")
	}
	if ds.find(targetNumber(3)) != nil || ds.mayAnswer(3) {
		t.Error("the least recently used one is still known")
	}
	if len(ds.byTarget) != maxDestinations || ds.order.Len() != maxDestinations || len(ds.peers) != maxDestinations-1 {
		t.Errorf("%d known, %d in order, %d peers", len(ds.byTarget), ds.order.Len(), len(ds.peers))
	}
}

// TestDestinationsAllPending: then there is no room for more.
func TestDestinationsAllPending(t *testing.T) {
	var ds destinations
	for i := range maxDestinations {
		ds.mustAdd(t, i)
	}
	if ds.add(targetNumber(1000)) != nil {
		t.Error("there was room for one more")
	}
}

// TestDestinationsShareAPeer: an address may answer as long as one of the
// targets that stand for it is granted.
func TestDestinationsShareAPeer(t *testing.T) {
	var ds destinations
	at := netip.MustParseAddrPort("192.0.2.9:53")
	one, two := ds.mustAdd(t, 1), ds.mustAdd(t, 2)
	ds.settle(one, at, nil, time.Time{})
	ds.settle(one, at, nil, time.Time{}) // decided on again
	ds.settle(two, at, nil, time.Time{})
	ds.settle(one, netip.AddrPort{}, nil, time.Time{})
	if ds.peers[source{nil, at}] == nil || one.to != nil || two.to == nil {
		t.Error("the address that is still granted may not answer")
	}
	ds.settle(two, netip.MustParseAddrPort("192.0.2.10:53"), nil, time.Time{})
	if ds.peers[source{nil, at}] != nil || len(ds.peers) != 1 {
		t.Error("an address that is granted no more may answer")
	}
}

// TestDestinationsQueue: what waits is bounded for each and for all.
func TestDestinationsQueue(t *testing.T) {
	var ds destinations
	one, two := ds.mustAdd(t, 1), ds.mustAdd(t, 2)
	payload := make([]byte, maxQueued/maxQueue)
	for range maxQueue {
		if !ds.keep(one, payload) {
			t.Fatal("less than the limit is kept")
		}
	}
	if ds.keep(one, nil) || ds.keep(two, []byte{1}) {
		t.Error("more than the limit is kept")
	}
	if got := ds.take(one); len(got) != maxQueue || ds.queued != 0 || one.queue != nil {
		t.Errorf("%d taken, %d bytes left", len(got), ds.queued)
	}
	if !ds.keep(two, payload) {
		t.Error("no room after the queue was taken")
	}
}
