package access

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// NameServers is a [Resolver] that asks name servers of its own instead of the
// operating system's (whose hosts file it reads all the same, and whose search
// list it does not). It is safe for concurrent use.
type NameServers struct {
	each []*net.Resolver
	last atomic.Uint32 // the one that answered last, which is asked first
}

// serverLimit is how long one server may take while there is another to ask.
const serverLimit = 3 * time.Second

// NewNameServers returns a resolver that asks the servers, at least one, in
// turn: the next where one does not answer or cannot tell.
func NewNameServers(servers []netip.AddrPort) *NameServers {
	n := &NameServers{}
	for _, s := range servers {
		n.each = append(n.each, &net.Resolver{
			PreferGo: true,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialNameServer(ctx, network, s)
			},
		})
	}
	return n
}

// LookupNetIP implements [Resolver].
func (n *NameServers) LookupNetIP(ctx context.Context, network, host string) (addrs []netip.Addr, err error) {
	if !strings.HasSuffix(host, ".") {
		host += "." // the whole of the name: nothing is to be put behind it
	}
	first := int(n.last.Load())
	for i := range n.each {
		which := (first + i) % len(n.each)
		addrs, err = n.ask(ctx, n.each[which], network, host, i == len(n.each)-1)
		if err == nil || isMissing(err) {
			n.last.Store(uint32(which))
			return addrs, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return nil, err
}

// ask asks one server. The last has all the time that is left.
func (n *NameServers) ask(ctx context.Context, r *net.Resolver, network, host string, last bool) ([]netip.Addr, error) {
	if !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, serverLimit)
		defer cancel()
	}
	return r.LookupNetIP(ctx, network, host)
}

// dialNameServer opens a connection to s, which its caller closes. net.Resolver
// hears of the end of ctx only when a read has timed out: this ends the read.
func dialNameServer(ctx context.Context, network string, s netip.AddrPort) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, s.String())
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // of no effect once c is closed
	return c, nil
}
