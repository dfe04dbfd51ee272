//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/datagram"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// packetsRig is a server on loopback that speaks SSH and SOCKS 5, and has a virtual port
// for datagrams.
type packetsRig struct {
	*rig
	door netip.AddrPort // where visitors come to
}

func newPacketsRig(tb testing.TB, s *Server) packetsRig {
	tb.Helper()
	if s.Policy == nil {
		s.Policy = deciding(offering)
	}
	s.Authenticator = door{login: LoginOptional}
	r := onLoopback(tb, s, sshListener(tb))
	in := udpSocket(tb, "127.0.0.1:0")
	_ = in.SetReadDeadline(time.Time{})
	m := &Mapping{Targets: []MapTarget{{Addr: socks.Addr{Name: "intranet", Port: 80}}}, Idle: time.Minute}
	r.serveDoor(s.PacketDoor(in, Listener{Name: "intranet", Mapping: m}))
	return packetsRig{r, local(in)}
}

// packetService is a client that offers datagrams, as frames.
type packetService struct {
	testing.TB
	ssh.Channel
	client *ssh.Client
	frames *datagram.Reader
}

func (r packetsRig) offers() packetService {
	r.Helper()
	client := signIn(r, proxytest.Dial(r, r.address))
	channel, err := offerPackets(client, "intranet")
	if err != nil {
		r.Fatal(err)
	}
	return packetService{r, channel, client, datagram.NewReader(channel)}
}

func offerPackets(client *ssh.Client, name string) (ssh.Channel, error) {
	channel, requests, err := client.OpenChannel(datagram.Channel, ssh.Marshal(sshOffer{name, 80}))
	if err == nil {
		go ssh.DiscardRequests(requests)
	}
	return channel, err
}

// hears takes the next frame, which must be that payload; of which visitor is returned.
func (s packetService) hears(payload string) uint32 {
	s.Helper()
	f, err := s.frames.Next()
	if err != nil || f.End || string(f.Payload) != payload {
		s.Fatalf("%+v, %v; want %q", f, err, payload)
	}
	return f.Visitor
}

func (s packetService) says(f datagram.Frame) {
	s.Helper()
	proxytest.Say(s, &visitorConn{Channel: s.Channel}, f.Append(nil))
}

// answers takes a datagram and sends it back.
func (s packetService) answers(payload string) uint32 {
	s.Helper()
	visitor := s.hears(payload)
	s.says(datagram.Frame{Visitor: visitor, Payload: []byte(payload)})
	return visitor
}

// echoes sends everything back until the channel ends.
func (s packetService) echoes() {
	go func() {
		for {
			f, err := s.frames.Next()
			if err != nil {
				return
			}
			_, _ = s.Write(f.Append(nil)) // fails only at the end
		}
	}()
}

// TestPackets: visitors, and clients of the proxy that ask for the name, are brought
// to who offers it, each as a session of its own; the answers have the name.
func TestPackets(t *testing.T) {
	r := newPacketsRig(t, &Server{})
	service := r.offers()
	one, two := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
	visitors := map[uint32]string{}
	for c, word := range map[*net.UDPConn]string{one: "one", two: "two"} {
		sendTo(t, c, []byte(word), r.door)
		visitors[service.answers(word)] = word
		if from := nextFrom(t, c, word); from != r.door {
			t.Errorf("the answer comes from %s", from)
		}
	}
	a := r.associate(noAddress)
	for _, size := range []int{5, 0, 1, 60000} {
		word := string(make([]byte, size))
		a.send(wrappedName("intranet", 80, word))
		visitors[service.answers(word)] = "associated"
		nextFrom(t, a.UDPConn, string(wrappedName("intranet", 80, word)))
	}
	if len(visitors) != 3 {
		t.Errorf("the visitors are %v, want three", visitors)
	}
	a.control.Close()
	e := r.next(Closed)
	if e.Protocol != SOCKS5 || e.Command != socks.Associate || e.To.Name != "intranet" || !e.Address.IsValid() ||
		e.Rule != "intranet" || e.Up() != 60006 || e.Down() != 60006 || e.Dropped() != 0 {
		t.Errorf("recorded %+v, %d up, %d down, %d dropped", e.Record, e.Up(), e.Down(), e.Dropped())
	}
	if f, err := service.frames.Next(); err != nil || !f.End || visitors[f.Visitor] != "associated" {
		t.Errorf("%+v, %v; want the end of the association", f, err)
	}
	service.client.Close()
	if e := r.next(Closed); e.Protocol != SSH || e.Command != socks.Bind || e.Identity.Name != "fred" || e.Target.String() != "intranet:80" {
		t.Errorf("the record of the offer says %+v", e.Record)
	}
}

// TestPacketsOfNobody: what nobody offers leads nowhere, and the record says so.
func TestPacketsOfNobody(t *testing.T) {
	r := newPacketsRig(t, &Server{})
	c := udpSocket(t, "127.0.0.1:0")
	sendTo(t, c, []byte("hello"), r.door)
	proxytest.Eventually(t, "it is refused", func() bool {
		all := r.server.Sessions()
		return len(all) == 1 && all[0].Dropped() == 1
	})
	offerIntranet(t, signIn(t, proxytest.Dial(t, r.address))) // for connections, which is another matter
	a := r.associate(noAddress)
	a.send(wrappedName("intranet", 80, "hello"))
	proxytest.Eventually(t, "it is refused, too", func() bool {
		for _, s := range r.server.Sessions() {
			if s.Protocol == SOCKS5 {
				return s.Dropped() == 1
			}
		}
		return false
	})
	a.control.Close()
	r.next(Unreachable)
}

// TestPacketsFailOver: visitors are shared out; those of an offer that ends, however it
// does, go to another with what they send next.
func TestPacketsFailOver(t *testing.T) {
	for name, end := range map[string]func(packetService){
		"close":      func(s packetService) { s.Close() },
		"connection": func(s packetService) { s.client.Close() },
		"garbage":    func(s packetService) { proxytest.Say(s, &visitorConn{Channel: s.Channel}, []byte("garbage")) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newPacketsRig(t, &Server{})
			first := r.offers()
			c := udpSocket(t, "127.0.0.1:0")
			sendTo(t, c, []byte("one"), r.door)
			first.answers("one")
			nextFrom(t, c, "one")
			second := r.offers()
			other := udpSocket(t, "127.0.0.1:0")
			sendTo(t, other, []byte("of another"), r.door)
			second.answers("of another")
			nextFrom(t, other, "of another")
			second.echoes()
			end(first)
			if e := r.next(map[bool]Reason{true: BadRequest, false: Closed}[name == "garbage"]); e.Command != socks.Bind {
				t.Errorf("recorded %+v", e.Record)
			}
			answered := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 100))
				answered <- err
			}()
			proxytest.Eventually(t, "the next answers", func() bool {
				sendTo(t, c, []byte("two"), r.door) // what is sent in that moment is lost
				select {
				case err := <-answered:
					return err == nil
				default:
					return false
				}
			})
		})
	}
}

// TestPacketsOfAGoneVisitor: one whom the other end has ended comes again as a new one.
func TestPacketsOfAGoneVisitor(t *testing.T) {
	r := newPacketsRig(t, &Server{})
	service := r.offers()
	c := udpSocket(t, "127.0.0.1:0")
	sendTo(t, c, []byte("one"), r.door)
	before := service.answers("one")
	nextFrom(t, c, "one")
	service.says(datagram.Frame{Visitor: before, End: true})
	service.says(datagram.Frame{Visitor: before, Payload: []byte("nobody's")})
	service.says(datagram.Frame{Visitor: before + 1000, Payload: []byte("nobody's")})
	proxytest.Eventually(t, "it is a new visitor", func() bool {
		sendTo(t, c, []byte("two"), r.door)
		return service.answers("two") != before // whose answer would be lost
	})
	nextFrom(t, c, "two")
}

// TestPacketsAreDropped: a client that takes nothing makes nobody wait, and others go
// on; what is lost is counted.
func TestPacketsAreDropped(t *testing.T) {
	r := newPacketsRig(t, &Server{})
	client := signIn(t, proxytest.Dial(t, r.address))
	if _, err := offerPackets(client, "intranet"); err != nil { // whose frames nobody reads
		t.Fatal(err)
	}
	c := udpSocket(t, "127.0.0.1:0")
	payload := make([]byte, 50_000)
	proxytest.Eventually(t, "some are lost", func() bool {
		sendTo(t, c, payload, r.door)
		all := r.server.Sessions()
		return len(all) == 2 && all[0].Dropped()+all[1].Dropped() > 10
	})
	echo := udpEcho(t, "127.0.0.1:0")
	r.associate(noAddress).talks(echo)
}

// TestPacketsAreRefused: who may not offer it is told so, and so is who asks for
// something that it is not.
func TestPacketsAreRefused(t *testing.T) {
	r := newPacketsRig(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
		if q.Target.Name == "secret" {
			return Grant{}, Denied
		}
		return offering(ctx, q)
	})})
	client := signIn(t, proxytest.Dial(t, r.address))
	for name, want := range map[string]Reason{"secret": Denied, "elsewhere": Unsupported, "": Unsupported, "localhost": Unsupported, "10.0.0.1": Unsupported, "a b": BadRequest} {
		if _, err := offerPackets(client, name); err == nil {
			t.Errorf("%q may be offered", name)
		}
		if e := r.next(want); e.Command != socks.Bind || e.Protocol != SSH {
			t.Errorf("%q: recorded %+v", name, e.Record)
		}
	}
	if _, _, err := client.OpenChannel(datagram.Channel, []byte("nonsense")); err == nil {
		t.Error("nonsense may be offered")
	}
	r.next(BadRequest)
	if _, err := offerPackets(client, "intranet"); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if _, err := offerPackets(client, "intranet"); err == nil {
		t.Error("the same is offered twice on one connection")
	}
	r.next(BadRequest)
}

// TestPacketsReviewed: who may offer no more has no visitors any more, and a visitor
// without the right is sent away.
func TestPacketsReviewed(t *testing.T) {
	r := newPacketsRig(t, &Server{})
	r.offers().echoes()
	stays, goes := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
	asksUDP(t, stays, r.door, "one")
	asksUDP(t, goes, r.door, "two")
	r.server.Review(revoking(func(q *Request) bool { return q.Client == local(goes) }))
	if e := r.endOf(goes); ReasonOf(e.err) != Revoked {
		t.Errorf("it ended with %v", e.err)
	}
	asksUDP(t, stays, r.door, "still here")
	r.server.Review(revoking(func(q *Request) bool { return q.Command == socks.Bind }))
	if e := r.next(Revoked); e.Command != socks.Bind {
		t.Errorf("recorded %+v", e.Record)
	}
	sendTo(t, stays, []byte("nobody is there"), r.door)
	proxytest.Eventually(t, "nobody is there", func() bool {
		all := r.server.Sessions()
		return len(all) == 1 && all[0].Dropped() == 1
	})
}

// TestPacketsEnd: when the server stops nothing is left.
func TestPacketsEnd(t *testing.T) {
	for name, stop := range map[string]func(*Server, context.Context) error{"Shutdown": (*Server).Shutdown, "Drain": (*Server).Drain} {
		t.Run(name, func(t *testing.T) {
			r := newPacketsRig(t, &Server{})
			r.offers().echoes()
			c := udpSocket(t, "127.0.0.1:0")
			asksUDP(t, c, r.door, "hello")
			if err := stop(r.server, t.Context()); err != nil {
				t.Fatal(err)
			}
			r.next(Shutdown)
			r.next(Shutdown)
		})
	}
}

// TestPacketsOfMany visitors at once, by two offers, come to nobody else.
func TestPacketsOfMany(t *testing.T) {
	r := newPacketsRig(t, &Server{})
	r.offers().echoes()
	r.offers().echoes()
	var all sync.WaitGroup
	for i := range 64 {
		c := udpSocket(t, "127.0.0.1:0")
		all.Go(func() {
			b := make([]byte, 100)
			for n := range 20 {
				word := fmt.Sprintf("%d of %d", n, i)
				if _, err := c.WriteToUDPAddrPort([]byte(word), r.door); err != nil {
					t.Error(err)
					return
				}
				if k, err := c.Read(b); err != nil || string(b[:k]) != word {
					t.Errorf("%q, %v; want %q", b[:k], err, word)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestPacketsThatWereReadAreGone: what a visitor has taken holds no memory.
func TestPacketsThatWereReadAreGone(t *testing.T) {
	p := newPackets(clientAtPort(1))
	v := p.enter(func(int) { t.Error("one is lost") })
	for range 3 {
		p.deliver(v.id, []byte("hello"))
	}
	waited, room := v.waiting, []message{{Buffers: [][]byte{make([]byte, 10)}}, {Buffers: [][]byte{make([]byte, 10)}}}
	if n, err := v.read(room); n != 2 || err != nil || room[1].N != 5 || p.waiting != 5 {
		t.Fatalf("%d were read, %v; %d bytes wait", n, err, p.waiting)
	}
	if waited[0] != nil || waited[1] != nil || waited[2] == nil {
		t.Errorf("what is held after two of three were read: %q", waited)
	}
}

// FuzzPackets is a client that offers datagrams and then sends what it likes: the offer
// goes on or ends, and others are served as before.
func FuzzPackets(f *testing.F) {
	frame := datagram.Frame{Visitor: 1, Payload: []byte("hello")}.Append(nil)
	f.Add([]byte{})
	f.Add(frame)
	f.Add(frame[:9])
	f.Add(datagram.Frame{Visitor: 1, End: true}.Append(frame))
	f.Add([]byte("\x02nonsense"))
	f.Fuzz(func(t *testing.T, said []byte) {
		p := newPackets(clientAtPort(1))
		dropped := 0
		v := p.enter(func(n int) { dropped += n })
		near, far := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- p.receive(near) }()
		_, _ = far.Write(said) // the reader may have had enough
		far.Close()
		if err := <-ended; !errors.Is(err, errWithdrawn) && ReasonOf(err) != BadRequest {
			t.Errorf("the offer ended with %v", err)
		}
		if p.waiting > packetsRoom || len(v.waiting) > packetsWaiting {
			t.Errorf("%d bytes and %d datagrams wait", p.waiting, len(v.waiting))
		}
		near.Close()
		p.end()
		select {
		case <-v.arrived: // it may still say that something has come, once
		default:
		}
		if p.waiting != 0 || v.wait() == nil {
			t.Errorf("after the end %d bytes wait", p.waiting)
		}
	})
}

func clientAtPort(port uint16) netip.AddrPort { return netip.AddrPortFrom(clientAt, port) }
