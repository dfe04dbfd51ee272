package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

var errNotPlain = errors.New("SOCKS 4 carries IPv4 addresses only, and none of 0.0.0.x: a socks4a:// proxy may take it")

// targets returns what to ask the proxy for, in this order, to reach address:
// one target, or if names are looked up here one for every address of a name.
func (d *Dialer) targets(ctx context.Context, network, address string) ([]socks.Addr, error) {
	target, err := parseTarget(ctx, network, address)
	switch {
	case err != nil:
		return nil, err
	case d.proxy.names(), d.proxy.fits(target.IP):
		return []socks.Addr{target}, checkFamily(network, target)
	case target.IP.IsValid():
		return nil, errNotPlain
	}
	family := "ip" + strings.TrimPrefix(network, "tcp")
	if !d.proxy.fits(netip.IPv6Loopback()) {
		if network == "tcp6" {
			return nil, errNotPlain
		}
		family = "ip4"
	}
	ips, err := d.resolver.LookupNetIP(ctx, family, target.Name)
	if err != nil {
		return nil, fmt.Errorf("looking up the target: %w", because(ctx, err))
	}
	targets := make([]socks.Addr, 0, len(ips))
	for _, ip := range ips {
		// 0.0.0.0 as an answer means that the name is blocked. As the address
		// of a BIND it would mean anybody.
		if ip = ip.Unmap(); d.proxy.fits(ip) && !ip.IsUnspecified() {
			targets = append(targets, socks.FromIP(netip.AddrPortFrom(ip, target.Port)))
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("looking up the target: no usable address for %s", target.Name)
	}
	return targets, nil
}

// parseTarget reads "host:port" for a network. The port may be a service's name.
func parseTarget(ctx context.Context, network, address string) (socks.Addr, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return socks.Addr{}, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return socks.Addr{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return socks.Addr{}, err
	}
	return socks.NewAddr(host, uint16(port))
}

// checkFamily returns an error if a target that is sent as it is does not go
// with a network.
func checkFamily(network string, target socks.Addr) error {
	if network == "tcp6" && !target.IP.Is6() {
		return fmt.Errorf("network tcp6 goes only with an IPv6 address, not with %s", target.Host())
	}
	if network == "tcp4" && target.IP.Is6() {
		return fmt.Errorf("network tcp4 does not go with the IPv6 address %s", target.Host())
	}
	return nil
}
