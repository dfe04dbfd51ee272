package socks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ErrHost says that a host is neither an address nor a name that can be looked up.
var ErrHost = errors.New("socks: not a host name or address")

// Addr is a target: an address or a name, and a port. It has one canonical
// form, so that a rule decides on what is dialled whatever way it was spelled:
// IP is unmapped (never ::ffff:a.b.c.d) and has no zone, Name is lower case and
// without a trailing dot. The zero value is no target.
type Addr struct {
	IP   netip.Addr // valid where the target was given as an address
	Name string     // else the host name
	Port uint16
}

// NewAddr returns the target for a host as it arrives from outside: a name, an
// address in any spelling that some resolver would take for one (127.1, 0x7f.1,
// 2130706433, [::1], ::ffff:127.0.0.1), with or without a trailing dot. It
// fails with ErrHost.
func NewAddr(host string, port uint16) (Addr, error) {
	bare := host
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if bare, ok = strings.CutSuffix(inner, "]"); !ok {
			return Addr{}, fmt.Errorf("%w: %q", ErrHost, host)
		}
	}
	if ip, err := netip.ParseAddr(bare); err == nil && (ip.Zone() == "" || isName(ip.Zone())) {
		return FromIP(netip.AddrPortFrom(ip, port)), nil
	}
	name := strings.TrimSuffix(bare, ".")
	if bare != host || !isName(name) {
		return Addr{}, fmt.Errorf("%w: %q", ErrHost, host)
	}
	// Only now: some letters outside ASCII have a lower case inside it.
	name = strings.ToLower(name)
	if !isNumber(name[strings.LastIndexByte(name, '.')+1:]) {
		return Addr{Name: name, Port: port}, nil
	}
	ip, ok := parseIPv4Numbers(name)
	if !ok {
		return Addr{}, fmt.Errorf("%w: %q", ErrHost, host)
	}
	return Addr{IP: ip, Port: port}, nil
}

// FromIP returns the target for an address.
func FromIP(a netip.AddrPort) Addr {
	return Addr{IP: a.Addr().Unmap().WithZone(""), Port: a.Port()}
}

// ParseAddr reads "host:port".
func ParseAddr(hostport string) (Addr, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return Addr{}, fmt.Errorf("%w: %w", ErrHost, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return Addr{}, fmt.Errorf("%w: port %q is not a number from 0 to 65535", ErrHost, portText)
	}
	return NewAddr(host, uint16(port))
}

// Host returns the host alone, without brackets.
func (a Addr) Host() string {
	if a.IP.IsValid() {
		return a.IP.String()
	}
	return a.Name
}

// String returns "host:port", with brackets round an IPv6 address.
func (a Addr) String() string {
	return net.JoinHostPort(a.Host(), strconv.Itoa(int(a.Port)))
}

// isName reports whether s can be a host name: labels of 1 to 63 letters,
// digits, hyphens and underscores, 253 bytes in all (RFC 1035, 2.3.4;
// underscores as resolvers take them).
func isName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if lower := c | 0x20; (lower < 'a' || lower > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// isNumber reports whether a label is a number in decimal, octal or hex: a name
// that ends in one is an IPv4 address or nothing (no top-level domain is a number).
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// parseIPv4Numbers reads the numbers-and-dots forms that inet_aton takes: one
// to four parts, each decimal, octal (0...) or hex (0x...), the last filling
// the bytes that are left.
func parseIPv4Numbers(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var ip uint64
	for i, part := range parts {
		left := 4 - i // bytes this part may fill, if it is the last
		limit := uint64(1) << 8
		if i == len(parts)-1 {
			limit = 1 << (8 * left)
		}
		n, ok := parseIPv4Number(part)
		if !ok || n >= limit {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			ip |= n
		} else {
			ip |= n << (8 * (left - 1))
		}
	}
	return netip.AddrFrom4([4]byte{byte(ip >> 24), byte(ip >> 16), byte(ip >> 8), byte(ip)}), true
}

func parseIPv4Number(part string) (uint64, bool) {
	base := 10
	if hex, ok := strings.CutPrefix(part, "0x"); ok {
		if part, base = hex, 16; hex == "" {
			part = "0"
		}
	} else if len(part) > 1 && part[0] == '0' {
		base = 8
	}
	n, err := strconv.ParseUint(part, base, 32)
	return n, err == nil
}
