package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

// Environment reaches each target through the proxy that the environment names
// for it, or directly. Make it with FromEnvironment. All its methods are safe for
// concurrent use.
type Environment struct {
	direct  ContextDialer
	byPort  map[string]*Dialer // http_proxy by 80, https_proxy by 443
	others  *Dialer            // all_proxy; nil: none
	without exceptions
}

// FromEnvironment reads the environment variables as curl does, once:
//
//	https_proxy, HTTPS_PROXY    the proxy for targets with port 443
//	http_proxy                  for port 80; in lower case only, since a web server
//	                            hands a client's "Proxy" header to CGI programs as HTTP_PROXY
//	all_proxy, ALL_PROXY        for what the others say nothing of
//	no_proxy, NO_PROXY          the targets to go to directly
//
// The lower case goes first, and an empty variable says nothing. Connections
// have no scheme, so the port stands for it. A proxy without a scheme is an http
// one, and chains go too. The connection is a tunnel (CONNECT) for port 80 as
// well, which some HTTP proxies allow only for 443.
//
// no_proxy is "*" for all targets, or a list with commas or blanks between of
// host names, which stand for all names below them too, with or without a dot in
// front; IP addresses; and prefixes such as 192.168.0.0/16 (one of no bits, such as
// 0.0.0.0/0, is the address alone). It is compared with the target as it is asked
// for: no name is looked up, and the port does not count.
//
// The options go to every Dialer; a forward dialer makes the direct connections
// as well. An error names the variable and not what is in it.
func FromEnvironment(opts ...Option) (*Environment, error) {
	e := &Environment{
		direct:  newDialer(proxy{}, opts).forward,
		byPort:  map[string]*Dialer{},
		without: readExceptions(firstOf("no_proxy", "NO_PROXY")),
	}
	for port, names := range map[string][]string{
		"80":  {"http_proxy"},
		"443": {"https_proxy", "HTTPS_PROXY"},
		"":    {"all_proxy", "ALL_PROXY"},
	} {
		name, value := firstOf(names...)
		if value == "" {
			continue
		}
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		d, err := New(value, opts...)
		if err != nil {
			return nil, fmt.Errorf("%w (in %s)", err, name)
		}
		if port == "" {
			e.others = d
		} else {
			e.byPort[port] = d
		}
	}
	return e, nil
}

// firstOf returns the first of some variables that is not empty.
func firstOf(names ...string) (name, value string) {
	for _, name := range names {
		if value := os.Getenv(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

// Dial is DialContext without a context.
func (e *Environment) Dial(network, address string) (net.Conn, error) {
	return e.DialContext(context.Background(), network, address)
}

// DialContext connects to address ("host:port") through the proxy that the
// environment names for it, as Dialer.DialContext does, or directly.
func (e *Environment) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if d := e.proxy(address); d != nil {
		return d.DialContext(ctx, network, address)
	}
	return e.direct.DialContext(ctx, network, address)
}

// proxy returns the Dialer for an address, nil to go there directly.
func (e *Environment) proxy(address string) *Dialer {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return e.others // which finds fault with the address in its own words
	}
	if e.without.match(host) {
		return nil
	}
	if number, ok := map[string]string{"http": "80", "https": "443"}[port]; ok {
		port = number
	}
	if d := e.byPort[port]; d != nil {
		return d
	}
	return e.others
}

// exceptions are the targets that no_proxy lists.
type exceptions struct {
	all      bool
	names    []string // lower case, without dots at the ends
	prefixes []netip.Prefix
}

func readExceptions(_, list string) exceptions {
	if list == "*" {
		return exceptions{all: true}
	}
	var e exceptions
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		bare := strings.TrimSuffix(strings.TrimPrefix(item, "["), "]")
		if ip, err := netip.ParseAddr(bare); err == nil {
			e.prefixes = append(e.prefixes, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
		} else if prefix, err := netip.ParsePrefix(item); err == nil {
			if prefix.Bits() == 0 {
				prefix = netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen())
			}
			e.prefixes = append(e.prefixes, prefix)
		} else if name := bareName(strings.TrimPrefix(item, ".")); name != "" {
			e.names = append(e.names, name)
		}
	}
	return e
}

func bareName(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// asIP reads an address in any of the forms in which a target may be one, such
// as 127.1.
func asIP(host string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone(""), true
	}
	target, err := socks.NewAddr(host, 0)
	return target.IP, err == nil && target.IP.IsValid()
}

func (e exceptions) match(host string) bool {
	if e.all {
		return true
	}
	if ip, ok := asIP(host); ok {
		for _, prefix := range e.prefixes {
			if prefix.Contains(ip) {
				return true
			}
		}
		return false
	}
	host = bareName(host)
	for _, name := range e.names {
		if above, ok := strings.CutSuffix(host, name); ok && (above == "" || strings.HasSuffix(above, ".")) {
			return true
		}
	}
	return false
}
