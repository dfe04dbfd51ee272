//go:build unix

package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// memoryPacket is a datagram in memory.
type memoryPacket struct {
	payload string
	peer    netip.AddrPort
}

// memorySocket is a packetSocket in memory.
type memorySocket struct {
	in, out chan memoryPacket
	closed  chan struct{}
	once    sync.Once
}

func newMemorySocket() *memorySocket {
	return &memorySocket{in: make(chan memoryPacket, 1000), out: make(chan memoryPacket, 1000), closed: make(chan struct{})}
}

func (s *memorySocket) wait() error { return nil }

func (s *memorySocket) read(ms []message) (int, error) {
	select {
	case d := <-s.in:
		ms[0].N, ms[0].Addr = copy(ms[0].Buffers[0], d.payload), net.UDPAddrFromAddrPort(d.peer)
		return 1, nil
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *memorySocket) write(ms []message) (int, error) {
	for _, m := range ms {
		s.out <- memoryPacket{string(m.Buffers[0]), udpAddrPort(m.Addr)}
	}
	return len(ms), nil
}

func (s *memorySocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// association in memory, for tests in a bubble of synctest.
type memoryAssociation struct {
	*testing.T
	*association
	client, target *memorySocket
	control        net.Conn
	ended          chan error
}

var homeAt = netip.MustParseAddrPort("127.0.0.1:5000")

// associateInMemory runs an association until the test ends.
func associateInMemory(t *testing.T, p Policy, idle time.Duration) *memoryAssociation {
	t.Helper()
	near, far := net.Pipe()
	m := &memoryAssociation{T: t, client: newMemorySocket(), target: newMemorySocket(), control: far, ended: make(chan error, 1)}
	m.association = &association{
		server:  &Server{Policy: p},
		session: NewSession(Record{Started: time.Now()}),
		request: Request{Command: socks.Associate, Client: netip.AddrPortFrom(homeAt.Addr(), 4999)},
		idle:    idle,
	}
	m.association.client, m.direct = m.client, &exit{sockets: [families]packetSocket{v4: m.target}}
	ctx, end := context.WithCancelCause(context.WithoutCancel(t.Context()))
	from := &serving{Door: m.server.Door(nil, Listener{}), gone: func() {}}
	m.session.open(from, &m.request, endFunc(end))
	m.session.leaveReviewsTo(m.review)
	t.Cleanup(m.session.close)
	go func() { m.ended <- m.run(ctx, near) }()
	t.Cleanup(func() { near.Close() })
	t.Cleanup(func() { far.Close() })
	return m
}

// sends takes a datagram of the client to the association.
func (m *memoryAssociation) sends(d []byte) {
	m.client.in <- memoryPacket{string(d), homeAt}
	synctest.Wait()
}

// came returns what has come out of a socket since it was last asked.
func came(s *memorySocket) (all []memoryPacket) {
	for {
		select {
		case d := <-s.out:
			all = append(all, d)
		default:
			return all
		}
	}
}

// sent fails the test unless the last datagram, and no other, went to an address;
// an invalid one: nowhere.
func (m *memoryAssociation) sent(to netip.AddrPort) {
	m.Helper()
	synctest.Wait()
	all := came(m.target)
	if !to.IsValid() && len(all) == 0 {
		return
	}
	if len(all) != 1 || all[0].peer != to {
		m.Errorf("went out: %v, want one datagram to %v", all, to)
	}
}

// mayAnswer fails the test unless an address may, or may not, answer.
func (m *memoryAssociation) mayAnswer(from netip.AddrPort, want bool) {
	m.Helper()
	m.target.in <- memoryPacket{"answer", from}
	synctest.Wait()
	if got := len(came(m.client)) == 1; got != want {
		m.Errorf("an answer from %s came through: %v, want %v", from, got, want)
	}
}

// ends fails the test unless the association has ended for that reason.
func (m *memoryAssociation) ends(want Reason) {
	m.Helper()
	synctest.Wait()
	select {
	case err := <-m.ended:
		if got := ReasonOf(err); got != want {
			m.Errorf("ended with %q, want %q", got, want)
		}
	default:
		m.Errorf("has not ended, want %q", want)
	}
}

// TestAssociationAsksAgain: a decision holds for a minute, a refusal for ten
// seconds; what is granted again stays where it is.
func TestAssociationAsksAgain(t *testing.T) {
	one, two := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	synctest.Test(t, func(t *testing.T) {
		var asked int
		var grant Grant
		var refusal error
		m := associateInMemory(t, deciding(func(context.Context, *Request) (Grant, error) {
			asked++
			return grant, refusal
		}), time.Hour)
		ask := func(after time.Duration, g Grant, err error, wantAsked int, want netip.AddrPort) {
			t.Helper()
			time.Sleep(after)
			grant, refusal = g, err
			m.sends(wrappedName("name.test", 53, "x"))
			m.sent(want)
			if asked != wantAsked {
				t.Errorf("asked %d times, want %d", asked, wantAsked)
			}
		}
		first, both, second := []netip.Addr{one.Addr()}, []netip.Addr{two.Addr(), one.Addr()}, []netip.Addr{two.Addr()}
		ask(0, Grant{Addrs: first}, nil, 1, one)
		ask(grantedFor, Grant{}, Denied, 1, one)
		ask(1, Grant{Addrs: both}, nil, 2, one)
		m.mayAnswer(one, true)
		m.mayAnswer(two, false)
		ask(grantedFor+1, Grant{Addrs: second}, nil, 3, two)
		m.mayAnswer(one, false)
		m.mayAnswer(two, true)
		ask(grantedFor+1, Grant{}, Denied, 4, netip.AddrPort{})
		m.mayAnswer(two, false)
		ask(refusedFor, Grant{Addrs: first}, nil, 4, netip.AddrPort{})
		ask(1, Grant{Addrs: first}, nil, 5, one)
		m.control.Close()
		m.ends(Closed)
	})
}

// TestAssociationDeciders: a bounded number of decisions is open at once, each
// for a bounded time, and the others have their turn after them.
func TestAssociationDeciders(t *testing.T) {
	const names = 40
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int64
		m := associateInMemory(t, deciding(func(ctx context.Context, _ *Request) (Grant, error) {
			most.Store(max(most.Load(), open.Add(1)))
			defer open.Add(-1)
			<-ctx.Done()
			return Grant{}, ctx.Err()
		}), time.Hour)
		for i := range names {
			m.sends(wrappedName(fmt.Sprintf("name%d.test", i), 53, "x"))
		}
		if open.Load() != maxDeciders {
			t.Errorf("%d decisions are open, want %d", open.Load(), maxDeciders)
		}
		time.Sleep(3 * decideTime)
		synctest.Wait()
		if open.Load() != 0 || most.Load() != maxDeciders || m.session.Dropped() != names {
			t.Errorf("%d are open, %d were, %d datagrams dropped", open.Load(), most.Load(), m.session.Dropped())
		}
		m.sends(wrappedName("last.test", 53, "x"))
		m.control.Close() // ends the decision too
		m.ends(TimedOut)  // as the session came to nothing, its first refusal
	})
}

// TestAssociationTooManyPending: past the destinations that are remembered, what
// comes is dropped until some are decided on.
func TestAssociationTooManyPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := associateInMemory(t, naming(nil), time.Hour)
		for i := range maxDestinations + 5 {
			m.sends(wrappedName(fmt.Sprintf("name%d.test", i), 53, "x"))
		}
		if n := m.session.Dropped(); n != 5 {
			t.Errorf("%d datagrams dropped, want 5", n)
		}
		m.control.Close()
		m.ends(Closed)
	})
}

// TestAssociationIdle: the limit counts from the last datagram that was relayed,
// in either direction; nothing else keeps an association.
func TestAssociationIdle(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:53")
	synctest.Test(t, func(t *testing.T) {
		m := associateInMemory(t, deciding(anything), 5*time.Minute)
		time.Sleep(4 * time.Minute)
		m.sends(wrapped(0, at, "x"))
		m.sent(at)
		time.Sleep(4 * time.Minute)
		m.mayAnswer(at, true)
		time.Sleep(4 * time.Minute)
		_, _ = m.control.Write([]byte("no datagram")) // a pipe that is open takes it
		m.client.in <- memoryPacket{"a stranger's", netip.MustParseAddrPort("192.0.2.9:9")}
		m.sends([]byte("garbage"))
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if len(m.ended) > 0 {
			t.Fatal("ended too early")
		}
		time.Sleep(time.Nanosecond)
		m.ends(Idle)
	})
}

// TestAssociationDropsOldFragments: the reassembly timer runs out.
func TestAssociationDropsOldFragments(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:53")
	synctest.Test(t, func(t *testing.T) {
		m := associateInMemory(t, deciding(anything), time.Hour)
		m.sends(wrapped(1, at, "a"))
		time.Sleep(fragmentTime)
		m.sends(wrapped(0x82, at, "b"))
		m.sent(netip.AddrPort{})
		m.sends(wrapped(1, at, "a"))
		time.Sleep(fragmentTime - 1)
		m.sends(wrapped(0x82, at, "b"))
		m.sent(at)
		m.control.Close()
		m.ends(Closed)
	})
}

// TestAssociationChooses the address in use, else the first that can be reached.
func TestAssociationChooses(t *testing.T) {
	a := &association{server: &Server{}}
	a.direct = &exit{sockets: [families]packetSocket{v4: newMemorySocket()}}
	own := netip.MustParseAddrPort("127.0.0.9:53")
	a.server.state.associated.add(own)
	const nowhere, here, there = "240.0.0.1", "127.0.0.1", "127.0.0.2"
	for _, test := range []struct {
		name    string
		granted []string
		inUse   string
		want    string // an address
		reason  Reason
	}{
		{"one", []string{here}, "", here, ""},
		{"the first", []string{here, there}, "", here, ""},
		{"the one in use", []string{here, there}, there, there, ""},
		{"one in use that is granted no more", []string{here}, there, here, ""},
		{"no way, and nothing else", []string{nowhere}, "", nowhere, ""},
		{"a family that is missing", []string{"2001:db8::1", here}, "", here, ""},
		{"only such", []string{"2001:db8::1"}, "", "", Unreachable},
		{"ourselves and another", []string{"127.0.0.9", here}, "", here, ""},
		{"ourselves", []string{"127.0.0.9"}, "127.0.0.9", "", Loop},
		{"no host", []string{"224.0.0.1"}, "", "", BadRequest},
		{"nothing", nil, "", "", Denied},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &destination{target: socks.Addr{Name: "name.test", Port: own.Port()}, exit: a.direct}
			var granted []netip.Addr
			for _, g := range test.granted {
				granted = append(granted, netip.MustParseAddr(g))
			}
			if test.inUse != "" {
				d.at = netip.AddrPortFrom(netip.MustParseAddr(test.inUse), own.Port())
			}
			got, err := a.choose(t.Context(), granted, d, a.direct)
			switch {
			case test.want == "" && (err == nil || ReasonOf(err) != test.reason):
				t.Errorf("%v, %v; want %q", got, err, test.reason)
			case test.want != "" && got.Addr().String() != test.want:
				t.Errorf("%v, %v; want %s", got, err, test.want)
			}
		})
	}
}

// BenchmarkAssociation is the way there and back, with so many datagrams under way.
func BenchmarkAssociation(b *testing.B) {
	for _, size := range []int{64, 1400} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := onLoopback(b, &Server{Policy: deciding(anything)}, Listener{})
			echo := udpEcho(b, "127.0.0.2:0")
			a := r.associate(noAddress)
			a.talks(echo)
			d := wrapped(0, echo, string(make([]byte, size)))
			buf := make([]byte, 1<<16)
			_ = a.SetReadDeadline(time.Time{})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a.send(d)
				if i < 16 {
					continue
				}
				if _, err := a.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
			a.control.Close()
		})
	}
}
