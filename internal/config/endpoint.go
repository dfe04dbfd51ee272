package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// endpoint is an address to listen on, taken apart.
type endpoint struct {
	udp    bool       // for datagrams
	socket string     // the path of a unix socket, in the place of what follows
	name   string     // a host name in lower case, or that of an interface; empty for an IP address
	ip     netip.Addr // unmapped; unspecified where no host is written
	port   uint16     // 0: any free one
	last   uint16     // of a range of ports that begins with port; 0: it is none
}

// count returns how many ports the address has.
func (e endpoint) count() int {
	if e.last == 0 {
		return 1
	}
	return int(e.last) - int(e.port) + 1
}

// parts returns the addresses of a range of ports one by one, as they would be
// written; of one port that of the text itself.
func (e endpoint) parts(text string) (texts []string, parts []endpoint) {
	if e.last == 0 {
		return []string{text}, []endpoint{e}
	}
	head := text[:strings.LastIndexByte(text, ':')+1]
	for port := int(e.port); port <= int(e.last); port++ {
		part := e
		part.port, part.last = uint16(port), 0
		texts, parts = append(texts, head+strconv.Itoa(port)), append(parts, part)
	}
	return texts, parts
}

// parseListen takes [udp/]host:port apart. The host may be missing, and the port
// may be a range.
func parseListen(text string) (endpoint, *mistake) {
	text, udp := strings.CutPrefix(text, "udp/")
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return endpoint{}, noHostPort(text)
	}
	e := endpoint{udp: udp, ip: netip.IPv6Unspecified()}
	var m *mistake
	if e.port, e.last, m = parsePortRange(port); m != nil || host == "" {
		return e, m
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		e.ip = ip.Unmap()
		if ip.Is4() && strings.HasPrefix(text, "[") {
			return endpoint{}, &mistake{"brackets are for IPv6 addresses", "write " + host + ":" + port}
		}
		return e, nil
	}
	// eth0.100 is an interface, and no address that somebody could read it as.
	if endsInNumber(host) && !beginsWithLetter(host) || strings.ContainsAny(host, ":/%") {
		return endpoint{}, notAnAddress(host)
	}
	e.ip = netip.Addr{}
	e.name, m = parseHost(host)
	return e, m
}

func beginsWithLetter(text string) bool {
	return len(text) > 0 && ('a' <= text[0]|0x20 && text[0]|0x20 <= 'z') && !strings.HasPrefix(strings.ToLower(text), "0x")
}

// parsePortRange reads a port, or two with a hyphen between them. last is 0 where
// there is one.
func parsePortRange(text string) (first, last uint16, m *mistake) {
	low, high, isRange := strings.Cut(text, "-")
	first, ok := parsePort(low)
	if isRange && ok {
		last, ok = parsePort(high)
	}
	switch {
	case !ok:
		return 0, 0, &mistake{quote(text) + " is not a port", "write a number from 0 to 65535; 0 is any free port"}
	case isRange && first == 0:
		return 0, 0, &mistake{"a range of ports begins at 1", ""}
	case isRange && first >= last:
		return 0, 0, &mistake{"the range " + text + " has no two ports", "write the lower port first"}
	}
	return first, last, nil
}

// noHostPort words why text is not host:port.
func noHostPort(text string) *mistake {
	m := &mistake{quote(text) + " is not an address with a port", "write an address such as 127.0.0.1:1080, or :1080 for all addresses"}
	ip, err := netip.ParseAddr(strings.Trim(text, "[]"))
	_, isPort := parsePort(text)
	last := strings.LastIndexByte(text, ':')
	switch {
	case isPort:
		m.hint = "write :" + text + " for all addresses, or 127.0.0.1:" + text + " for this machine"
	case err == nil && ip.Is4():
		m.hint = "write " + ip.String() + ":1080"
	case strings.Count(text, ":") > 1 && !strings.ContainsAny(text, "[]"):
		if ip, err := netip.ParseAddr(text[:last]); err == nil {
			m.hint = "write an IPv6 address in brackets: " + quote("["+ip.String()+"]"+text[last:])
		} else {
			m.hint = `write an IPv6 address in brackets: "[::1]:1080"`
		}
	case err == nil:
		m.hint = "write " + quote("["+ip.String()+"]:1080")
	}
	return m
}

// everywhere tells whether all addresses of the machine are listened on.
func (e endpoint) everywhere() bool { return e.socket == "" && e.name == "" && e.ip.IsUnspecified() }

// loopback tells whether only this machine can connect.
func (e endpoint) loopback() bool {
	return e.socket != "" || e.name == "localhost" || e.name == "" && e.ip.IsLoopback()
}

// clashes tells whether not both can be listened on.
func (e endpoint) clashes(other endpoint) bool {
	if e.udp != other.udp || e.socket != other.socket {
		return false
	}
	if e.socket != "" {
		return true
	}
	if e.port != other.port || e.port == 0 {
		return false
	}
	return e.name == other.name && e.ip == other.ip || e.everywhere() || other.everywhere()
}
