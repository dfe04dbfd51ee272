package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// attemptDelay is how long an address may take before the next is tried beside
// it (RFC 8305, section 5).
const attemptDelay = 250 * time.Millisecond

// maxAttempts is how many of a name's addresses are tried: whoever keeps a name
// must not be able to make one request open any number of connections.
const maxAttempts = 8

// dialFirst connects to the first of the addresses that answers, trying them
// in order, the families in turn, a further one whenever the last has failed
// or has taken attemptDelay (RFC 8305, Happy Eyeballs). When all fail, the
// first address's error is returned. The caller closes the connection.
func dialFirst(ctx context.Context, out Outbound, addrs []netip.AddrPort) (net.Conn, error) {
	if len(addrs) == 1 {
		return out.DialContext(ctx, "tcp", addrs[0].String())
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &race{out: out, addrs: interleave(addrs)}
	r.addrs = r.addrs[:min(len(r.addrs), maxAttempts)]
	r.results, r.errs = make(chan attempt, len(r.addrs)), make([]error, len(r.addrs))
	c, err := r.run(ctx)
	cancel()
	r.closeLosers()
	return c, err
}

// race is one call of dialFirst.
type race struct {
	out     Outbound
	addrs   []netip.AddrPort
	results chan attempt // has room for all, so that no attempt ever blocks
	errs    []error
	started int
	ended   int
}

type attempt struct {
	index int
	conn  net.Conn
	err   error
}

func (r *race) run(ctx context.Context) (net.Conn, error) {
	next := time.NewTimer(attemptDelay)
	defer next.Stop()
	r.start(ctx)
	for {
		select {
		case a := <-r.results:
			r.ended++
			switch {
			case a.err == nil:
				return a.conn, nil
			case ctx.Err() != nil:
				return nil, a.err
			}
			r.errs[a.index] = a.err
			if r.ended == len(r.addrs) {
				return nil, r.errs[0]
			}
			if a.index == r.started-1 { // the last: there is nobody to give a head start to
				r.start(ctx)
				next.Reset(attemptDelay)
			}
		case <-next.C:
			r.start(ctx)
			next.Reset(attemptDelay)
		}
	}
}

func (r *race) start(ctx context.Context) {
	if r.started == len(r.addrs) {
		return
	}
	index := r.started
	r.started++
	go func() {
		c, err := r.out.DialContext(ctx, "tcp", r.addrs[index].String())
		r.results <- attempt{index, c, err}
	}()
}

// closeLosers waits for the attempts that are still out (they have been
// cancelled) and closes what they bring.
func (r *race) closeLosers() {
	for ; r.ended < r.started; r.ended++ {
		if a := <-r.results; a.err == nil {
			a.conn.Close()
		}
	}
}

// interleave puts the families in turn, beginning with the first's.
func interleave(addrs []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, a := range addrs {
		if a.Addr().Is4() == addrs[0].Addr().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	mixed := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			mixed = append(mixed, first[i])
		}
		if i < len(second) {
			mixed = append(mixed, second[i])
		}
	}
	return mixed
}

// targets puts the judged addresses and the port together. It drops what is no
// host's address, and this proxy's own listeners: a request through them would
// go round for ever. What is left lies in room, if there is enough of that.
func (s *Server) targets(room []netip.AddrPort, addrs []netip.Addr, port uint16) ([]netip.AddrPort, error) {
	hosts := slices.Grow(room[:0], len(addrs))
	reason := errNoAddress
	for _, a := range addrs {
		to := netip.AddrPortFrom(a.Unmap(), port)
		switch {
		case !isHost(to.Addr()):
			reason = fmt.Errorf("%w: %s is no host's address", BadRequest, a)
		case s.isSelf(to):
			reason = fmt.Errorf("%w: %s is this proxy", Loop, to)
		default:
			hosts = append(hosts, to)
		}
	}
	if len(hosts) == 0 {
		return nil, reason
	}
	return hosts, nil
}

var errNoAddress = fmt.Errorf("%w: no address was granted", Denied)

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.MustParseAddr("255.255.255.255")
)

// isHost reports whether an address can be a single machine's.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != broadcast && !thisNetwork.Contains(a)
}

// isSelf reports whether an address is one that this server listens on, or one
// that stands for it outside a NAT.
func (s *Server) isSelf(to netip.AddrPort) bool {
	listens, everywhere := s.listensOn(to)
	return listens || everywhere && isLocal(to.Addr())
}

// listensOn reports whether a listener has just this address, and whether one
// has its port on all addresses.
func (s *Server) listensOn(to netip.AddrPort) (this, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sv := range s.serving {
		at := sv.address.Addr()
		switch {
		case sv.packets != nil: // other ports
		case sv.ended.Load() || sv.address.Port() != to.Port():
		case at == to.Addr(), sv.listener.Load().Advertise == to.Addr():
			this = true
		case at.IsUnspecified():
			all = true
		}
	}
	return this, all
}

// isLocal reports whether an address is one of this machine's.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	own, err := LocalAddrs()
	return err != nil || slices.Contains(own, a) // where it is not known: refuse rather than loop
}

// LocalAddrs returns the addresses of this machine's interfaces, unmapped and
// without zones.
func LocalAddrs() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own, nil
}
