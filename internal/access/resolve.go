package access

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/server"
)

// Resolver finds a host's addresses. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookup returns a host's addresses in the one form that rules compare, at
// least one. The names that mean this machine by definition never leave it
// (RFC 6761, section 6.3).
func (p *Policy) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if isLocalhost(host) {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	var resolver Resolver = net.DefaultResolver
	if p.resolver != nil {
		resolver = p.resolver
	}
	found, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", server.ReasonOf(err), err)
	}
	var addrs []netip.Addr
	for _, a := range found {
		addrs = append(addrs, a.Unmap().WithZone(""))
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%w: %s has no address", server.NoName, host)
	}
	return addrs, nil
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
