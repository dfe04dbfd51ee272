package config

import (
	"cmp"
	"fmt"
	"slices"
)

const maxVirtualPorts = 1000

// VirtualPort is a name that clients of ssh may offer a service under.
type VirtualPort struct {
	Name  string   // a host name in lower case without the trailing dot; unique, and no listener has it
	Users []string // who may offer it: names, "@group" (it exists), "any"; at least one
}

func (d *decoder) decodeVirtualPorts(n *node) {
	if len(n.items) > maxVirtualPorts {
		d.fail(n, fmt.Sprintf("over %d virtual ports", maxVirtualPorts), "")
		return
	}
	d.eachOrNone(n, d.decodeVirtualPort)
}

func (d *decoder) decodeVirtualPort(n *node) {
	var p VirtualPort
	var place listenerPlace
	var at []address
	before := len(d.faults) + d.unshown
	d.mapping(n, fields{
		"name": func(v *node) { place.name, p.Name = v, d.virtualName(v) },
		"users": func(v *node) {
			d.offerRefs = append(d.offerRefs, v)
			p.Users = d.users(v)
		},
		"listen": func(v *node) { at = d.addresses(v) },
	})
	if n.kind == mapping && !n.has("name") {
		d.fail(n, "the virtual port has no name", "write `name: intranet`")
	}
	if n.kind == mapping && !n.has("users") {
		d.fail(n, "nobody may offer the virtual port", "write `users: bob`: who may offer it, over ssh")
	}
	place.faulty = before != len(d.faults)+d.unshown
	d.settings.VirtualPorts = append(d.settings.VirtualPorts, p)
	switch {
	case p.Name == "": // a fault
	case len(at) > 0:
		d.visitors(p.Name, place, at)
	default:
		d.named[p.Name] = place.name
	}
}

// visitors adds the listeners that visitors of a virtual port come to: port mappings,
// to its name, one for connections and one for datagrams.
func (d *decoder) visitors(name string, place listenerPlace, at []address) {
	for _, udp := range []bool{false, true} {
		some := slices.DeleteFunc(slices.Clone(at), func(a address) bool { return a.udp != udp })
		if len(some) == 0 {
			continue
		}
		l := newListener()
		l.Name, l.Protocols = name, []string{mapped}
		l.Map = &Map{Choose: mapChoices().known[0], Targets: []MapTarget{{Host: name, Port: cmp.Or(some[0].port, 80)}}}
		if udp {
			l.Map.Idle = defaultUDPGap
			d.ownAddresses(some)
		}
		d.addListener(l, place, some)
		place.another = true
	}
}

// virtualName returns n as the name of a virtual port, which is one that a client
// can ask for as it asks for a host.
func (d *decoder) virtualName(n *node) string {
	text, ok := d.text(n)
	if !ok {
		return ""
	}
	name, m := parseHost(text)
	switch {
	case m != nil:
	case endsInNumber(name):
		m = &mistake{quote(text) + " would be taken for an address", "write a name such as intranet"}
	case name == "localhost":
		m = &mistake{"localhost is this machine", "write a name such as intranet"}
	default:
		m = almostWord(text)
	}
	if !d.take(n, m) {
		return ""
	}
	if first, taken := d.named[name]; taken {
		d.fail(n, "something is called "+quote(name)+" already", "it is "+otherListener(n, first))
		return ""
	}
	return name
}

// sshReferences checks what ssh needs of other sections.
func (d *decoder) sshReferences() {
	if d.usersSet {
		return
	}
	for _, n := range d.offerRefs {
		d.fail(n, "who offers a virtual port has to sign in, and there are no users", "write `users: {file: users}`; `sallyport user add NAME --file users` puts somebody into it")
	}
	for _, n := range d.keyRefs {
		if d.settings.Users.File == "" {
			d.fail(n, "the rule asks for a key, and there are no users", "write `users: {file: users}`; `sallyport user key NAME FILE` gives one of them a key")
		}
	}
}
