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

// recaller is a Resolver that knows some answers without asking anybody.
type recaller interface {
	// Recall returns what LookupNetIP would return, if that would ask nobody.
	Recall(network, host string) (addrs []netip.Addr, known bool, err error)
}

// anyNetwork is asked for of a host: addresses of both families.
const anyNetwork = "ip"

// lookup returns a host's addresses in the one form that rules compare, at
// least one.
func (p *Policy) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if isLocalhost(host) {
		return thisMachine(), nil
	}
	var resolver Resolver = net.DefaultResolver
	if p.resolver != nil {
		resolver = p.resolver
	}
	found, err := resolver.LookupNetIP(ctx, anyNetwork, host)
	return canonical(host, found, err)
}

// recall is lookup without asking anybody. Known is false where somebody would have
// to be.
func (p *Policy) recall(host string) (addrs []netip.Addr, known bool, err error) {
	if isLocalhost(host) {
		return thisMachine(), true, nil
	}
	memory, ok := p.resolver.(recaller)
	if !ok {
		return nil, false, nil
	}
	addrs, known, err = memory.Recall(anyNetwork, host)
	if known {
		addrs, err = canonical(host, addrs, err)
	}
	return addrs, known, err
}

// canonical is a resolver's answer in the form that rules compare.
func canonical(host string, found []netip.Addr, err error) ([]netip.Addr, error) {
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

// thisMachine is what localhost means by definition: such names never leave this machine
// (RFC 6761, section 6.3).
func thisMachine() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
