package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxMapTargets = 100 // of one mapping: each is checked again and again
	socketSign    = "unix:"
	defaultUDPGap = 2 * time.Minute
)

// portMapping returns n as where a listener leads to: targets, or keys.
func (d *decoder) portMapping(n *node) *Map {
	m := &Map{Choose: "first alive", Check: defaultCheck}
	if n.kind != mapping {
		m.Targets = d.mapTargets(n)
		return m
	}
	d.mapping(n, fields{
		"to": func(v *node) { m.Targets = d.mapTargets(v) },
		"choose": func(v *node) {
			if word, ok := d.word(v, mapChoices()); ok {
				m.Choose = word
			}
		},
		"check": func(v *node) { m.Check = d.checkOrOff(v) },
		"tls":   func(v *node) { m.TLS = d.mapTLS(v) },
		"proxy_protocol": func(v *node) {
			word, _ := d.word(v, proxyVersions())
			m.ProxyProtocol = slices.Index(proxyVersions().known, word) + 1
		},
		"idle": func(v *node) {
			if value, ok := d.duration(v, time.Second); ok {
				m.Idle = value
			}
		},
	})
	if !n.has("to") {
		d.fail(n, "the port mapping has no target", "write `to: mail.example.com:25`")
	}
	return m
}

func mapChoices() words {
	w := choices()
	w.known = append(w.known, "least sessions")
	return w
}

// checkOrOff returns n as the time between checks; off is 0.
func (d *decoder) checkOrOff(n *node) time.Duration {
	if n.kind == scalar && (n.text == "off" || n.plain && n.text == "false") {
		return 0
	}
	value, ok := d.duration(n, time.Second)
	if !ok {
		return defaultCheck
	}
	return value
}

// mapTLS returns n as the terms on which targets are spoken to: true, or keys.
func (d *decoder) mapTLS(n *node) (t MapTLS) {
	t.On = true
	if n.kind == scalar {
		t.On = d.bool(n)
		return t
	}
	d.mapping(n, fields{
		"ca":   func(v *node) { t.CA = d.file(v, "") },
		"name": func(v *node) { t.Name = d.certificateName(v) },
	})
	return t
}

// certificateName returns n as what a certificate is for: a host name or an address.
func (d *decoder) certificateName(n *node) string {
	text, ok := d.text(n)
	if !ok {
		return ""
	}
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		return ip.String()
	}
	name, m := parseHost(text)
	d.take(n, m)
	return name
}

func (d *decoder) mapTargets(n *node) []MapTarget {
	if len(n.items) > maxMapTargets {
		d.fail(n, fmt.Sprintf("over %d targets", maxMapTargets), "")
		return nil
	}
	var list []MapTarget
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		var t MapTarget
		if strings.HasPrefix(text, socketSign) {
			t.Socket, ok = d.unixSocket(item, text)
		} else {
			var m *mistake
			t, m = parseMapTarget(text)
			ok = d.take(item, m)
		}
		switch {
		case !ok:
			return
		case slices.Contains(list, t):
			d.fail(item, "the same target stands here twice", "keep one of them")
			return
		}
		d.mapRefs = append(d.mapRefs, mapRef{at: item, MapTarget: t})
		list = append(list, t)
	})
	return list
}

// unixSocket returns the path behind the sign of a unix socket.
func (d *decoder) unixSocket(n *node, text string) (string, bool) {
	path := strings.TrimPrefix(text, socketSign)
	if path == "" {
		d.fail(n, "the socket has no name", "write unix:/run/service.sock")
		return "", false
	}
	path = d.socketFile(n, path)
	return path, path != ""
}

// parseMapTarget reads host:port, or host:port-port.
func parseMapTarget(text string) (MapTarget, *mistake) {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return MapTarget{}, &mistake{quote(text) + " is not a host with a port", "write a target such as mail.example.com:25, or unix:/run/service.sock"}
	}
	var t MapTarget
	var m *mistake
	if t.Port, t.last, m = parsePortRange(port); m != nil {
		return MapTarget{}, m
	}
	if t.Port == 0 {
		return MapTarget{}, &mistake{"port 0 leads nowhere", "write a number from 1 to 65535"}
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return MapTarget{}, &mistake{host + " is not the address of a machine", "write an address such as 192.168.1.9"}
		}
		t.Host = ip.Unmap().String()
		return t, nil
	}
	if endsInNumber(host) || strings.ContainsAny(host, ":/%") {
		return MapTarget{}, notAnAddress(host)
	}
	t.Host, m = parseHost(host)
	return t, m
}

// part returns the mapping of a port of a range, which is the i-th.
func (m *Map) part(i int) *Map {
	if m == nil {
		return nil
	}
	part := *m
	part.Targets = slices.Clone(m.Targets)
	for j := range part.Targets {
		t := &part.Targets[j]
		if t.last != 0 {
			t.Port, t.last = t.Port+uint16(i), 0
		}
	}
	return &part
}

// count returns how many ports a target has.
func (t *MapTarget) count() int {
	if t.last == 0 {
		return 1
	}
	return int(t.last) - int(t.Port) + 1
}

// asMapping checks that a listener with these addresses makes sense as a port
// mapping, or, where it is none, without one. refs are its targets.
func (d *decoder) asMapping(n *node, l *Listener, at []address, refs []mapRef) {
	if l.Map == nil {
		for _, a := range at {
			if a.udp && !n.has("map") {
				d.fail(a.at, "a listener for UDP is a port mapping", "write `map: HOST:PORT`; the UDP of SOCKS 5 needs no listener of its own")
			}
		}
		return
	}
	l.Protocols = []string{mapped}
	const means = "a port mapping speaks no protocol"
	for _, p := range n.pairs {
		switch p.key.text {
		case "protocols", "advertise", "bind_ports", "hide_address", "userid_max":
			d.fail(p.key, means+": "+quote(p.key.text)+" says nothing here", "leave it out")
		}
	}
	d.pairwise(l.Map, at)
	udp := slices.ContainsFunc(at, func(a address) bool { return a.udp })
	if udp {
		d.datagramMapping(n, l, at, refs)
	} else if l.Map.Idle != 0 {
		d.fail(n.value("map"), "`idle` is for a mapping of UDP", "`timeouts: {idle: ...}` holds for connections")
	}
	if len(l.Map.Targets) < 2 || udp {
		l.Map.Check = 0 // there is nothing to choose by it
	}
}

// pairwise checks that each port of a range leads to one.
func (d *decoder) pairwise(m *Map, at []address) {
	for _, a := range at {
		ports := a.count()
		for i := range m.Targets {
			if n := m.Targets[i].count(); n != 1 && n != ports {
				d.fail(a.at, fmt.Sprintf("the listener has %d ports, and its target %s has %d", ports, m.Targets[i].Host, n), "write ranges of as many ports, or one port as the target")
				return
			}
		}
	}
}

// datagramMapping is asMapping for UDP: it refuses what is for connections.
func (d *decoder) datagramMapping(n *node, l *Listener, at []address, refs []mapRef) {
	for i := range refs {
		refs[i].udp = true
	}
	l.Map.Idle = cmp.Or(l.Map.Idle, defaultUDPGap)
	for _, a := range at {
		if !a.udp && a.text != "" {
			d.fail(a.at, "the listener is for UDP and for TCP", "make two of it")
		}
	}
	d.ownAddresses(at)
	for _, p := range n.pairs {
		if p.key.text == "tls" || p.key.text == "proxy_protocol" {
			d.fail(p.key, quote(p.key.text)+" is for connections, and this is UDP", "leave it out")
		}
	}
	m := n.value("map")
	switch {
	case l.Map.TLS.On || l.Map.ProxyProtocol != 0:
		d.fail(m, "`tls` and `proxy_protocol` are for connections, and this is UDP", "leave them out")
	case m.has("check"):
		d.fail(m, "`check` is for connections: of UDP nobody can tell whether it is served", "leave it out")
	case slices.ContainsFunc(l.Map.Targets, func(t MapTarget) bool { return t.Socket != "" }):
		d.fail(m, "a unix socket takes connections, and this is UDP", "write HOST:PORT")
	}
}

// ownAddresses checks that those of them that are for UDP are no wildcards.
func (d *decoder) ownAddresses(at []address) {
	for _, a := range at {
		if a.udp && a.everywhere() {
			d.fail(a.at, "a listener for UDP has an address of its own, from which its answers come", "write udp/192.168.1.1:53; several make a list")
		}
	}
}

// mapRef is a target, and where it is written.
type mapRef struct {
	at  *node
	udp bool
	MapTarget
}

// mapReferences checks that no mapping certainly leads to a listener here.
func (d *decoder) mapReferences() {
	for _, r := range d.mapRefs {
		i := slices.IndexFunc(d.listeners, func(l listenerPlace) bool { return l.ok && l.addr.isTarget(r) })
		if i >= 0 {
			d.fail(r.at, "this target is the listener "+quote(d.settings.Listeners[i].Name)+": what goes there comes back here", "name another target")
		}
	}
}

func (e endpoint) isTarget(r mapRef) bool {
	if e.socket != "" || r.Socket != "" {
		return e.socket == r.Socket
	}
	return e.udp == r.udp && e.isReachedBy(r.Host, r.Port)
}
