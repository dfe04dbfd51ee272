package server

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Bounds of an SSH connection.
const (
	sshChannels  = 256              // channels at once, both ways; each may have 2 MiB that nobody has read
	sshOffers    = 64               // offers at once
	sshLoginTime = 2 * time.Minute  // for signing in, behind the key exchange: a person may be typing
	sshAnswer    = 30 * time.Second // for what a client has to answer: a CLOSE, or whether it is there
	sshIdle      = 2 * time.Minute  // without a session, of a client that has not signed in
)

// sshSilence is how long a client may say nothing before it is greeted as SSH
// servers do: a few clients wait for that.
const sshSilence = 2 * time.Second

// sshVersion is how the server greets, and how our own client does.
const sshVersion = "SSH-2.0-Sallyport"

// isSallyport reports whether a version is one that greets so: such a peer knows
// what this program has added to the protocol.
func isSallyport(version string) bool { return strings.HasPrefix(version, sshVersion) }

// sshConn is a client connection that speaks SSH (RFC 4251 to 4254), and only to
// forward. Each channel that the client opens to a target is a session, and to the
// rest of the server a connection (ssh_stream.go); so is each offer of a port
// (ssh_offer.go), and each visitor of one.
//
// Its goroutines, besides those of x/crypto/ssh: the connection's own, which takes
// channels; one that answers global requests; one that asks whether the client is
// there (ssh_pulse.go); of each channel one that serves it and one that takes its
// requests; and of an offer of datagrams one that reads frames and one that writes
// them (ssh_packets.go).
type sshConn struct {
	*exchange
	wire     *sshWire
	ssh      *ssh.ServerConn
	identity Identity
	pulse    pulse
	served   sync.WaitGroup // channels, offers, visitors

	mu       sync.Mutex
	channels int           // that the client has not closed yet
	room     chan struct{} // closed with the next that it closes; nil: nobody waits for that
	active   int           // sessions
	refusing bool          // no new sessions
	leaving  bool          // whoever offers has to come anew, to another process
	idle     *time.Timer   // ends a connection without sessions
	why      error         // what ended the connection, where it was us
	allowed  allowance     // requests that come to nothing
	streams  map[*sshStream]struct{}
	offers   map[string]*offer // by how the client has asked for them
}

// serveSSH is the streamer of SSH.
func serveSSH(handshakes, sessions context.Context, x *exchange) error {
	c := &sshConn{exchange: x, wire: newSSHWire(x), streams: map[*sshStream]struct{}{}, offers: map[string]*offer{}}
	channels, requests, err := c.signIn(handshakes)
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancelCause(sessions)
	defer leave(errWithdrawn)
	defer context.AfterFunc(sessions, func() { c.end(context.Cause(sessions)) })()
	defer context.AfterFunc(handshakes, c.drain)()
	defer c.server.state.leaving.after(c.makeWay)()
	c.server.state.signedIn.add(c)
	defer c.server.state.signedIn.remove(c)
	c.catchUp()
	c.mu.Lock()
	c.rest()
	c.mu.Unlock()

	var helpers sync.WaitGroup
	helpers.Go(c.pulse.run)
	helpers.Go(func() { c.answerAll(ctx, requests) })
	for one := range channels {
		c.take(ctx, one)
	}
	err = c.ssh.Wait()
	c.over()
	c.pulse.stop()
	leave(errWithdrawn)
	helpers.Wait()
	c.served.Wait()
	return c.reason(err)
}

// reason says why the connection ended: it matters to nobody but the record of
// one that came to no session.
func (c *sshConn) reason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.why != nil:
		return c.why
	case ReasonOf(err) == Refused: // ECONNRESET, of a client
		return ClientReset
	}
	return nil // it has said goodbye (RFC 4253, section 11.1), or just gone
}

// end ends the connection, and all that lives on it, for a reason.
func (c *sshConn) end(reason error) {
	c.mu.Lock()
	if c.why == nil {
		c.why = reason
	}
	c.refusing = true
	c.mu.Unlock()
	c.wire.cut()
}

// over is the end of what lives on a connection that is gone.
func (c *sshConn) over() {
	c.mu.Lock()
	c.refusing = true
	if c.idle != nil {
		c.idle.Stop()
	}
	streams := c.streams
	c.streams = nil
	c.mu.Unlock()
	for s := range streams {
		s.fail(errConnectionGone)
	}
}

// drain takes no more sessions, and ends the connection with the last of those
// that there are.
func (c *sshConn) drain() {
	c.mu.Lock()
	c.refusing = true
	if c.why == nil {
		c.why = Shutdown
	}
	c.rest()
	offers := slices.Collect(maps.Values(c.offers))
	c.mu.Unlock()
	for _, o := range offers {
		o.withdraw(Shutdown) // it would not end by itself
	}
}

// makeWay ends a connection that offers something, now that new clients, and so
// visitors, come to another process: its client has to go there as well. Without
// offers it may stay, and makes none.
func (c *sshConn) makeWay() {
	c.mu.Lock()
	c.leaving = true
	offers := slices.Collect(maps.Values(c.offers))
	c.mu.Unlock()
	for _, o := range offers {
		o.withdraw(Shutdown) // for the record
	}
	if len(offers) > 0 {
		c.end(Shutdown)
	}
}

// rest bounds the time without a session. Callers hold mu.
func (c *sshConn) rest() {
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	switch {
	case c.active > 0:
	case c.refusing && len(c.streams) > 0: // whose ends the client has not confirmed yet; or else it loses its connection
	case c.refusing:
		c.wire.cut()
	default:
		limit := c.server.timeouts().Idle
		if c.identity.Proof == NoProof {
			limit = min(limit, sshIdle)
		}
		c.idle = time.AfterFunc(limit, func() { c.endIdle() })
	}
}

// endIdle ends the connection, unless a session has come in the last moment.
func (c *sshConn) endIdle() {
	c.mu.Lock()
	idle := c.active == 0
	c.mu.Unlock()
	if idle {
		c.end(Idle)
	}
}

// enter counts one more session, or says why there may be none.
func (c *sshConn) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusing {
		return Shutdown
	}
	c.active++
	c.rest()
	return nil
}

// leave is the end of enter.
func (c *sshConn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	c.rest()
}

// waste notes a request that costs more than it brings, and ends the connection
// when there are too many.
func (c *sshConn) waste() {
	c.mu.Lock()
	tooMany := !c.allowed.spend()
	c.mu.Unlock()
	if tooMany {
		c.end(fmt.Errorf("%w: too many requests over SSH that come to nothing", BadRequest))
	}
}

// branch returns the exchange of a further session. The first one takes over the
// session that began with the connection. Callers are the connection's own
// goroutine and that of global requests.
func (c *sshConn) branch(conn net.Conn) *exchange {
	x := &exchange{
		server: c.server, conn: conn, remote: c.remote, local: c.local, listener: c.listener, serving: c.serving,
		relayed: c.relayed, certificate: c.certificate,
	}
	c.mu.Lock()
	x.session, c.session = c.session, nil
	c.mu.Unlock()
	secure := c.secure()
	if x.session == nil {
		x.begin()
	}
	x.session.TLS, x.session.Protocol = secure, SSH
	return x
}

// signedIn are the connections of clients that have signed in. The zero value is
// empty.
type signedIn struct {
	mu  sync.Mutex
	all map[*sshConn]struct{}
}

func (s *signedIn) add(c *sshConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*sshConn]struct{}{}
	}
	s.all[c] = struct{}{}
}

func (s *signedIn) remove(c *sshConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// review puts what each client has signed in with to judge.
func (s *signedIn) review(judge *Judge) {
	s.mu.Lock()
	var all []*sshConn
	for c := range s.all {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.review(judge)
	}
}

// catchUp is for a connection that a review may have missed.
func (c *sshConn) catchUp() {
	if judge := c.server.state.judge.Load(); judge != nil {
		c.review(judge)
	}
}

// review ends a connection whose client could not sign in so any more.
func (c *sshConn) review(judge *Judge) {
	r := Request{Protocol: SSH, Identity: c.identity, Listener: c.listener.Name}
	if _, err := (*judge)(Held{Request: r}); err != nil {
		c.end(err)
	}
}
