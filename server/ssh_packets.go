package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/datagram"
)

// Bounds of the datagrams that have come for visitors and that nobody has taken yet.
const (
	packetsWaiting = 64       // of one visitor
	packetsRoom    = 2 << 20  // bytes, of all visitors of an offer
	mostVisitors   = 64 << 10 // of an offer
)

// errNoPackets refuses to open a port of this machine for datagrams.
var errNoPackets = fmt.Errorf("%w: datagrams are offered under the name of a virtual port, and nowhere else", Unsupported)

// errNoRoom is what a datagram meets that has to be dropped.
var errNoRoom = errors.New("the offer takes no more at the moment")

// packets are the datagrams of a virtual port, and who visits it. All of them go by
// one channel, which is the offer: it is granted with the channel, and ends with it.
// What the client sends never waits for a visitor, nor the other way round.
type packets struct {
	out *datagram.Queue // to the client
	at  *net.UDPAddr    // of the client, whom all datagrams come from as far as associations know

	mu      sync.Mutex
	byID    map[uint32]*packetVisitor // nil: the offer has ended
	last    uint32
	waiting int // bytes, of all visitors
}

func newPackets(client netip.AddrPort) *packets {
	return &packets{out: datagram.NewQueue(), at: net.UDPAddrFromAddrPort(client), byID: map[uint32]*packetVisitor{}}
}

// offerPackets serves a channel by which the client offers a virtual port for
// datagrams.
func (c *sshConn) offerPackets(ctx context.Context, channel ssh.NewChannel) {
	s := newSSHStream(c, channel)
	host, port, err := parseForward(channel.ExtraData())
	target, bad := offered(host, port)
	if err = errors.Join(err, bad); err == nil && target == everyPeer {
		err = errNoPackets
	}
	o := c.newOffer(s, host, port, target)
	o.packets = newPackets(o.exchange.session.Client)
	c.served.Go(func() {
		defer s.release()
		defer o.exchange.contain()
		if err == nil {
			err = o.servePackets(ctx, s)
		}
		if err != nil {
			o.exchange.say(sshReplier{}.AppendDeny(nil, err, netip.AddrPort{}))
			o.exchange.closed(err)
		}
	})
}

// servePackets decides on the offer, which is open until it is over. An error is why
// it was refused.
func (o *offer) servePackets(life context.Context, s *sshStream) error {
	ctx, withdraw := context.WithCancelCause(life)
	defer withdraw(nil)
	o.withdraw = withdraw
	ctx = o.exchange.opened(ctx)
	if err := o.open(ctx); err != nil {
		return err
	}
	if err := o.exchange.grant(netip.AddrPort{}); err != nil {
		o.unregister()
		return err
	}
	o.conn.served.Go(func() {
		o.withdraw(o.packets.receive(s))
		o.conn.waste() // or else it could be offered again and again
	})
	o.conn.served.Go(func() {
		if o.packets.out.Run(s) != nil {
			o.withdraw(errWithdrawn)
		}
	})
	o.run(ctx, life)
	return nil
}

// receive takes what the client sends to visitors, until the channel ends. It returns
// why.
func (p *packets) receive(from io.Reader) error {
	r := datagram.NewReader(from)
	for {
		f, err := r.Next()
		switch {
		case errors.Is(err, datagram.ErrFrame):
			return fmt.Errorf("%w: %w", BadRequest, err)
		case err != nil:
			return errWithdrawn // or the connection has ended, whose reason is its own
		case f.End:
			p.leave(f.Visitor)
		default:
			p.deliver(f.Visitor, f.Payload)
		}
	}
}

// deliver hands a datagram to a visitor, or drops it.
func (p *packets) deliver(id uint32, payload []byte) {
	p.mu.Lock()
	v := p.byID[id]
	fits := v != nil && len(v.waiting) < packetsWaiting && p.waiting+len(payload) <= packetsRoom
	if fits {
		v.waiting = append(v.waiting, append([]byte(nil), payload...))
		p.waiting += len(payload)
		v.wake()
	}
	p.mu.Unlock()
	if v != nil && !fits {
		v.dropped(1)
	}
}

// count returns how many visitors there are.
func (p *packets) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byID)
}

// enter lets a visitor in, whose datagrams that are lost are told; nil: the offer has
// ended, or has no room.
func (p *packets) enter(dropped func(int)) *packetVisitor {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil || len(p.byID) >= mostVisitors {
		return nil
	}
	for p.last++; p.byID[p.last] != nil; p.last++ { // after four thousand million visitors
	}
	v := &packetVisitor{packets: p, id: p.last, dropped: dropped, arrived: make(chan struct{}, 1), gone: make(chan struct{})}
	p.byID[v.id] = v
	return v
}

// leave sends a visitor away, and reports whether it was there.
func (p *packets) leave(id uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.byID[id]
	if v != nil {
		delete(p.byID, id)
		p.forget(v)
	}
	return v != nil
}

// forget ends a visitor. Callers hold mu.
func (p *packets) forget(v *packetVisitor) {
	for _, payload := range v.waiting {
		p.waiting -= len(payload)
	}
	v.waiting = nil
	close(v.gone)
}

// end sends all visitors away: what they send next goes to another offer. It may be
// called again.
func (p *packets) end() {
	p.out.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.byID {
		p.forget(v)
	}
	p.byID = nil
}

// packetVisitor is the place of one client of datagrams at an offer: a packetSocket,
// whose other end is wherever the offer leads to.
type packetVisitor struct {
	packets *packets
	id      uint32
	dropped func(int)
	arrived chan struct{} // something waits
	gone    chan struct{} // closed at the end
	waiting [][]byte      // guarded by the packets' mu
}

func (v *packetVisitor) wake() {
	select {
	case v.arrived <- struct{}{}:
	default:
	}
}

func (v *packetVisitor) wait() error {
	select {
	case <-v.arrived:
		return nil
	case <-v.gone:
		return net.ErrClosed
	}
}

func (v *packetVisitor) read(ms []message) (int, error) {
	p := v.packets
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(ms), len(v.waiting))
	for i, payload := range v.waiting[:n] {
		ms[i].N, ms[i].Addr = copy(ms[i].Buffers[0], payload), p.at
		p.waiting -= len(payload)
	}
	clear(v.waiting[:n]) // what is not counted any more is not to be held, either
	if v.waiting = v.waiting[n:]; len(v.waiting) > 0 {
		v.wake()
	}
	return n, nil
}

// write puts datagrams into the queue to the client. The address says nothing: there
// is but one.
func (v *packetVisitor) write(ms []message) (int, error) {
	for i := range ms {
		if !v.packets.out.Put(v.id, ms[i].Buffers[0]) {
			return i, errNoRoom
		}
	}
	return len(ms), nil
}

// Close tells the client that the visitor has gone.
func (v *packetVisitor) Close() error {
	if v.packets.leave(v.id) {
		v.packets.out.End(v.id)
	}
	return nil
}

// admit lets a visitor in at one of those who offer a virtual port for datagrams.
func (t *offers) admit(name string, dropped func(int)) (*exit, error) {
	for _, o := range t.inTurn(name) {
		if v := o.packets.enter(dropped); v != nil {
			return &exit{sockets: [families]packetSocket{v4: v, v6: v}, through: true, offerer: udpAddrPort(o.packets.at)}, nil
		}
	}
	return nil, fmt.Errorf("%w: nobody offers the virtual port %q for datagrams", Unreachable, name)
}
