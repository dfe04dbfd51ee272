package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/socks"
)

// errWithdrawn is how an offer ends that its client takes back, or leaves.
var errWithdrawn = errors.New("the offer was taken back")

// offer is a port that the client of an SSH connection has asked for (RFC 4254,
// section 7.1): a virtual port, or one of this machine's own. It is a session, and
// each of its visitors is brought to the client by a channel.
type offer struct {
	conn     *sshConn
	exchange *exchange // of its session
	host     string    // as the client has asked, which is how it knows its visitors
	port     uint32
	socket   net.Listener // of a port of this machine; nil: it is a virtual one
	packets  *packets     // of a virtual port for datagrams; nil: it is one for connections
	withdraw context.CancelCauseFunc
	visitors visitors
}

// parseForward reads a request for a port, or to give one up.
func parseForward(payload []byte) (host string, port uint32, err error) {
	var f struct {
		Host string
		Port uint32
	}
	if ssh.Unmarshal(payload, &f) != nil || f.Port > 65535 {
		return "", 0, fmt.Errorf("%w: a request for a port that cannot be read", BadRequest)
	}
	return f.Host, f.Port, nil
}

// everyPeer is the target of a BIND for whoever connects.
var everyPeer = socks.Addr{IP: netip.IPv4Unspecified()}

// ownAddress returns which addresses of this machine a host stands for in a request for
// a port (RFC 4254, section 7.1): all, or those that only this machine reaches. It is
// invalid where the host is something else.
func ownAddress(host string) netip.Addr {
	switch strings.ToLower(host) {
	case "", "*", "0.0.0.0":
		return netip.IPv4Unspecified()
	case "::":
		return netip.IPv6Unspecified()
	case "localhost", "127.0.0.1": // what clients say where nothing was written
		return hereIP
	case "::1":
		return netip.IPv6Loopback()
	}
	return netip.Addr{}
}

// offered returns what a request for a port is about: a name, or, where it names
// this machine as clients of SSH do, whoever connects.
func offered(host string, port uint32) (socks.Addr, error) {
	if ownAddress(host).IsValid() {
		return everyPeer, nil
	}
	target, err := sshAddr(host, port)
	switch {
	case err != nil:
	case target.IP.IsValid():
		err = fmt.Errorf("%w: a port on an address of the client's choice", Unsupported)
	case port == 0:
		err = fmt.Errorf("%w: port 0 of %q, which has but one", BadRequest, host)
	}
	return target, err
}

// answerAll answers the global requests of the client, one after the other.
func (c *sshConn) answerAll(ctx context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "tcpip-forward":
			payload, err := c.grantOffer(ctx, r.Payload)
			if err != nil {
				c.waste()
			}
			_ = r.Reply(err == nil, payload) // fails only where nobody waits any more
		case "cancel-tcpip-forward":
			c.waste() // or else it could be offered again and again
			_ = r.Reply(c.cancelOffer(r.Payload), nil)
		case "keepalive@openssh.com": // any answer will do
			_ = r.Reply(false, nil)
		default:
			c.waste()
			_ = r.Reply(false, nil)
		}
	}
}

// grantOffer decides on a request for a port. What it returns goes with the answer.
func (c *sshConn) grantOffer(ctx context.Context, payload []byte) (answer []byte, err error) {
	host, port, err := parseForward(payload)
	var target socks.Addr
	if err == nil {
		target, err = offered(host, port)
	}
	o := c.newOffer(c.conn, host, port, target)
	x := o.exchange
	if err != nil {
		x.closed(err)
		return nil, err
	}
	life := ctx
	ctx, o.withdraw = context.WithCancelCause(life)
	ctx = x.opened(ctx)
	if err := o.open(ctx); err != nil {
		o.withdraw(err)
		x.closed(err)
		return nil, err
	}
	if port == 0 {
		answer = ssh.Marshal(struct{ Port uint32 }{o.port})
	}
	c.served.Go(func() { o.run(ctx, life) })
	return answer, nil
}

// newOffer begins the session of an offer, which is answered on a connection.
func (c *sshConn) newOffer(answered net.Conn, host string, port uint32, target socks.Addr) *offer {
	o := &offer{conn: c, exchange: c.branch(answered), host: host, port: port}
	o.exchange.ask(&Request{Protocol: SSH, Command: socks.Bind, Identity: c.identity, Target: target, Replier: sshReplier{}})
	return o
}

// key is how the client calls an offer to take it back. That of datagrams ends with
// its channel.
func (o *offer) key() string {
	if o.packets != nil {
		return fmt.Sprintf("udp %d %s", o.port, o.host)
	}
	return fmt.Sprintf("%d %s", o.port, o.host)
}

// table is where those who visit find the offer.
func (o *offer) table() *offers {
	if o.packets != nil {
		return &o.conn.server.state.packetOffers
	}
	return &o.conn.server.state.offers
}

// open decides, and makes the offer known.
func (o *offer) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.conn.server.timeouts().Connect, TimedOut)
	defer cancel()
	grant, err := o.exchange.decide(ctx)
	switch {
	case ReasonOf(err) == NoName:
		return fmt.Errorf("no virtual port is called %q: %w", o.host, err)
	case err != nil:
		return err
	case grant.Virtual:
		err = o.register()
	case o.packets != nil:
		err = errNoPackets
	default:
		err = o.listen(ctx, grant)
	}
	if err == nil {
		o.exchange.session.catchUp()
		err = context.Cause(ctx)
	}
	if err != nil {
		o.unregister()
		return err
	}
	o.exchange.session.note(func(r *Record) { r.Offered = true })
	return nil
}

// listen opens a port of this machine: one of those that BIND may use.
func (o *offer) listen(ctx context.Context, grant Grant) error {
	x, source := o.exchange, o.exchange.session.Client.Addr()
	if err := Foresee(x.request, grant); err != nil {
		return err
	}
	ports := x.listener.BindPorts
	if o.port != 0 && (o.port < uint32(ports.First) || o.port > uint32(ports.Last)) {
		return fmt.Errorf("%w: port %d is none of those that can be asked for; port 0 is any that is free", Denied, o.port)
	}
	if o.port != 0 {
		ports = PortRange{uint16(o.port), uint16(o.port)}
	}
	if !o.conn.server.state.binds.add(source) {
		return fmt.Errorf("%w: too many ports wait, in sum or for this source", Busy)
	}
	socket, err := o.listenIn(ctx, grant, ports)
	if err != nil {
		o.conn.server.state.binds.remove(source)
		return err
	}
	o.socket = socket
	bound := x.advertised(socket)
	x.session.note(func(r *Record) { r.Bound = bound })
	o.port = uint32(bound.Port())
	return o.register()
}

// listenIn opens a socket with one of these ports: on the addresses that the client has
// asked for. What only this machine reaches leaves it by no way.
func (o *offer) listenIn(ctx context.Context, grant Grant, ports PortRange) (net.Listener, error) {
	x, at, out := o.exchange, ownAddress(o.host), o.exchange.server.outboundOf(grant.Way)
	switch {
	case !at.IsValid():
		return nil, fmt.Errorf("%w: %q is neither a virtual port nor an address of this machine", Unsupported, o.host)
	case at.IsLoopback():
		out = Leaving{}
	}
	return x.listenIn(ctx, out, at, ports)
}

// register makes the offer one that visitors can come to.
func (o *offer) register() error {
	c := o.conn
	if err := c.enter(); err != nil {
		return err
	}
	c.mu.Lock()
	_, twice := c.offers[o.key()]
	full := len(c.offers) >= sshOffers
	leaving := c.leaving
	if !twice && !full && !leaving {
		c.offers[o.key()] = o
	}
	c.mu.Unlock()
	switch {
	case leaving:
		c.leave()
		c.end(Shutdown)
		return fmt.Errorf("%w: another process has taken over", Shutdown)
	case twice:
		c.leave()
		return fmt.Errorf("%w: this connection offers the port already", BadRequest)
	case full:
		c.leave()
		return fmt.Errorf("%w: too many offers on one connection", Busy)
	}
	if o.socket == nil {
		o.table().add(o)
	}
	return nil
}

// unregister is the end of open, whatever has come of it.
func (o *offer) unregister() {
	c := o.conn
	c.mu.Lock()
	known := c.offers[o.key()] == o
	if known {
		delete(c.offers, o.key())
	}
	c.mu.Unlock()
	if o.socket != nil {
		o.socket.Close()
		c.server.state.binds.remove(o.exchange.session.Client.Addr())
	}
	if known && o.socket == nil {
		o.table().remove(o)
	}
	if o.packets != nil {
		o.packets.end()
	}
	if known {
		c.leave()
	}
}

// cancelOffer takes an offer back. Its visitors may stay.
func (c *sshConn) cancelOffer(payload []byte) bool {
	host, port, err := parseForward(payload)
	if err != nil {
		return false
	}
	c.mu.Lock()
	o := c.offers[(&offer{host: host, port: port}).key()]
	c.mu.Unlock()
	if o == nil {
		return false
	}
	o.withdraw(errWithdrawn)
	return true
}

// run lets visitors in until the offer ends. Those of one that was taken away by
// the rules end with it, all others with the connection at the latest, whose life is
// the second context.
func (o *offer) run(ctx, life context.Context) {
	defer o.exchange.contain()
	if o.socket != nil {
		stop := context.AfterFunc(ctx, func() { o.socket.Close() })
		o.accept(ctx, life)
		stop()
	}
	<-ctx.Done()
	reason := context.Cause(ctx)
	o.unregister()
	switch {
	case errors.Is(reason, errWithdrawn):
		reason = nil
	case !errors.Is(reason, Shutdown): // which ends the connection, when its time has come
		o.visitors.cut()
	}
	o.exchange.closed(reason)
}

// accept takes the visitors of a port of this machine until its socket is closed.
func (o *offer) accept(ctx, life context.Context) {
	s := o.conn.server
	var pause backoff
	for s.state.gate.enter(ctx, s.sayPaused) {
		visitor, err := o.socket.Accept()
		if err == nil {
			pause.over()
			o.conn.served.Go(func() {
				defer s.state.gate.leave()
				o.visit(life, visitor)
			})
			continue
		}
		s.state.gate.leave()
		if ctx.Err() != nil {
			return
		}
		if !isTemporary(err) || !pause.wait(ctx) {
			o.withdraw(fmt.Errorf("%w: the socket of an offer: %w", Failed, err))
			return
		}
	}
}

// visit relays between a visitor and the client that offers the port. It is a
// session of that client's: what BIND brings, only that it goes on.
func (o *offer) visit(life context.Context, visitor net.Conn) {
	defer visitor.Close()
	x := o.conn.branch(o.conn.conn)
	defer x.contain()
	x.ask(&Request{Protocol: SSH, Command: socks.Bind, Identity: o.conn.identity, Target: everyPeer, Replier: sshReplier{}})
	ctx := x.opened(life)
	err := o.relay(ctx, x, visitor)
	if half, ok := visitor.(interface{ SetLinger(seconds int) error }); ok && err != nil {
		_ = half.SetLinger(0) // what came to nothing is no end
	}
	x.closed(err)
}

func (o *offer) relay(ctx context.Context, x *exchange, visitor net.Conn) error {
	from := addrPort(visitor.RemoteAddr())
	channel, err := func() (net.Conn, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, x.server.timeouts().Connect, TimedOut)
		defer cancel()
		if _, err := x.decide(ctx); err != nil {
			return nil, err
		}
		return o.connect(ctx, from, true)
	}()
	if err != nil {
		return err
	}
	defer channel.Close()
	x.conn = channel
	x.session.reached(from)
	return x.relay(ctx, visitor)
}

// connect brings a visitor to the client that offers. If that has as many as it may have,
// it waits for the end of one, or not. The caller closes what it gets.
func (o *offer) connect(ctx context.Context, visitor netip.AddrPort, wait bool) (net.Conn, error) {
	c := o.conn
	s := newSSHStream(c, nil)
	if err := c.begin(ctx, wait); err != nil {
		return nil, err
	}
	opened := make(chan error, 1)
	go func() {
		defer c.served.Done()
		opened <- o.ask(s, visitor)
	}()
	select {
	case err := <-opened:
		if err != nil {
			c.leave()
			return nil, err
		}
		o.visitors.add(s)
		return &visited{sshStream: s, offer: o}, nil
	case <-ctx.Done():
		_ = s.Close() // and with it, when it comes, the channel
		c.leave()
		return nil, context.Cause(ctx)
	}
}

// begin counts a channel that is to be opened to the client, for a visitor, and work
// of the connection's. Where there are as many as there may be, it waits for the end of
// one, or says so at once. A visitor keeps the connection, whatever becomes of the offer,
// until leave is called.
func (c *sshConn) begin(ctx context.Context, wait bool) error {
	for {
		room, err := c.tryBegin()
		if room == nil || !wait {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryBegin is begin, and waits for nothing: where it fails for want of room, that is
// closed when there may be some again.
func (c *sshConn) tryBegin() (room <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.refusing || c.streams == nil:
		return nil, errWithdrawn
	case c.channels >= sshChannels:
		if c.room == nil {
			c.room = make(chan struct{})
		}
		return c.room, errWithdrawn
	}
	c.channels++
	c.active++
	c.rest()
	c.served.Add(1)
	return nil, nil
}

// ask opens the channel of a visitor.
func (o *offer) ask(s *sshStream, visitor netip.AddrPort) error {
	channel, requests, err := o.conn.ssh.OpenChannel("forwarded-tcpip", ssh.Marshal(sshForward{
		Host: o.host, Port: o.port, Origin: visitor.Addr().String(), OriginPort: uint32(visitor.Port()),
	}))
	if err != nil {
		o.conn.leaveChannel()
		return fmt.Errorf("%w: the client that offers the port: %w", Refused, err)
	}
	s.run(channel, requests)
	return nil
}
