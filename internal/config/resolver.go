package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxCache       = time.Hour
	maxNameServers = 8 // asked one after the other
	defaultDNSPort = 53
)

// decodeResolver fills in s.Resolver.
func (d *decoder) decodeResolver(n *node) {
	r := &d.settings.Resolver
	d.mapping(n, fields{
		"servers": func(v *node) { r.Servers = d.nameServers(v) },
		"cache": func(v *node) {
			value, ok := d.duration(v, 0)
			if ok && value > maxCache {
				d.fail(v, quote(v.text)+" is too long: who keeps the names may change them", "at most 1h")
			} else if ok {
				r.Cache = value
			}
		},
	})
}

func (d *decoder) nameServers(n *node) []netip.AddrPort {
	if len(n.items) > maxNameServers {
		d.fail(n, "over "+strconv.Itoa(maxNameServers)+" name servers", "")
		return nil
	}
	var list []netip.AddrPort
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		server, m := parseNameServer(text)
		if m == nil && slices.Contains(list, server) {
			m = &mistake{"the name server " + server.String() + " stands here twice", "keep one of them"}
		}
		if d.take(item, m) {
			list = append(list, server)
		}
	})
	return list
}

// parseNameServer takes an address, with or without a port.
func parseNameServer(text string) (netip.AddrPort, *mistake) {
	bad := &mistake{quote(text) + " is not the address of a name server", `write 192.0.2.53, "192.0.2.53:5353", "2001:db8::53" or "[2001:db8::53]:5353"`}
	host, port := text, uint16(defaultDNSPort)
	if strings.Count(text, ":") == 1 || strings.HasPrefix(text, "[") {
		before, after, err := net.SplitHostPort(text)
		var ok bool
		if port, ok = parsePort(after); err != nil || !ok || port == 0 {
			return netip.AddrPort{}, bad
		}
		host = before
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || addr.Is4() && strings.HasPrefix(text, "[") {
		return netip.AddrPort{}, bad
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.AddrPort{}, &mistake{quote(text) + " is not the address of a machine", bad.hint}
	}
	return netip.AddrPortFrom(addr, port), nil
}
