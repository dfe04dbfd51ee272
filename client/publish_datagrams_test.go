package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/datagram"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// newHostKey is one of a server.
func newHostKey(tb testing.TB) ssh.Signer {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// udpService answers each datagram with itself and who has asked, until the test ends.
func udpService(t *testing.T) (address string) {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(fmt.Appendf(b[:n:n], " of %s", from), from) // the test misses it
		}
	}()
	return c.LocalAddr().String()
}

// asks sends a word to the virtual port until it is answered; how is returned.
func asks(t *testing.T, c net.PacketConn, word string) (answer string) {
	t.Helper()
	proxytest.Eventually(t, word+" is answered", func() bool {
		if _, err := c.WriteTo([]byte(word), Addr{"udp", "intranet:53"}); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		n, from, err := c.ReadFrom(b)
		if err == nil && from.String() != "intranet:53" {
			t.Errorf("the answer comes from %s", from)
		}
		answer = string(b[:n])
		return err == nil
	})
	return answer
}

func associates(t *testing.T, proxy string) net.PacketConn {
	t.Helper()
	d, err := New("socks5h://" + proxy)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestPublisherOfDatagrams: a service is reached, by each visitor from a socket of its
// own, and again after the server was away; at the end nothing is left.
func TestPublisherOfDatagrams(t *testing.T) {
	key := newHostKey(t)
	at, end := serveVirtual(t, "127.0.0.1:0", key)
	p := &Publisher{Server: at, User: "bob", HostKey: ssh.FixedHostKey(key.PublicKey()), Services: []Service{
		{"intranet", 53, udpService(t), true}, {"intranet", 53, proxytest.Echo(t, "127.0.0.1").String(), false},
	}}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	one, two := associates(t, at), associates(t, at)
	first := asks(t, one, "hello")
	if again := asks(t, one, "hello"); again != first {
		t.Errorf("%q, and then %q: not from one socket", first, again)
	}
	if other := asks(t, two, "hello"); other == first {
		t.Errorf("two visitors have one socket: %q", other)
	}
	c, err := visitIntranet(t, at)
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Say(t, c, []byte("hello"))
	proxytest.Hear(t, c, "hello")
	c.Close()
	end()
	_, end = serveVirtual(t, at, key)
	asks(t, associates(t, at), "hello again")
	stop := errors.New("enough")
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Error(err)
	}
	end()
}

// TestPacketOffer: what one visitor too many, its end, and a service that is not there
// do to an offer.
func TestPacketOffer(t *testing.T) {
	for name, target := range map[string]string{"a service": udpService(t), "nobody": proxytest.Nowhere(t).String()} {
		t.Run(name, func(t *testing.T) {
			o, far, served := servesPackets(t, target)
			ends := endsOf(far)
			for i := range packetVisitors + 1 {
				proxytest.Say(t, far, datagram.Frame{Visitor: uint32(i + 1), Payload: []byte("hello")}.Append(nil))
			}
			for _, visitor := range []uint32{2, 2, 1e6} {
				proxytest.Say(t, far, datagram.Frame{Visitor: visitor, End: true}.Append(nil))
			}
			if name == "a service" {
				if first := <-ends; first != 1 {
					t.Errorf("the visitor %d has ended, want the first", first)
				}
				o.hasLost(t, 1, 2)
			}
			far.Close()
			<-served
			for range ends {
			}
			if n := len(o.visitors) + o.order.Len(); n != 0 {
				t.Errorf("%d visitors are left after the end", n)
			}
		})
	}
}

// servesPackets is an offer that is served until far, which is the server's end, ends.
func servesPackets(t *testing.T, target string) (o *packetOffer, far net.Conn, served chan struct{}) {
	t.Helper()
	near, far := net.Pipe()
	o = &packetOffer{
		link: &published{Publisher: &Publisher{}}, service: Service{"intranet", 53, target, true},
		channel: pipeChannel{near}, out: datagram.NewQueue(), visitors: map[uint32]*packetVisitor{},
	}
	served = make(chan struct{})
	go func() {
		defer close(served)
		o.serve(t.Context())
	}()
	return o, far, served
}

// endsOf reads frames, and yields who has ended.
func endsOf(far net.Conn) <-chan uint32 {
	ends := make(chan uint32, 2*packetVisitors)
	go func() {
		defer close(ends)
		r := datagram.NewReader(far)
		for f, err := r.Next(); err == nil; f, err = r.Next() {
			if f.End {
				ends <- f.Visitor
			}
		}
	}()
	return ends
}

// hasLost fails the test unless just these visitors are gone.
func (o *packetOffer) hasLost(t *testing.T, gone ...uint32) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, visitor := range gone {
		if o.visitors[visitor] != nil {
			t.Errorf("the visitor %d is still there", visitor)
		}
	}
	if n := len(o.visitors); n != packetVisitors+1-len(gone) || o.order.Len() != n {
		t.Errorf("%d visitors are left", n)
	}
}

// TestPacketsThatWaitAreBounded: while services are being looked up, what their visitors
// send takes no more memory than there is for all of them; who leaves gives it back.
func TestPacketsThatWaitAreBounded(t *testing.T) {
	o := &packetOffer{out: datagram.NewQueue(), visitors: map[uint32]*packetVisitor{}}
	payload := make([]byte, datagram.MaxPayload)
	var all []*packetVisitor
	for id := range uint32(3) {
		v := &packetVisitor{offer: o, id: id, waiting: make(chan []byte, packetsWaiting), end: func() {}}
		v.place = o.order.PushBack(v)
		o.visitors[id] = v
		all = append(all, v)
		for range packetsWaiting {
			o.take(t.Context(), datagram.Frame{Visitor: id, Payload: payload}, nil)
		}
	}
	held := 0
	for _, v := range all {
		held += len(v.waiting) * len(payload)
	}
	if most := packetsRoom / len(payload) * len(payload); held != most || o.waiting != most {
		t.Errorf("%d bytes wait, and %d are counted; want %d", held, o.waiting, most)
	}
	for _, v := range all {
		v.leave()
	}
	if o.waiting != 0 || len(o.visitors) != 0 {
		t.Errorf("after the end %d bytes of %d visitors wait", o.waiting, len(o.visitors))
	}
}

// TestPacketOfferIsTakenBack: why it has ended is told, and a fault of the stream is another
// matter.
func TestPacketOfferIsTakenBack(t *testing.T) {
	for said, want := range map[string]error{"": errTakenBack, "\x02nonsense": datagram.ErrFrame} {
		near, far := net.Pipe()
		o := &packetOffer{link: &published{Publisher: &Publisher{}}, channel: pipeChannel{near}, out: datagram.NewQueue(), visitors: map[uint32]*packetVisitor{}}
		ended := make(chan error, 1)
		go func() { ended <- o.serve(t.Context()) }()
		if said != "" {
			proxytest.Say(t, far, []byte(said))
		}
		if errors.Is(want, errTakenBack) {
			far.Close()
		}
		if err := <-ended; !errors.Is(err, want) {
			t.Errorf("%q: it ended with %v, want %v", said, err, want)
		}
		far.Close()
	}
}

// pipeChannel is a connection as far as an offer needs a channel.
type pipeChannel struct{ net.Conn }

func (pipeChannel) CloseWrite() error                              { return nil }
func (pipeChannel) SendRequest(string, bool, []byte) (bool, error) { return false, nil }
func (pipeChannel) Stderr() io.ReadWriter                          { return nil }

// TestPublisherMayNotOfferDatagrams: what is wrong with the first try is told.
func TestPublisherMayNotOfferDatagrams(t *testing.T) {
	key := newHostKey(t)
	at, end := serveVirtual(t, "127.0.0.1:0", key)
	defer end()
	p := &Publisher{Server: at, User: "bob", HostKey: ssh.FixedHostKey(key.PublicKey()), Services: []Service{{"other", 53, udpService(t), true}}}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `does not let bob offer the virtual port "other" for datagrams`) {
		t.Errorf("another port: %v", err)
	}
}
