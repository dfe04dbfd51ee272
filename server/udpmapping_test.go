//go:build unix

package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// mapsDatagrams serves a port mapping of datagrams on loopback, and returns where.
func mapsDatagrams(tb testing.TB, s *Server, m *Mapping) (*rig, netip.AddrPort) {
	tb.Helper()
	r := newRig(tb, s)
	in := udpSocket(tb, "127.0.0.1:0")
	_ = in.SetReadDeadline(time.Time{})
	r.serveDoor(s.PacketDoor(in, Listener{Name: "names", Mapping: m}))
	return r, local(in)
}

// asksUDP sends a word and waits for the same.
func asksUDP(tb testing.TB, c *net.UDPConn, at netip.AddrPort, word string) {
	tb.Helper()
	sendTo(tb, c, []byte(word), at)
	if from := nextFrom(tb, c, word); from != at {
		tb.Errorf("the answer comes from %s, want from %s", from, at)
	}
}

// end returns the next end of a flow, whatever it is.
func (r *rig) endOf(c *net.UDPConn) end {
	r.Helper()
	for {
		select {
		case e := <-r.ends:
			if e.Client == local(c) {
				return e
			}
		case <-time.After(time.Minute):
			r.Fatal("no flow has ended")
		}
	}
}

// TestMappedDatagrams: each client is a session, until it is silent for too long.
func TestMappedDatagrams(t *testing.T) {
	echo := udpEcho(t, "127.0.0.1:0")
	m := mappingOf(echo)
	m.Idle = 100 * time.Millisecond
	asked := make(chan Request, 100)
	r, at := mapsDatagrams(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
		asked <- *q
		return anything(ctx, q)
	})}, m)
	c := udpSocket(t, "127.0.0.1:0")
	asksUDP(t, c, at, "hello")
	if q := <-asked; q.Protocol != Mapped || q.Command != socks.Associate || q.Target != socks.FromIP(echo) || q.Client != local(c) || q.Listener != "names" {
		t.Errorf("the policy was asked %+v", q)
	}
	e := r.endOf(c)
	if ReasonOf(e.err) != Idle || e.Protocol != Mapped || e.Command != socks.Associate || e.Target != socks.FromIP(echo) || e.Address != echo ||
		e.Bound != at || e.Rule != "anything" || e.Up() != 5 || e.Down() != 5 || e.Dropped() != 0 {
		t.Errorf("recorded %+v, %v, %d up, %d down, %d dropped", e.Record, e.err, e.Up(), e.Down(), e.Dropped())
	}
	asksUDP(t, c, at, "again, as a new client")
	for _, size := range []int{0, 1, 1400, 65507} {
		asksUDP(t, c, at, string(make([]byte, size)))
	}
	r.endOf(c)
}

// TestMappedDatagramsOfMany clients, who all talk at once, come to nobody else.
func TestMappedDatagramsOfMany(t *testing.T) {
	echo := udpEcho(t, "127.0.0.1:0")
	m := mappingOf(echo)
	r, at := mapsDatagrams(t, &Server{Policy: deciding(anything)}, m)
	var all sync.WaitGroup
	for i := range 64 {
		c := udpSocket(t, "127.0.0.1:0")
		all.Go(func() {
			for n := range 50 {
				word := fmt.Sprintf("%d of %d", n, i)
				if _, err := c.WriteToUDPAddrPort([]byte(word), at); err != nil {
					t.Error(err)
					return
				}
				b := make([]byte, 100)
				k, _, err := c.ReadFromUDPAddrPort(b)
				if err != nil || string(b[:k]) != word {
					t.Errorf("%q, %v; want %q", b[:k], err, word)
					return
				}
			}
		})
	}
	all.Wait()
	if n := len(r.server.Sessions()); n != 64 {
		t.Errorf("%d sessions, want 64", n)
	}
}

// TestMappedDatagramsDenied: nothing comes through, and the record says why.
func TestMappedDatagramsDenied(t *testing.T) {
	target := udpSocket(t, "127.0.0.1:0")
	m := mappingOf(local(target))
	m.Idle = 50 * time.Millisecond
	r, at := mapsDatagrams(t, &Server{Policy: refusing(Denied)}, m)
	c := udpSocket(t, "127.0.0.1:0")
	sendTo(t, c, []byte("hello"), at)
	if e := r.endOf(c); ReasonOf(e.err) != Denied || e.Rule != "refusing" || e.Dropped() != 1 || e.To != socks.FromIP(local(target)) {
		t.Errorf("recorded %+v, %v", e.Record, e.err)
	}
	nothingCame(t, target)

	r2, nobodys := mapsDatagrams(t, &Server{}, m)
	sendTo(t, c, []byte("hello"), nobodys)
	if e := r2.endOf(c); ReasonOf(e.err) != Denied {
		t.Errorf("without a policy: %v", e.err)
	}
}

// TestMappedDatagramsRoom: one client too many, in sum or of one source, ends who
// was silent for the longest time; nobody waits.
func TestMappedDatagramsRoom(t *testing.T) {
	for name, limits := range map[string]Limits{"in sum": {Flows: 2, FlowsPerSource: 2}, "of one source": {Flows: 100, FlowsPerSource: 2}} {
		t.Run(name, func(t *testing.T) {
			r, at := mapsDatagrams(t, &Server{Policy: deciding(anything), Limits: limits}, mappingOf(udpEcho(t, "127.0.0.1:0")))
			first, second, third := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
			asksUDP(t, first, at, "one")
			asksUDP(t, second, at, "two")
			asksUDP(t, first, at, "one again")
			asksUDP(t, third, at, "three")
			if e := r.endOf(second); ReasonOf(e.err) != Busy {
				t.Errorf("it ended with %v", e.err)
			}
			asksUDP(t, first, at, "one is still there")
		})
	}
}

// TestMappedDatagramsDescriptors: where there is no place left for a client, its
// datagrams are lost, and nothing waits.
func TestMappedDatagramsDescriptors(t *testing.T) {
	m := mappingOf(udpEcho(t, "127.0.0.1:0"))
	m.Idle = 200 * time.Millisecond
	r, at := mapsDatagrams(t, &Server{Policy: deciding(anything), Limits: Limits{Connections: 1, Flows: 10}}, m)
	first, second := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
	asksUDP(t, first, at, "one")
	sendTo(t, second, []byte("lost"), at)
	asksUDP(t, first, at, "one again")
	r.endOf(first)
	proxytest.Eventually(t, "a place is free", func() bool {
		sendTo(t, second, []byte("two"), at)
		return len(r.server.Sessions()) == 1
	})
	nextFrom(t, second, "two")
}

// TestMappedDatagramsStrangers: only the target may answer.
func TestMappedDatagramsStrangers(t *testing.T) {
	target := udpSocket(t, "127.0.0.1:0")
	r, at := mapsDatagrams(t, &Server{Policy: deciding(anything)}, mappingOf(local(target)))
	c := udpSocket(t, "127.0.0.1:0")
	sendTo(t, c, []byte("hello"), at)
	exit := nextFrom(t, target, "hello")
	stranger := udpSocket(t, "127.0.0.1:0")
	sendTo(t, stranger, []byte("it was me"), exit)
	sendTo(t, target, []byte("hello yourself"), exit)
	nextFrom(t, c, "hello yourself")
	if n := r.server.Sessions()[0].Dropped(); n != 1 {
		t.Errorf("%d datagrams were dropped, want the stranger's", n)
	}
}

// TestMappedDatagramsReviewed: a right that is gone ends what it was for.
func TestMappedDatagramsReviewed(t *testing.T) {
	r, at := mapsDatagrams(t, &Server{Policy: deciding(anything)}, mappingOf(udpEcho(t, "127.0.0.1:0")))
	stays, goes := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
	asksUDP(t, stays, at, "one")
	asksUDP(t, goes, at, "two")
	r.server.Review(func(h Held) (time.Time, error) {
		if h.Request.Client == local(goes) {
			return time.Time{}, Revoked
		}
		return time.Time{}, nil
	})
	if e := r.endOf(goes); ReasonOf(e.err) != Revoked {
		t.Errorf("it ended with %v", e.err)
	}
	asksUDP(t, stays, at, "still here")
}

// TestMappedDatagramsBalanced: clients are shared out, and given back.
func TestMappedDatagramsBalanced(t *testing.T) {
	m := mappingOf(udpEcho(t, "127.0.0.1:0"), udpEcho(t, "127.0.0.1:0"))
	b := &chosen{order: []int{1, 0}}
	m.Balance, m.Idle = b, 50*time.Millisecond
	r, at := mapsDatagrams(t, &Server{Policy: deciding(anything)}, m)
	c := udpSocket(t, "127.0.0.1:0")
	asksUDP(t, c, at, "hello")
	if e := r.endOf(c); e.Target != m.Targets[1].Addr {
		t.Errorf("it went to %s", e.Target)
	}
	if got := b.all(); got != "[1 closed 1 ended]" {
		t.Errorf("the balance was told %s", got)
	}
}

// TestMappedDatagramsLoop: a mapping that leads to itself moves nothing.
func TestMappedDatagramsLoop(t *testing.T) {
	in := udpSocket(t, "127.0.0.1:0")
	_ = in.SetReadDeadline(time.Time{})
	m := mappingOf(local(in))
	m.Idle = 50 * time.Millisecond
	s := &Server{Policy: deciding(anything)}
	r := newRig(t, s)
	r.serveDoor(s.PacketDoor(in, Listener{Mapping: m}))
	c := udpSocket(t, "127.0.0.1:0")
	sendTo(t, c, []byte("hello"), local(in))
	if e := r.endOf(c); ReasonOf(e.err) != Loop {
		t.Errorf("it ended with %v", e.err)
	}
}

// TestMappedDatagramsEnd: when the server stops, and be it that it only takes no
// more clients, the clients' sessions do.
func TestMappedDatagramsEnd(t *testing.T) {
	for name, stop := range map[string]func(*Server, context.Context) error{"Shutdown": (*Server).Shutdown, "Drain": (*Server).Drain} {
		t.Run(name, func(t *testing.T) {
			r, at := mapsDatagrams(t, &Server{Policy: deciding(anything)}, mappingOf(udpEcho(t, "127.0.0.1:0")))
			clients := []*net.UDPConn{udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")}
			for _, c := range clients {
				asksUDP(t, c, at, "hello")
			}
			if err := stop(r.server, t.Context()); err != nil {
				t.Fatal(err)
			}
			for range clients {
				e := r.next(Shutdown)
				if !slices.ContainsFunc(clients, func(c *net.UDPConn) bool { return local(c) == e.Client }) {
					t.Errorf("a session of %v", e.Client)
				}
			}
		})
	}
}
