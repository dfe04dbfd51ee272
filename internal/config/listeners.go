package config

import (
	"fmt"
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

// listenerPlace is where the parts of a listener stand. A listener with several
// addresses is as many, of one name.
type listenerPlace struct {
	name, listen     *node    // nil: not written
	further          bool     // it is not the first of its name, or of a range of ports
	another          bool     // likewise: the first was added before
	addr             endpoint // of listen
	ok               bool     // addr is valid
	flag             bool     // addr comes from the command line
	hideSet, openSet bool     // the keys are there
	faulty           bool     // it has faults
}

func protocols() words {
	return words{what: "a protocol", known: append(defaultProtocols(), "ssh")}
}

// mapped is what a listener speaks that is a port mapping.
const mapped = "map"

// ruleProtocols are what rules can be about.
func ruleProtocols() words {
	w := protocols()
	w.known = append(w.known, mapped)
	return w
}

// defaultProtocols are those of a listener that does not say: all but ssh.
func defaultProtocols() []string { return []string{"socks4", "socks4a", "socks5", "http"} }

func newListener() Listener {
	return Listener{Protocols: defaultProtocols(), UserIDMax: defaultUserIDMax}
}

// defaultListener is there when the file has no listeners.
func (d *decoder) defaultListener() {
	l := newListener()
	l.Name, l.Listen = "default", "127.0.0.1:1080"
	addr, m := parseListen(l.Listen)
	d.settings.Listeners = append(d.settings.Listeners, l)
	d.listeners = append(d.listeners, listenerPlace{addr: addr, ok: m == nil})
	d.named[l.Name] = nil
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
	var at []address
	before, refs := len(d.faults)+d.unshown, len(d.mapRefs)
	d.mapping(n, fields{
		"name":              func(v *node) { p.name = v; l.Name, _ = d.text(v) },
		"listen":            func(v *node) { at = d.addresses(v) },
		"protocols":         func(v *node) { l.Protocols = d.wordList(v, protocols()) },
		"advertise":         func(v *node) { l.Advertise, _ = d.address(v) },
		"bind_ports":        func(v *node) { l.BindPorts, _ = d.ports(v, lowestBindPort) },
		"hide_address":      func(v *node) { p.hideSet, l.HideAddress = true, d.bool(v) },
		"open_to_the_world": func(v *node) { p.openSet, l.OpenToTheWorld = true, d.bool(v) },
		"tls":               func(v *node) { l.TLS = d.tls(v) },
		"during":            func(v *node) { l.During = d.scheduleName(v) },
		"proxy_protocol":    func(v *node) { l.ProxyProtocol = d.balancers(v) },
		"map":               func(v *node) { l.Map = d.portMapping(v) },
		"userid_max": func(v *node) {
			if most, ok := d.number(v, 1, maxUserIDMax); ok {
				l.UserIDMax = most
			}
		},
	})
	if n.kind == mapping && !n.has("listen") {
		d.fail(n, "the listener has no address", "write `listen: 127.0.0.1:1080`")
	}
	d.asMapping(n, &l, at, d.mapRefs[refs:])
	p.faulty = before != len(d.faults)+d.unshown
	if len(at) == 0 { // a fault, which the rest of the file is not to suffer for
		at = []address{{}}
	}
	if !n.has("name") {
		l.Name = at[0].text
	}
	d.addListener(l, p, at)
}

// address is one that a listener has.
type address struct {
	at   *node
	text string // as written
	endpoint
}

// addresses returns n as the addresses of a listener.
func (d *decoder) addresses(n *node) []address {
	var all []address
	d.each(n, func(item *node) {
		if text, e, ok := d.listen(item); ok {
			all = append(all, address{item, text, e})
		} else {
			all = append(all, address{at: item})
		}
	})
	return all
}

// addListener adds a listener for each of its addresses.
func (d *decoder) addListener(l Listener, p listenerPlace, at []address) {
	for i, a := range at {
		if len(d.listeners)+a.count() > maxListeners {
			d.fail(a.at, fmt.Sprintf("over %d listeners, a range of ports counted as many", maxListeners), "")
			return
		}
		texts, parts := a.parts(a.text)
		for j := range parts {
			p.listen, p.addr, p.ok = a.at, parts[j], a.text != ""
			p.further = p.another || i+j > 0
			l.Listen = texts[j]
			d.unlikeOthers(l.Name, p)
			part := l
			part.Map = l.Map.part(j)
			d.settings.Listeners = append(d.settings.Listeners, part)
			d.listeners = append(d.listeners, p)
		}
	}
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
	if clash >= 0 && !d.clashed[p.listen] { // of a range of ports one is told of
		d.clashed[p.listen] = true
		d.fail(p.listen, "two listeners on the same address", "the other one is "+otherListener(p.listen, d.listeners[clash].listen))
	}
	at := p.name
	if at == nil {
		at = p.listen // which the name is taken from
	}
	first, taken := d.named[name]
	switch {
	case p.further, name == "" || clash >= 0 && p.name == nil: // it has its name from the first, or that is said already
	case taken:
		d.fail(at, "two listeners are called "+quote(name), "the other one is "+otherListener(at, first))
	default:
		d.named[name] = at
	}
}

// otherListener says which listener stands at n, to who is at here. That at nil is
// there without being written.
func otherListener(here, n *node) string {
	if n == nil {
		return "the usual one, 127.0.0.1:1080, which is there where no `listeners` are written"
	}
	return "in " + placeFrom(here, n)
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
	if _, isSocket := strings.CutPrefix(text, socketSign); isSocket {
		path, ok := d.unixSocket(n, text)
		return socketSign + path, endpoint{socket: path}, ok
	}
	addr, m := parseListen(text)
	return text, addr, d.take(n, m)
}

// override puts the command line in the place of the file.
func (d *decoder) override(o Override) {
	if o.Admin != "" {
		d.overrideAdmin(o.Admin)
	}
	if o.Listen == "" {
		return
	}
	addr, m := parseListen(o.Listen)
	switch {
	case m != nil:
		d.failFlag("--listen", m.problem, m.hint)
	case addr.udp || addr.last != 0:
		d.failFlag("--listen", "the address must be one, of TCP", "write what else there is into the file")
	case len(d.listeners) > 1:
		d.failFlag("--listen", fmt.Sprintf("the file has %d listeners, and this is for the only one", len(d.listeners)), "change their addresses in the file")
	case len(d.listeners) == 1:
		d.settings.Listeners[0].Listen = o.Listen
		p := &d.listeners[0]
		p.addr, p.ok, p.flag = addr, true, true
	}
}
