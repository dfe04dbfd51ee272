//go:build unix

package server

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestUpstreamAssociation: datagrams leave by the way of their destination, and only
// who was written to by it may answer; where it has failed, another is opened.
func TestUpstreamAssociation(t *testing.T) {
	opened := make(chan *net.UDPConn, 2)
	up := &passing{packets: func() net.PacketConn {
		c := udpSocket(t, "127.0.0.77:0")
		opened <- c
		return c
	}}
	byAddress := granting(&Way{Via: "hq", Upstream: up}, BindOptions{})
	direct := netip.MustParseAddr("127.0.0.4")
	r := onLoopback(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
		if q.Target.IP == direct {
			return anything(ctx, q)
		}
		return byAddress(ctx, q)
	})}, Listener{})
	a := r.associate(noAddress)
	echo, straight, stranger := udpEcho(t, "127.0.0.3:0"), udpEcho(t, direct.String()+":0"), udpSocket(t, "127.0.0.5:0")
	a.talks(echo)
	a.talks(straight)
	first := <-opened
	sendTo(t, stranger, []byte("not asked"), local(first))
	a.talks(echo)
	if got := up.last(); got.Client.Addr() != clientAt || len(got.Addrs) != 0 {
		t.Errorf("asked for %+v", got)
	}

	first.Close() // the upstream has ended it
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	var second *net.UDPConn
	for second == nil { // what is sent before that is noticed is lost
		a.send(wrapped(0, echo, "again"))
		select {
		case second = <-opened:
		case <-tick.C:
		case <-limit:
			t.Fatal("no other way was opened")
		}
	}
	a.hears(echo, "again")
	a.control.Close()
	if e := r.next(Closed); e.Via != "hq" || e.Proxy != "a proxy" || e.Dropped() == 0 {
		t.Errorf("via %q, proxy %q, %d dropped", e.Via, e.Proxy, e.Dropped())
	}
	if _, err := second.Write(nil); err == nil {
		t.Error("the way was not closed")
	}
}

// TestUpstreamWithoutDatagrams: where no upstream takes them, that is why the
// association got nowhere.
func TestUpstreamWithoutDatagrams(t *testing.T) {
	up := &passing{err: UpstreamFailed}
	r := onLoopback(t, &Server{Policy: granting(&Way{Via: "hq", Upstream: up}, BindOptions{})}, Listener{})
	a := r.associate(noAddress)
	a.send(wrapped(0, netip.MustParseAddrPort("127.0.0.3:9"), "lost"))
	r.dropped(1)
	a.control.Close()
	r.next(UpstreamFailed)
}

// TestFrom: sockets have the address, and what is of the other family is told.
func TestFrom(t *testing.T) {
	out := From(netip.MustParseAddr("::ffff:127.0.0.5"))
	target := listenTCP(t, "127.0.0.1:0")
	c, err := out.DialContext(t.Context(), "tcp", target.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ln, err := out.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pc, err := out.ListenPacket(t.Context(), "udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	for what, at := range map[string]netip.AddrPort{
		"the connection": addrPort(c.LocalAddr()), "the listener": addrPort(ln.Addr()), "the socket": udpAddrPort(pc.LocalAddr()),
	} {
		if at.Addr().String() != "127.0.0.5" {
			t.Errorf("%s has %v", what, at)
		}
	}
	_, err1 := out.DialContext(t.Context(), "tcp", "[::1]:80")
	_, err2 := out.Listen(t.Context(), "tcp6", "[::1]:0")
	_, err3 := out.ListenPacket(t.Context(), "udp6", ":0")
	for _, err := range []error{err1, err2, err3} {
		if ReasonOf(err) != Unreachable {
			t.Errorf("%v, want %q", err, Unreachable)
		}
	}
}
