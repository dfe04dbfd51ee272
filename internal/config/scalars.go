package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// duration returns n as a time from least to maxTimeout.
func (d *decoder) duration(n *node, least time.Duration) (time.Duration, bool) {
	if n.kind != scalar {
		d.fail(n, "expected a time such as 90s, found "+n.describe(), "")
		return 0, false
	}
	value, ok := ParseDuration(n.text)
	var m *mistake
	switch {
	case !ok && strings.Trim(n.text, "0123456789") == "" && n.text != "" && len(n.text) < 10:
		m = &mistake{quote(n.text) + " has no unit", "write " + n.text + "s for seconds"}
	case !ok:
		m = &mistake{quote(n.text) + " is not a time", "write 90s, 10m, 1h30m or 2d"}
	case value < least && least == 0:
		m = &mistake{"a time cannot be negative", "0s is the least"}
	case value < least:
		m = &mistake{"a time must be over zero: every wait has a limit", "at most 30d"}
	case value > maxTimeout:
		m = &mistake{quote(n.text) + " is too long", "at most 30d"}
	}
	return value, d.take(n, m)
}

// ParseDuration is [time.ParseDuration] with days in front: 2d12h.
func ParseDuration(text string) (time.Duration, bool) {
	number, rest, found := strings.Cut(text, "d")
	if !found {
		value, err := time.ParseDuration(text)
		return value, err == nil
	}
	if strings.ContainsFunc(number, unicode.IsLetter) {
		return 0, false
	}
	days, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, false
	}
	const far = 100_000 // days: longer than anything may be, and no overflow
	value := time.Duration(max(-far, min(days, far)) * float64(24*time.Hour))
	if rest == "" {
		return value, true
	}
	more, err := time.ParseDuration(rest)
	if err != nil || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, false
	}
	return value + min(more, maxTimeout+1), true
}

// ports returns n as a port or a range of ports, none below least.
func (d *decoder) ports(n *node, least uint16) (PortRange, bool) {
	if n.kind != scalar {
		d.fail(n, "expected a port or a range such as 8000-8999, found "+n.describe(), "")
		return PortRange{}, false
	}
	first, last, found := strings.Cut(n.text, "-")
	if !found {
		last = first
	}
	low, okLow := parsePort(first)
	high, okHigh := parsePort(last)
	switch {
	case !okLow || !okHigh:
		d.fail(n, quote(n.text)+" is not a port or a range of ports", "write a port such as 443, or a range such as 8000-8999; the highest is 65535")
	case low > high:
		d.fail(n, "the range "+n.text+" runs backwards", "write "+last+"-"+first)
	case low < least:
		d.fail(n, "port "+first+" is too low", "the lowest is "+strconv.Itoa(int(least)))
	default:
		return PortRange{low, high}, true
	}
	return PortRange{}, false
}

// parsePort takes plain decimal numbers: no sign, no leading zero.
func parsePort(text string) (uint16, bool) {
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil && strconv.FormatUint(port, 10) == text
}

// placeWords are the words that stand for addresses.
func placeWords() []string { return []string{"any", "internet", "loopback", "private"} }

// address returns n as the address of one machine.
func (d *decoder) address(n *node) (netip.Addr, bool) {
	text, ok := d.text(n)
	if !ok {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil || addr.Zone() != "":
		d.fail(n, quote(text)+" is not an IP address", "write an address such as 203.0.113.7")
	case addr.IsUnspecified() || addr.Unmap().IsUnspecified() || addr.IsMulticast():
		d.fail(n, text+" is not the address of a machine", "write an address such as 203.0.113.7")
	default:
		return addr.Unmap(), true
	}
	return netip.Addr{}, false
}

// parsePrefix takes a network such as 10.0.0.0/8, or an address as the network
// that holds only it. It takes one spelling of each, the canonical one as far
// as numbers go: what other programs read differently is refused.
func parsePrefix(text string) (netip.Prefix, *mistake) {
	host, length, isPrefix := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, notAnAddress(host)
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, &mistake{quote(text) + " holds a zone", "write it without the zone, which starts at the %"}
	}
	bits := addr.BitLen()
	if isPrefix {
		var ok bool
		if bits, ok = parseBits(length, addr.BitLen()); !ok {
			return netip.Prefix{}, badLength(host, length, addr.BitLen())
		}
	}
	whole := netip.PrefixFrom(addr, bits)
	if whole.Masked() != whole {
		return netip.Prefix{}, &mistake{"the network " + text + " has bits set behind its length", "write " + whole.Masked().String() + " for the network, or " + addr.String() + " for the one address"}
	}
	if addr.Is4In6() {
		whole = netip.PrefixFrom(addr.Unmap(), bits-96) // the check above took care of less
	}
	return whole, nil
}

func parseBits(text string, most int) (int, bool) {
	bits, err := strconv.Atoi(text)
	return bits, err == nil && bits >= 0 && bits <= most && strconv.Itoa(bits) == text
}

// notAnAddress words why text, which must be an address, is none.
func notAnAddress(text string) *mistake {
	m := &mistake{quote(text) + " is not an IP address", "write an address such as 10.1.2.3 or 2001:db8::1, or a network such as 10.0.0.0/8"}
	switch parts := strings.Split(text, "."); {
	case strings.HasPrefix(text, "["):
		m.hint = "an IPv6 address stands without brackets here, and ports are no part of it"
	case strings.Trim(text, "0123456789.") == "" && len(parts) != 4:
		m.hint = "write all four numbers of an IPv4 address"
	case strings.Trim(text, "0123456789.") == "" && slices.ContainsFunc(parts, func(p string) bool { return len(p) > 1 && p[0] == '0' }):
		m.hint = "write the numbers without leading zeros: some programs read those as octal"
	}
	return m
}

// badLength words why a prefix length is none. A netmask is told from nonsense.
func badLength(host, length string, most int) *mistake {
	m := &mistake{quote(length) + " is not the length of a prefix", "write a number from 0 to " + strconv.Itoa(most)}
	mask, err := netip.ParseAddr(length)
	if err != nil || !mask.Is4() {
		return m
	}
	for bits := range 33 {
		ones := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), bits).Masked()
		if ones.Addr() == mask {
			m.hint = "write " + host + "/" + strconv.Itoa(bits)
		}
	}
	return m
}

// parseHost takes a host name, and returns it in lower case without the dot at
// its end. Underscores are let through: there are such names.
func parseHost(text string) (string, *mistake) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	bad := &mistake{quote(text) + " is not a host name", "write a name such as www.example.com"}
	if len(name) == 0 || len(name) > 253 {
		return "", bad
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", bad
		}
		if i := strings.IndexFunc(label, func(r rune) bool { return !isHostRune(r) }); i >= 0 {
			if label[i] >= 0x80 {
				bad.hint = "write its ASCII form, which starts with xn--"
			}
			return "", bad
		}
	}
	return name, nil
}

func isHostRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// endsInNumber tells whether the last label of a name is a number. Then it is
// no name: programs read such things as IPv4 addresses, each in its own way.
func endsInNumber(text string) bool {
	name := strings.TrimSuffix(text, ".")
	last := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	hex, isHex := strings.CutPrefix(last, "0x")
	if isHex {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}
