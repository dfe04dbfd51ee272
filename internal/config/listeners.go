package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultUserIDMax = 255
	maxUserIDMax     = 1024
	lowestBindPort   = 1024
	maxListeners     = 1000 // each is compared with all others
)

// listenerPlace is where the parts of a listener stand.
type listenerPlace struct {
	name, listen     *node    // nil: not written
	addr             endpoint // of listen
	ok               bool     // addr is valid
	flag             bool     // addr comes from the command line
	hideSet, openSet bool     // the keys are there
	faulty           bool     // it has faults
}

func protocols() words {
	return words{what: "a protocol", known: []string{"socks4", "socks4a", "socks5", "http"}, later: []string{"ssh"}}
}

func newListener() Listener {
	return Listener{Protocols: protocols().known, UserIDMax: defaultUserIDMax}
}

// defaultListener is there when the file has no listeners.
func (d *decoder) defaultListener() {
	l := newListener()
	l.Name, l.Listen = "default", "127.0.0.1:1080"
	addr, m := parseListen(l.Listen)
	d.settings.Listeners = append(d.settings.Listeners, l)
	d.listeners = append(d.listeners, listenerPlace{addr: addr, ok: m == nil})
}

func (d *decoder) decodeListeners(n *node) {
	if len(n.items) > maxListeners {
		d.fail(n, fmt.Sprintf("over %d listeners", maxListeners), "")
		return
	}
	d.each(n, d.decodeListener)
}

func (d *decoder) decodeListener(n *node) {
	l := newListener()
	var p listenerPlace
	before := len(d.faults) + d.unshown
	d.mapping(n, fields{
		"name": func(v *node) { p.name = v; l.Name, _ = d.text(v) },
		"listen": func(v *node) {
			p.listen = v
			l.Listen, p.addr, p.ok = d.listen(v)
		},
		"protocols":         func(v *node) { l.Protocols = d.wordList(v, protocols()) },
		"advertise":         func(v *node) { l.Advertise, _ = d.address(v) },
		"bind_ports":        func(v *node) { l.BindPorts, _ = d.ports(v, lowestBindPort) },
		"hide_address":      func(v *node) { p.hideSet, l.HideAddress = true, d.bool(v) },
		"open_to_the_world": func(v *node) { p.openSet, l.OpenToTheWorld = true, d.bool(v) },
		"tls":               func(v *node) { l.TLS = d.tls(v) },
		"during":            func(v *node) { l.During = d.scheduleName(v) },
		"proxy_protocol":    func(v *node) { l.ProxyProtocol = d.balancers(v) },
		"userid_max": func(v *node) {
			if most, ok := d.number(v, 1, maxUserIDMax); ok {
				l.UserIDMax = most
			}
		},
	}, "map")
	if n.kind == mapping && !n.has("listen") {
		d.fail(n, "the listener has no address", "write `listen: 127.0.0.1:1080`")
	}
	if !n.has("name") {
		l.Name = l.Listen
	}
	p.faulty = before != len(d.faults)+d.unshown
	d.unlikeOthers(l.Name, p)
	d.settings.Listeners = append(d.settings.Listeners, l)
	d.listeners = append(d.listeners, p)
}

// balancers returns n as the networks of load balancers. Whoever sits there can
// name any client to the rules, so that not everybody may.
func (d *decoder) balancers(n *node) []Network {
	list := d.networks(n)
	if anywhere(list) && len(list) > 0 {
		d.fail(n, "anybody could say that he is any client", "list only the load balancers: they are believed")
	}
	return list
}

// unlikeOthers checks a listener against those that are there already.
func (d *decoder) unlikeOthers(name string, p listenerPlace) {
	clash := slices.IndexFunc(d.listeners, func(other listenerPlace) bool {
		return p.ok && other.ok && p.addr.clashes(other.addr)
	})
	if clash >= 0 {
		d.fail(p.listen, "two listeners on the same address", "the other one is in "+placeFrom(p.listen, d.listeners[clash].listen))
	}
	at := p.name
	if at == nil {
		at = p.listen // which the name is taken from
	}
	first, taken := d.named[name]
	switch {
	case name == "" || clash >= 0 && p.name == nil: // said already
	case taken:
		d.fail(at, "two listeners are called "+quote(name), "the other one is in "+placeFrom(at, first))
	default:
		d.named[name] = at
	}
}

// placeFrom says where n stands to who is at here: "line 3", with the file where
// that is another.
func placeFrom(here, n *node) string {
	number, _ := n.src.line(n.at.start)
	line := "line " + strconv.Itoa(number)
	if n.src != here.src {
		line += " of " + n.src.file
	}
	return line
}

// listen returns n as an address to listen on, as it is written.
func (d *decoder) listen(n *node) (string, endpoint, bool) {
	text, ok := d.text(n)
	if !ok {
		return "", endpoint{}, false
	}
	addr, m := parseListen(text)
	return text, addr, d.take(n, m)
}

// override puts the command line in the place of the file.
func (d *decoder) override(o Override) {
	if o.Admin != "" && o.Admin != "off" {
		d.failFlag("--admin", "the admin page is not in this version yet", "write --admin off or leave it out")
	}
	d.settings.Admin.Off = d.settings.Admin.Off || o.Admin != ""
	if o.Listen == "" {
		return
	}
	addr, m := parseListen(o.Listen)
	switch {
	case m != nil:
		d.failFlag("--listen", m.problem, m.hint)
	case len(d.listeners) > 1:
		d.failFlag("--listen", fmt.Sprintf("the file has %d listeners, and this is for the only one", len(d.listeners)), "change their addresses in the file")
	case len(d.listeners) == 1:
		d.settings.Listeners[0].Listen = o.Listen
		p := &d.listeners[0]
		p.addr, p.ok, p.flag = addr, true, true
	}
}

// endpoint is an address to listen on, taken apart.
type endpoint struct {
	name string     // a host name in lower case; empty for an IP address
	ip   netip.Addr // unmapped; unspecified where no host is written
	port uint16     // 0: any free one
}

// parseListen takes host:port apart. The host may be missing.
func parseListen(text string) (endpoint, *mistake) {
	if strings.HasPrefix(text, "udp/") {
		return endpoint{}, &mistake{"listening for UDP is not in this version yet", ""}
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return endpoint{}, noHostPort(text)
	}
	e := endpoint{ip: netip.IPv6Unspecified()}
	var ok bool
	if e.port, ok = parsePort(port); !ok {
		return endpoint{}, &mistake{quote(port) + " is not a port", "write a number from 0 to 65535; 0 is any free port"}
	}
	if host == "" {
		return e, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		e.ip = ip.Unmap()
		if ip.Is4() && strings.HasPrefix(text, "[") {
			return endpoint{}, &mistake{"brackets are for IPv6 addresses", "write " + host + ":" + port}
		}
		return e, nil
	}
	if endsInNumber(host) || strings.ContainsAny(host, ":/%") {
		return endpoint{}, notAnAddress(host)
	}
	name, m := parseHost(host)
	return endpoint{name: name, port: e.port}, m
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
func (e endpoint) everywhere() bool { return e.name == "" && e.ip.IsUnspecified() }

// loopback tells whether only this machine can connect.
func (e endpoint) loopback() bool {
	return e.name == "localhost" || e.name == "" && e.ip.IsLoopback()
}

// clashes tells whether not both can be listened on.
func (e endpoint) clashes(other endpoint) bool {
	if e.port != other.port || e.port == 0 {
		return false
	}
	return e.name == other.name && e.ip == other.ip || e.everywhere() || other.everywhere()
}
