package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrServerClosed is what [Server.Serve] returns after Shutdown or Close.
var ErrServerClosed = errors.New("server: closed")

// Server serves any number of listeners with one policy. Its exported fields
// may be set before the first call of Serve and not after; SetTimeouts,
// Review and [Door.Change] are for what changes later. The zero value denies
// every request. All methods are safe for concurrent use.
type Server struct {
	Policy        Policy        // nil denies everything
	Authenticator Authenticator // nil: nobody is asked for a password
	Recorder      Recorder      // nil: nobody is told
	Outbound      Outbound      // nil: the operating system's network

	// Pages answers a GET or HEAD to the server itself, as to a web server, where a
	// listener speaks HTTP; ok is false for what it has no page for, and nil means that
	// it has none. It must not block, and is called from many goroutines at once. Whoever
	// reaches the listener may ask: the client is not authenticated, and no policy is
	// asked.
	Pages func(r PageRequest) (p Page, ok bool)

	Log      *slog.Logger // faults of the server's own, never a session's; nil: none
	Timeouts Timeouts
	Limits   Limits

	mu      sync.Mutex
	closed  bool
	retired bool // by Drain
	serving map[*serving]struct{}
	state   state
}

// state is what the sessions of all listeners share.
type state struct {
	lastID       atomic.Uint64
	sessions     sessions
	judge        atomic.Pointer[Judge]    // of the last Review; nil: there was none
	timeouts     atomic.Pointer[Timeouts] // by SetTimeouts, with their defaults; nil: those of the field
	open         atomic.Int64             // connections that are being served
	gate         gate                     // connections in all
	handshakes   queue                    // connections without a whole request yet, by source
	logins       queue                    // those of them that speak SSH
	binds        tally                    // BINDs that wait, by source
	primaries    primaries                // relays that a BIND may lean on
	associations tally                    // by source
	associated   endpoints                // where clients of associations send to
	signedIn     signedIn                 // clients of SSH
	offers       offers                   // virtual ports
	packetOffers offers                   // the same for datagrams
	batches      batches                  // memory for datagrams
	pseudonym    pseudonym                // what the Via of HTTP calls this server
	leaving      leaving                  // that it takes no new clients
}

// Listener says how the clients of one listening socket are served. The zero
// value speaks SOCKS 4, 4a and 5 and HTTP, without TLS.
type Listener struct {
	Name        string
	Protocols   []Protocol  // empty: all but SSH
	Advertise   netip.Addr  // what BIND and UDP ASSOCIATE replies say, behind NAT; zero: the socket's own address
	BindPorts   PortRange   // the ports that BIND and UDP ASSOCIATE may take; zero: any
	HideAddress bool        // the reply to CONNECT carries zeros instead of the outgoing address
	TLS         *tls.Config // for clients that begin with TLS; nil: they are garbage
	TLSOnly     bool        // nobody is served without TLS
	MaxUserID   int         // bytes; 0: socks.DefaultUserID; at most socks.MaxUserID
	HostKey     ssh.Signer  // by which clients of SSH know this server; nil: it speaks no SSH

	// ProxyFrom are the load balancers, as networks of unmapped addresses. They
	// must begin each connection with a header of the PROXY protocol, version 1
	// or 2, and the client is whom that names. From others it is garbage.
	ProxyFrom []netip.Prefix

	// Mapping makes it a port mapping: no protocol of ours is spoken, and Protocols
	// means nothing. With TLS every client speaks that. nil: it is none.
	Mapping *Mapping
}

// PortRange is a range of ports, both ends included. The zero value is any port.
type PortRange struct{ First, Last uint16 }

// inAnyOrder yields each port of the range, from a random one on, so that who
// watches does not know the next; of the zero range 0, which is any.
func (r PortRange) inAnyOrder() iter.Seq[uint16] {
	count := int(r.Last) - int(r.First) + 1
	start := rand.IntN(max(1, count))
	return func(yield func(uint16) bool) {
		for i := range count {
			if !yield(r.First + uint16((start+i)%count)) {
				return
			}
		}
	}
}

// Timeouts are the limits of every wait. A zero field takes its default.
type Timeouts struct {
	Handshake   time.Duration // from accept to a whole request; 10 s
	Connect     time.Duration // deciding and connecting to the target; 120 s, as in the paper
	Bind        time.Duration // waiting for BIND's peer; 120 s, as in the paper
	Idle        time.Duration // nothing moves in either direction; 24 h
	HalfClosed  time.Duration // one side has ended and nothing moves from the other; 10 min
	Association time.Duration // no datagram moves in an association; 5 min
}

func (t Timeouts) withDefaults() Timeouts {
	return Timeouts{
		Handshake:   orElse(t.Handshake, 10*time.Second),
		Connect:     orElse(t.Connect, 2*time.Minute),
		Bind:        orElse(t.Bind, 2*time.Minute),
		Idle:        orElse(t.Idle, 24*time.Hour),
		HalfClosed:  orElse(t.HalfClosed, 10*time.Minute),
		Association: orElse(t.Association, 5*time.Minute),
	}
}

// Limits bound what may wait or be open at once. A zero field takes its default.
type Limits struct {
	Connections           int // client connections in all; what the descriptor limit allows
	Handshakes            int // connections without a whole request yet; half of Connections. One more ends the oldest
	HandshakesPerSource   int // the same for one source (IPv6: one /64); half of Handshakes
	Logins                int // clients of SSH that have not signed in, who cost more than others; 1024, but no more than Handshakes. One more ends the oldest
	LoginsPerSource       int // the same for one source; a quarter of Logins
	Binds                 int // BINDs waiting for their peer; 1024, but no more than a quarter of Connections
	BindsPerSource        int // the same for one source; 64
	Associations          int // UDP associations; 1024, but no more than a quarter of Connections
	AssociationsPerSource int // the same for one source; 64
	Flows                 int // clients of one port mapping of datagrams; 4096, but no more than a quarter of Connections. One more ends who was silent for the longest time
	FlowsPerSource        int // the same for one source; half of Flows
}

func (l Limits) withDefaults() Limits {
	connections := orElse(l.Connections, connectionBudget())
	handshakes := orElse(l.Handshakes, max(1, connections/2))
	logins := orElse(l.Logins, min(1024, handshakes))
	flows := orElse(l.Flows, min(4096, max(1, connections/4)))
	return Limits{
		Connections:           connections,
		Handshakes:            handshakes,
		HandshakesPerSource:   orElse(l.HandshakesPerSource, max(1, handshakes/2)),
		Logins:                logins,
		LoginsPerSource:       orElse(l.LoginsPerSource, max(1, logins/4)),
		Binds:                 orElse(l.Binds, min(1024, max(1, connections/4))),
		BindsPerSource:        orElse(l.BindsPerSource, 64),
		Associations:          orElse(l.Associations, min(1024, max(1, connections/4))),
		AssociationsPerSource: orElse(l.AssociationsPerSource, 64),
		Flows:                 flows,
		FlowsPerSource:        orElse(l.FlowsPerSource, max(1, flows/2)),
	}
}

func orElse[T time.Duration | int](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// serving is one call of Serve: its door, and how to end what came from it.
type serving struct {
	*Door
	address netip.AddrPort
	ended   atomic.Bool             // nobody comes any more
	refuse  context.CancelCauseFunc // ends handshakes
	cut     context.CancelCauseFunc // ends sessions
	gone    func()                  // dismiss, for connections
	conns   sync.WaitGroup          // one for each accepted connection
}

// Serve accepts connections from socket and serves each in a goroutine of its
// own. It blocks until the socket fails, ctx ends, or Shutdown or Close is
// called, and closes the socket before it returns. It always returns an error;
// after Shutdown or Close that is ErrServerClosed. The sessions go on when the
// socket fails, and be it that it was closed for this listener to take no more
// clients; when ctx ends they end too, with ctx's cause as their reason.
func (s *Server) Serve(ctx context.Context, socket net.Listener, l Listener) error {
	return s.Door(socket, l).Serve(ctx)
}

// Door is a listening socket and how its clients are served, for whoever wants
// to change that while it is. Make one with [Server.Door].
type Door struct {
	server   *Server
	socket   net.Listener
	packets  net.PacketConn           // of a door for datagrams, in the place of socket
	listener atomic.Pointer[Listener] // for the next client
}

// Door returns a door that nobody serves yet. The socket is the caller's until
// Serve is called.
func (s *Server) Door(socket net.Listener, l Listener) *Door {
	d := &Door{server: s, socket: socket}
	d.listener.Store(&l)
	return d
}

// Change changes how the next clients are served; those who are there already
// keep what they came to, but for the listener's name: their next requests are
// decided by the new one, and what is open is put to a [Judge] by it. It may be
// called at any time.
func (d *Door) Change(l Listener) { d.listener.Store(&l) }

// Serve does what [Server.Serve] does, once.
func (d *Door) Serve(ctx context.Context) error {
	s := d.server
	defer d.close()
	sessions, cut := context.WithCancelCause(ctx)
	handshakes, refuse := context.WithCancelCause(sessions)
	sv := &serving{Door: d, address: d.address(), refuse: refuse, cut: cut}
	sv.gone = sv.dismiss
	if !s.register(ctx, sv) {
		cut(ErrServerClosed)
		return ErrServerClosed
	}
	stop := context.AfterFunc(ctx, d.close)
	defer stop()
	context.AfterFunc(sessions, func() { s.state.sessions.cutFrom(sv, context.Cause(sessions)) })

	err := s.serveDoor(handshakes, sessions, sv)
	sv.ended.Store(true)
	go s.forget(sv)
	switch {
	case s.isClosed():
		return ErrServerClosed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// serveDoor takes whoever comes, until the socket fails or handshakes end.
func (s *Server) serveDoor(handshakes, sessions context.Context, sv *serving) error {
	mapping := sv.listener.Load().Mapping
	switch {
	case mapping != nil && len(mapping.Targets) == 0:
		return errEmptyMapping
	case sv.packets != nil && mapping == nil:
		return errNoMapping
	case sv.packets != nil:
		return s.mapDatagrams(sessions, sv)
	}
	if done, err := s.acceptOnLoop(handshakes, sessions, sv); done {
		return err
	}
	return s.acceptAll(handshakes, sv, func(c net.Conn) { s.serveConn(handshakes, sessions, c, sv) })
}

// close closes the socket.
func (d *Door) close() {
	if d.packets != nil {
		_ = d.packets.Close() // nobody is left to tell
		return
	}
	_ = d.socket.Close()
}

func (d *Door) address() netip.AddrPort {
	if d.packets != nil {
		return udpAddrPort(d.packets.LocalAddr())
	}
	return addrPort(d.socket.Addr())
}

// SetTimeouts changes Timeouts. The new ones hold for every wait that begins
// after it; a relay keeps those that it began with.
func (s *Server) SetTimeouts(t Timeouts) {
	t = t.withDefaults()
	s.state.timeouts.Store(&t)
}

func (s *Server) timeouts() Timeouts {
	if t := s.state.timeouts.Load(); t != nil {
		return *t
	}
	return s.Timeouts.withDefaults()
}

func (s *Server) register(ctx context.Context, sv *serving) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.retired {
		return false
	}
	if s.serving == nil {
		s.serving = make(map[*serving]struct{})
		s.state.leaving = newLeaving(ctx)
		s.state.limit(s.Limits.withDefaults())
	}
	s.serving[sv] = struct{}{}
	return true
}

func (st *state) limit(l Limits) {
	st.gate.setLimit(l.Connections)
	st.handshakes.limit(l.Handshakes, l.HandshakesPerSource)
	st.logins.limit(l.Logins, l.LoginsPerSource)
	st.binds.limit(l.Binds, l.BindsPerSource)
	st.associations.limit(l.Associations, l.AssociationsPerSource)
}

// forget drops sv once the last of its sessions has ended.
func (s *Server) forget(sv *serving) {
	sv.conns.Wait()
	sv.cut(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.serving, sv)
	s.sayEmpty()
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.retired
}

// Shutdown closes every listening socket, ends what is still in its handshake,
// and waits for the sessions to end by themselves. When ctx ends first, it cuts
// them with the reason Shutdown, waits until they are gone, and returns ctx's
// error. No Serve can follow it.
func (s *Server) Shutdown(ctx context.Context) error {
	all := s.stopAccepting()
	drained := make(chan struct{})
	go func() {
		for _, sv := range all {
			sv.conns.Wait()
		}
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	left := s.state.open.Load()
	for _, sv := range all {
		sv.cut(Shutdown)
	}
	<-drained
	if left == 0 {
		return nil // there was nothing to cut
	}
	return ctx.Err()
}

// Close is Shutdown without patience: it cuts every session at once and returns
// when all are gone.
func (s *Server) Close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(ctx) // says only that ctx has ended
}

func (s *Server) stopAccepting() []*serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var all []*serving
	for sv := range s.serving {
		sv.close()
		sv.refuse(Shutdown)
		all = append(all, sv)
	}
	return all
}

// admit counts what was accepted and has a place at the gate, until dismiss.
// Shutdown waits for that. It reports false, and gives the place back, once the
// server is closed.
func (sv *serving) admit() bool {
	s := sv.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.state.gate.leave()
		return false
	}
	s.state.open.Add(1)
	sv.conns.Add(1)
	return true
}

// dismiss is the end of admit.
func (sv *serving) dismiss() {
	sv.server.state.gate.leave()
	sv.server.state.open.Add(-1)
	sv.conns.Done()
}

// decide asks the policy, if there is one.
func (s *Server) decide(ctx context.Context, r *Request) (Grant, error) {
	if s.Policy == nil {
		return Grant{}, fmt.Errorf("%w: the server has no policy", Denied)
	}
	return s.Policy.Decide(ctx, r)
}

func (s *Server) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// direct is the Outbound of the operating system's own network.
type direct struct{ net.ListenConfig }

func (direct) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return dialTCP(ctx, net.Dialer{}, network, address)
}

func (s *Server) outbound() Outbound {
	if s.Outbound == nil {
		return &direct{}
	}
	return s.Outbound
}

// clientOf returns the other end of a connection. Who comes by a unix socket is on
// this machine.
func clientOf(c net.Conn) netip.AddrPort {
	if _, ok := c.RemoteAddr().(*net.UnixAddr); ok {
		return netip.AddrPortFrom(hereIP, 0)
	}
	return addrPort(c.RemoteAddr())
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
