package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// maxAddrs is how many of a target's addresses a proxy is asked for.
const maxAddrs = 8

// Connect implements [server.Upstream].
func (p *Pool) Connect(ctx context.Context, d server.Departure) (net.Conn, string, error) {
	return try(ctx, p, d, func(ctx context.Context, dialer *client.Dialer, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	})
}

// Bind implements [server.Upstream].
func (p *Pool) Bind(ctx context.Context, d server.Departure) (net.Listener, string, error) {
	return try(ctx, p, d, func(ctx context.Context, dialer *client.Dialer, address string) (net.Listener, error) {
		ln, err := dialer.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return acceptor{ln}, nil
	})
}

// Associate implements [server.Upstream].
func (p *Pool) Associate(ctx context.Context, d server.Departure) (net.PacketConn, string, error) {
	// No target: each datagram will have its own.
	d.Addrs = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}
	return try(ctx, p, d, func(ctx context.Context, dialer *client.Dialer, _ string) (net.PacketConn, error) {
		return dialer.ListenPacket(ctx, "udp", "")
	})
}

// acceptor is a BIND's listener whose errors wrap a Reason.
type acceptor struct{ net.Listener }

func (a acceptor) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", reasonOf(err), err)
	}
	return c, nil
}

// try asks one proxy after the other, until one grants the request or the target
// itself has refused it.
func try[T any](ctx context.Context, p *Pool, d server.Departure, open func(context.Context, *client.Dialer, string) (T, error)) (granted T, proxy string, err error) {
	by := p.forward
	by.client, by.local = d.Client, d.Local
	members := p.order(d)
	var faults []error
	for i, m := range members {
		granted, err = ask(ctx, m, by, d, len(members)-i, open)
		switch {
		case err == nil:
			m.serves(false)
			return granted, m.name, nil
		case ctx.Err() != nil:
			return granted, m.name, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case m.verdict(err) == final:
			return granted, m.name, fmt.Errorf("%w: %w", reasonOf(err), err)
		}
		faults = append(faults, err)
	}
	return granted, "", p.noneLeft(faults)
}

// noneLeft is the error where no proxy was any good.
func (p *Pool) noneLeft(faults []error) error {
	reason := reasonOf(faults[0])
	var texts []string
	for _, err := range faults {
		if judge(err) != elsewhere || reasonOf(err) != reason {
			reason = server.UpstreamFailed // not only unfit for this request
		}
		texts = append(texts, err.Error())
	}
	return fmt.Errorf("%w: no proxy of %q serves this: %s", reason, p.name, strings.Join(texts, "; "))
}

// ask asks one proxy for each of the target's addresses, within its share of the
// time. left is how many proxies there are, this one included.
func ask[T any](ctx context.Context, m *member, by forward, d server.Departure, left int, open func(context.Context, *client.Dialer, string) (T, error)) (granted T, err error) {
	ctx, cancel := share(ctx, left)
	defer cancel()
	dialer, err := m.dialer(by)
	if err != nil {
		return granted, err
	}
	addresses := m.addresses(d)
	if len(addresses) == 0 {
		return granted, fmt.Errorf("%s: %w", m.name, errNoFamily)
	}
	var first error
	for i, address := range addresses {
		granted, err = askFor(ctx, dialer, address, len(addresses)-i, open)
		if err == nil || ctx.Err() != nil || judge(err) != final {
			return granted, err
		}
		if first == nil {
			first = err
		}
	}
	return granted, first
}

func askFor[T any](ctx context.Context, dialer *client.Dialer, address string, left int, open func(context.Context, *client.Dialer, string) (T, error)) (T, error) {
	ctx, cancel := share(ctx, left)
	defer cancel()
	return open(ctx, dialer, address)
}

// addresses returns what to ask the proxy for, at most maxAddrs.
func (m *member) addresses(d server.Departure) []string {
	if len(d.Addrs) == 0 {
		return []string{d.Target.String()}
	}
	var list []string
	for _, a := range d.Addrs {
		if len(list) < maxAddrs && (a.Addr().Is4() || m.last.Scheme != "socks4") {
			list = append(list, a.String())
		}
	}
	return list
}

// share returns ctx with its share of the time that is left, where there are
// others to be asked after this one.
func share(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	until, ok := ctx.Deadline()
	if !ok || left == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(until)/time.Duration(left))
}
