package server

import (
	"container/list"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// PacketDoor is [Server.Door] for datagrams: the listener must be a port mapping
// to targets that are no unix sockets. Each client, by address and port, is a
// session, until nothing has moved for the mapping's Idle, or the door is served
// no more.
func (s *Server) PacketDoor(socket net.PacketConn, l Listener) *Door {
	d := &Door{server: s, packets: socket}
	d.listener.Store(&l)
	return d
}

// mapper is a door for datagrams that is served. Its goroutines: the reader of its
// socket, which is the caller of run, and those of its flows.
type mapper struct {
	server  *Server
	serving *serving
	socket  packetSocket

	mu    sync.Mutex // held while a batch is on its way, so that no flow of it ends meanwhile
	flows flows
}

// flow is a client of a mapper: an association whose datagrams have no header, all
// for one destination.
type flow struct {
	association
	mapper  *mapper
	from    netip.AddrPort
	release func() // tells the mapping's balance that it is over

	// pass says where a datagram of the client's goes, as association.route does. It is a
	// closure, for it has the context of the flow's life.
	pass func(payload []byte, now time.Time) (*net.UDPAddr, *exit)

	inAll, inEach *list.Element // guarded by the mapper's mu; nil: it has left
}

// mapDatagrams serves a door for datagrams until its socket fails or is closed. The
// flows end with it.
func (s *Server) mapDatagrams(sessions context.Context, sv *serving) error {
	s.state.associated.add(sv.address) // no target, either
	defer s.state.associated.remove(sv.address)
	m := &mapper{server: s, serving: sv, socket: newPacketSocket(sv.packets)}
	l := s.Limits.withDefaults()
	m.flows.limit(l.Flows, l.FlowsPerSource)
	err := pump(&s.state.batches, m.socket, func(b *batch, n int) { m.take(sessions, b, n) })
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.flows.by {
		f.session.End(fmt.Errorf("%w: the listener is closed", Shutdown))
	}
	return err
}

// take sends a batch on, all of one client at once.
func (m *mapper) take(sessions context.Context, b *batch, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var taken [batchSize]bool
	now := time.Now()
	for i := range n {
		if taken[i] {
			continue
		}
		from := udpAddrPort(b.in[i].Addr)
		p := parcel{flow: m.flow(sessions, from, now), out: &b.out[v4]}
		for j := i; j < n; j++ {
			if !taken[j] && udpAddrPort(b.in[j].Addr) == from {
				taken[j] = true
				p.add(b.received(j), now)
			}
		}
		p.send()
	}
}

// parcel is what goes out for one client by one socket.
type parcel struct {
	flow   *flow // nil: there is no room for the client
	out    *outgoing
	by     *exit // nil: nothing is in it
	family int
}

func (p *parcel) add(payload []byte, now time.Time) {
	if p.flow == nil {
		return
	}
	to, by := p.flow.pass(payload, now)
	if by == nil {
		return
	}
	if kind := family(to.AddrPort().Addr()); p.by != by || p.family != kind {
		p.send()
		p.by, p.family = by, kind
	}
	p.out.add(payload, to, len(payload))
}

func (p *parcel) send() {
	if p.by != nil {
		p.flow.session.meter.Add(p.flow.send(p.out, p.by.sockets[p.family]), 0)
	}
}

// flow returns that of a client, and begins it where it is new; nil where it cannot
// be served. Callers hold mu.
func (m *mapper) flow(sessions context.Context, from netip.AddrPort, now time.Time) *flow {
	if f := m.flows.find(from); f != nil {
		return f
	}
	if !from.IsValid() || from.Port() == 0 || m.serving.ended.Load() {
		return nil
	}
	free, news := m.server.state.gate.try()
	if news != nil {
		m.server.sayPaused(*news, m.server.state.gate.limit)
	}
	if free != nil {
		return nil // no descriptors are left for it
	}
	return m.begin(sessions, from, now)
}

// begin makes the session of a new client. Callers hold mu.
func (m *mapper) begin(sessions context.Context, from netip.AddrPort, now time.Time) *flow {
	s, l := m.server, m.serving.listener.Load()
	if l.Mapping == nil {
		return nil
	}
	chosen := l.Mapping.order(from.Addr())[0]
	target := l.Mapping.Targets[chosen].Addr
	f := &flow{mapper: m, from: from, release: func() { l.Mapping.ended(chosen) }}
	f.server, f.client, f.idle = s, lent{m.socket}, orElse(l.Mapping.Idle, s.timeouts().Association)
	f.known.bare = true
	f.home.Store(net.UDPAddrFromAddrPort(from))
	f.request = Request{
		Protocol: Mapped, Command: socks.Associate, Target: target, Client: from, Local: m.serving.address,
		Listener: l.Name, Replier: mute{},
	}
	f.session = NewSession(Record{
		ID: s.state.lastID.Add(1), Started: now, Listener: l.Name, Client: from,
		Protocol: Mapped, Command: socks.Associate, Target: target, Bound: m.serving.address,
	})
	f.session.leaveReviewsTo(f.review)
	ctx, end := context.WithCancelCause(sessions)
	f.session.open(m.serving, &f.request, endFunc(end))
	f.pass = func(payload []byte, now time.Time) (*net.UDPAddr, *exit) { return f.route(ctx, target, payload, now) }
	s.recorder().Opened(f.session)
	l.Mapping.tried(chosen, nil)
	if !m.serving.admit() {
		f.over(Shutdown)
		return nil
	}
	go f.run(ctx, m.serving.gone)
	m.flows.add(f)
	return f
}

// run waits for the end of a flow.
func (f *flow) run(ctx context.Context, leave func()) {
	err := f.wait(ctx)
	f.mapper.mu.Lock()
	f.mapper.flows.remove(f)
	f.mapper.mu.Unlock()
	// From here on nothing comes from the client any more.
	f.session.End(err) // for those that decide
	f.close()
	f.readers.Wait()
	f.deciders.Wait()
	f.over(f.verdict(err))
	leave()
}

// over tells of the end.
func (f *flow) over(reason error) {
	f.session.close()
	f.release()
	f.server.recorder().Closed(f.session, reason)
}

// wait returns why the flow ends: nothing has moved for its idle limit, or somebody
// ends it.
func (f *flow) wait(ctx context.Context) error {
	f.touch()
	for {
		timer := time.NewTimer(time.Until(f.lastMoved().Add(f.idle)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		if time.Since(f.lastMoved()) >= f.idle {
			return Idle
		}
	}
}

// lent is a socket that its user does not own.
type lent struct{ packetSocket }

// Close leaves it open.
func (lent) Close() error { return nil }

// flows are the clients of a mapper, by address, and in the order in which they were
// last heard of: the first is who has been silent for the longest time, and makes
// room when there are too many, in sum or of one source. It is not safe for
// concurrent use.
type flows struct {
	most, perEach int
	by            map[netip.AddrPort]*flow
	all           list.List // of *flow
	bySource      map[netip.Prefix]*list.List
}

func (fs *flows) limit(most, perEach int) {
	fs.most, fs.perEach = most, perEach
	fs.by, fs.bySource = make(map[netip.AddrPort]*flow), make(map[netip.Prefix]*list.List)
}

// find returns the flow of a client that is heard of; nil: it has none.
func (fs *flows) find(client netip.AddrPort) *flow {
	f := fs.by[client]
	if f != nil {
		fs.all.MoveToBack(f.inAll)
		fs.bySource[sourceKey(client.Addr())].MoveToBack(f.inEach)
	}
	return f
}

func (fs *flows) add(f *flow) {
	key := sourceKey(f.from.Addr())
	each := fs.bySource[key]
	switch {
	case each != nil && each.Len() >= fs.perEach:
		fs.evict(each.Front())
	case fs.all.Len() >= fs.most:
		fs.evict(fs.all.Front())
	}
	if each = fs.bySource[key]; each == nil {
		each = list.New()
		fs.bySource[key] = each
	}
	f.inAll, f.inEach = fs.all.PushBack(f), each.PushBack(f)
	fs.by[f.from] = f
}

// evict ends the flow at e.
func (fs *flows) evict(e *list.Element) {
	if f, ok := e.Value.(*flow); ok {
		fs.remove(f)
		f.session.End(fmt.Errorf("%w: too many clients, and this one has been silent for the longest time", Busy))
	}
}

// remove takes f out, if it is still there.
func (fs *flows) remove(f *flow) {
	if f.inAll == nil {
		return
	}
	fs.all.Remove(f.inAll)
	key := sourceKey(f.from.Addr())
	each := fs.bySource[key]
	if each.Remove(f.inEach); each.Len() == 0 {
		delete(fs.bySource, key)
	}
	f.inAll, f.inEach = nil, nil
	delete(fs.by, f.from)
}
