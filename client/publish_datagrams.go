package client

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/datagram"
)

// Bounds of a service of datagrams.
const (
	packetVisitors = 1024            // each has a socket; one too many ends who was silent for the longest time
	packetIdle     = 2 * time.Minute // of a visitor in which nothing moves
	packetsWaiting = 64              // datagrams of one visitor, while the service is being looked up
	packetsRoom    = 2 << 20         // bytes of them, of all visitors
)

// packetOffer is a virtual port for datagrams, as long as its channel lives
// ([datagram.Channel]). Its goroutines: the reader of the channel, which is the caller
// of serve, a writer, one that discards requests, and two for each visitor.
type packetOffer struct {
	link    *published
	service Service
	channel ssh.Channel
	out     *datagram.Queue

	mu       sync.Mutex
	visitors map[uint32]*packetVisitor
	order    list.List // of them, who was heard of the longest ago first
	waiting  int       // bytes that wait for their services, of all visitors
}

// offerPackets offers a service of datagrams, and again where the server takes it
// back, until ctx ends, which it must with the connection. What is wrong with the first
// try is returned.
func (l *published) offerPackets(ctx context.Context, s Service, work *sync.WaitGroup) error {
	first, err := l.openPackets(s)
	if err != nil {
		return err
	}
	work.Go(func() { l.keepOffering(ctx, s, first) })
	return nil
}

// keepOffering serves an offer, and those that take its place, until ctx ends.
func (l *published) keepOffering(ctx context.Context, s Service, o *packetOffer) {
	var pause time.Duration
	for {
		began := time.Now()
		err := o.serve(ctx)
		if time.Since(began) > mostBackoff {
			pause = 0
		}
		for err != nil {
			pause = min(max(2*pause, time.Second), mostBackoff)
			if !sleep(ctx, pause) { // as a rule the connection has ended, and nobody has taken anything back
				return
			}
			l.log().Warn("a virtual port is asked for again", "virtual port", s.Name, "error", err)
			o, err = l.openPackets(s)
		}
	}
}

// sleep waits, and reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// openPackets asks the server for a virtual port for datagrams.
func (l *published) openPackets(s Service) (*packetOffer, error) {
	channel, requests, err := l.conn.OpenChannel(datagram.Channel, ssh.Marshal(struct {
		Host string
		Port uint32
	}{s.Name, uint32(s.Port)}))
	if err != nil {
		return nil, fmt.Errorf("the server does not let %s offer the virtual port %q for datagrams: %w", l.User, s.Name, err)
	}
	l.log().Info("offered", "virtual port", s.Name, "target", "udp/"+s.Target, "server", l.Server)
	go ssh.DiscardRequests(requests) // until the channel is closed
	return &packetOffer{link: l, service: s, channel: channel, out: datagram.NewQueue(), visitors: map[uint32]*packetVisitor{}}, nil
}

// errTakenBack is why an offer has ended whose connection has not.
var errTakenBack = errors.New("the server has taken it back; its log says why")

// serve brings visitors to the service until the channel or ctx ends. It returns why.
func (o *packetOffer) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer o.out.Close()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = o.channel.Close() }) // fails only where the other end has closed
	defer stop()
	work.Go(func() {
		_ = o.out.Run(o.channel) // the reader hears of it, too
	})
	frames := datagram.NewReader(o.channel)
	for {
		f, err := frames.Next()
		switch {
		case err == nil:
			o.take(ctx, f, &work)
			continue
		case errors.Is(err, io.EOF):
			err = errTakenBack
		}
		_ = o.channel.Close() // likewise
		return err
	}
}

// take hands a frame of the server's to its visitor. It waits for nothing.
func (o *packetOffer) take(ctx context.Context, f datagram.Frame, work *sync.WaitGroup) {
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.visitors[f.Visitor]
	switch {
	case f.End && v != nil:
		o.forget(v)
		return
	case f.End:
		return
	case v == nil:
		v = o.begin(ctx, f.Visitor, work)
	default:
		o.order.MoveToBack(v.place)
	}
	if o.waiting+len(f.Payload) > packetsRoom {
		return // it is lost, and so is what does not fit here:
	}
	select {
	case v.waiting <- append([]byte(nil), f.Payload...):
		o.waiting += len(f.Payload)
	default:
	}
}

// taken makes room again for what has waited.
func (o *packetOffer) taken(payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting -= len(payload)
}

// begin makes room for a new visitor. Callers hold mu.
func (o *packetOffer) begin(ctx context.Context, id uint32, work *sync.WaitGroup) *packetVisitor {
	if first := o.order.Front(); first != nil && o.order.Len() >= packetVisitors {
		if silent, ok := first.Value.(*packetVisitor); ok {
			o.forget(silent)
			o.out.End(silent.id)
		}
	}
	v := &packetVisitor{offer: o, id: id, waiting: make(chan []byte, packetsWaiting), began: time.Now()}
	ctx, v.end = context.WithCancel(ctx)
	v.place = o.order.PushBack(v)
	o.visitors[id] = v
	work.Go(func() { v.run(ctx) })
	return v
}

// forget ends a visitor. Callers hold mu.
func (o *packetOffer) forget(v *packetVisitor) {
	if o.visitors[v.id] == v {
		delete(o.visitors, v.id)
		o.order.Remove(v.place)
	}
	v.end()
}

// packetVisitor is one visitor's socket to the service.
type packetVisitor struct {
	offer   *packetOffer
	id      uint32
	waiting chan []byte
	end     context.CancelFunc
	place   *list.Element // guarded by the offer's mu
	began   time.Time
	moved   atomic.Int64 // when something did last, in nanoseconds since then
}

// run relays until the visitor ends, or nothing has moved for its idle limit, which
// the server is told.
func (v *packetVisitor) run(ctx context.Context) {
	defer v.leave()
	dial, cancel := context.WithTimeout(ctx, publishDial)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(dial, "udp", v.offer.service.Target)
	if err != nil {
		if ctx.Err() == nil {
			v.offer.link.log().Warn("a service cannot be reached", "target", "udp/"+v.offer.service.Target, "error", err)
		}
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	v.touch()
	var sender sync.WaitGroup
	defer sender.Wait()
	defer v.end()
	sender.Go(func() { v.send(ctx, c) })
	v.receive(ctx, c)
}

// leave is the end of a visitor, who is told to the server unless that has ended it, and
// with it of what waits.
func (v *packetVisitor) leave() {
	o := v.offer
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.visitors[v.id] == v {
		o.out.End(v.id)
	}
	o.forget(v) // so that nothing comes any more
	for range len(v.waiting) {
		o.waiting -= len(<-v.waiting)
	}
}

func (v *packetVisitor) touch() { v.moved.Store(int64(time.Since(v.began))) }

// idleAt is when the visitor has been silent for too long, unless something moves.
func (v *packetVisitor) idleAt() time.Time {
	return v.began.Add(time.Duration(v.moved.Load()) + packetIdle)
}

// send takes what waits to the service. What cannot be sent is lost.
func (v *packetVisitor) send(ctx context.Context, c net.Conn) {
	for {
		select {
		case payload := <-v.waiting:
			v.offer.taken(payload)
			if _, err := c.Write(payload); err == nil {
				v.touch()
			}
		case <-ctx.Done():
			return
		}
	}
}

// receive takes what the service answers to the visitor.
func (v *packetVisitor) receive(ctx context.Context, c net.Conn) {
	b := make([]byte, datagram.MaxPayload)
	for ctx.Err() == nil {
		if c.SetReadDeadline(v.idleAt()) != nil {
			return
		}
		n, err := c.Read(b)
		switch {
		case err == nil:
			v.touch()
			v.offer.out.Put(v.id, b[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !time.Now().Before(v.idleAt()) {
				return
			}
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET): // nobody served it at that moment
		default:
			return
		}
	}
}
