package config

import (
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// defaultRule is there when the file has no rules.
func (d *decoder) defaultRule() {
	d.settings.Rules = append(d.settings.Rules, Rule{
		Name: "this machine",
		From: []Network{{Word: "loopback"}},
		To:   []Target{{Word: "any"}},
	})
	d.rules = append(d.rules, rulePlace{})
}

// rulePlace is where the parts of a rule stand that are looked at when all is
// read.
type rulePlace struct {
	name                 *node // nil: not written
	listeners, protocols *node // the same
	commands, proof      *node // the same
	faulty               bool  // it has faults already
}

func (d *decoder) decodeRules(n *node) {
	d.eachOrNone(n, d.decodeRule)
}

func (d *decoder) decodeRule(n *node) {
	var r Rule
	var p rulePlace
	before := len(d.faults) + d.unshown
	name := func(deny bool) func(*node) {
		return func(v *node) {
			if p.name != nil {
				d.fail(v, "a rule either allows or denies", "keep one of `allow` and `deny`")
				return
			}
			p.name, r.Deny = v, deny
			r.Name, _ = d.text(v)
		}
	}
	d.mapping(n, fields{
		"allow":     name(false),
		"deny":      name(true),
		"listeners": func(v *node) { p.listeners, r.Listeners = v, d.listenerNames(v) },
		"protocols": func(v *node) { p.protocols, r.Protocols = v, d.wordList(v, ruleProtocols()) },
		"commands":  func(v *node) { p.commands, r.Commands = v, d.wordList(v, commands()) },
		"from":      func(v *node) { r.From = d.clients(v) },
		"users":     func(v *node) { r.Users = d.users(v) },
		"proof":     func(v *node) { p.proof, r.Proof = v, d.proofs(v) },
		"to":        func(v *node) { r.To = d.targets(v) },
		"ports":     func(v *node) { r.Ports = d.portList(v) },
		"during":    func(v *node) { r.During = d.scheduleName(v) },
		"limits":    func(v *node) { r.Limits = d.limitNames(v) },
		"via":       func(v *node) { r.Via = d.via(v) },
		"outgoing":  func(v *node) { d.outgoing(v, &r) },
		"mark":      func(v *node) { r.Mark = d.mark(v) },
		"bind":      func(v *node) { r.Bind = d.bindTerms(v) },
	})
	d.waysOut(n, r)
	if n.kind == mapping && !n.has("allow") && !n.has("deny") {
		d.fail(n, "the rule neither allows nor denies", "write `allow: NAME` or `deny: NAME`")
	}
	if !n.has("to") {
		r.To = []Target{{Word: "internet"}}
		if r.Deny { // silence is taken on the safe side
			r.To = []Target{{Word: "any"}}
		}
	}
	d.nameRule(r.Name, p.name)
	p.faulty = before != len(d.faults)+d.unshown
	d.settings.Rules = append(d.settings.Rules, r)
	d.rules = append(d.rules, p)
	if !p.faulty && r.letsAnybodyIn() {
		d.openRules = append(d.openRules, r)
	}
}

func (d *decoder) via(n *node) string {
	name, ok := d.text(n)
	if ok {
		d.upstreamRefs = append(d.upstreamRefs, n)
	}
	return name
}

// maxInterface is the longest name that Linux has for an interface, in bytes.
const maxInterface = 15

// outgoing takes n as the address or the interface to leave by.
func (d *decoder) outgoing(n *node, r *Rule) {
	isName := beginsWithLetter(n.text) && len(n.text) <= maxInterface && !strings.ContainsAny(n.text, ":/ \t\n\x00%")
	if _, err := netip.ParseAddr(n.text); n.kind == scalar && isName && err != nil {
		r.Interface, _ = d.text(n)
		return
	}
	r.Outgoing, _ = d.address(n)
}

func (d *decoder) mark(n *node) uint32 {
	value, _ := d.number(n, 1, math.MaxInt32)
	return uint32(value)
}

// waysOut refuses a rule that denies and says how to leave.
func (d *decoder) waysOut(n *node, r Rule) {
	for _, p := range n.pairs {
		if r.Deny && (p.key.text == "via" || p.key.text == "outgoing" || p.key.text == "mark") {
			d.fail(p.key, "a rule that denies lets nothing out, by whatever way", "leave "+quote(p.key.text)+" out")
		}
	}
}

// nameRule checks that no other rule has the name.
func (d *decoder) nameRule(name string, at *node) {
	if first, taken := d.ruleNames[name]; taken {
		d.fail(at, "two rules are called "+quote(name), "the other one is in "+placeFrom(at, first))
	} else if name != "" {
		d.ruleNames[name] = at
	}
}

func commands() words {
	return words{what: "a command", known: []string{"connect", "bind", "udp"}}
}

func proofs() words {
	return words{what: "a proof", known: []string{"claimed", "ident", "password", "certificate", "key"}}
}

func primaries() words {
	return words{what: "a word for `primary`", known: []string{"required", "optional"}}
}

func (d *decoder) listenerNames(n *node) []string {
	var list []string
	d.each(n, func(item *node) {
		if name, ok := d.text(item); ok {
			d.listenerRefs = append(d.listenerRefs, item)
			list = append(list, name)
		}
	})
	return list
}

func (d *decoder) users(n *node) []string {
	var list []string
	d.each(n, func(item *node) {
		name, ok := d.user(item)
		if !ok {
			return
		}
		if strings.HasPrefix(name, "@") {
			d.groupRefs = append(d.groupRefs, item)
		}
		list = append(list, name)
	})
	return list
}

func (d *decoder) proofs(n *node) []string {
	var list []string
	d.each(n, func(item *node) {
		word, ok := d.word(item, proofs())
		if !ok {
			return
		}
		if word == "password" {
			d.passwordRefs = append(d.passwordRefs, item)
		}
		if word == "key" {
			d.keyRefs = append(d.keyRefs, item)
		}
		list = append(list, word)
	})
	return list
}

func (d *decoder) portList(n *node) []PortRange {
	var list []PortRange
	d.each(n, func(item *node) {
		if ports, ok := d.ports(item, 1); ok {
			list = append(list, ports)
		}
	})
	return list
}

func (d *decoder) bindTerms(n *node) Bind {
	var b Bind
	d.mapping(n, fields{
		"primary": func(v *node) {
			word, _ := d.word(v, primaries())
			b.PrimaryOptional = word == "optional"
		},
		"any_peer":            func(v *node) { b.AnyPeer = d.bool(v) },
		"wait_for_right_peer": func(v *node) { b.WaitForRightPeer = d.bool(v) },
	})
	return b
}

func (d *decoder) networks(n *node) []Network {
	var list []Network
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		network, m := parseNetwork(text)
		if d.take(item, m) {
			list = append(list, network)
		}
	})
	return list
}

// clients returns n as what can stand in `from`: networks and sets.
func (d *decoder) clients(n *node) []Network {
	return places(d, n, true, func(set string) Network { return Network{Set: set} }, parseNetwork)
}

// targets returns n as what can stand in `to`: networks, names and sets.
func (d *decoder) targets(n *node) []Target {
	return places(d, n, false, func(set string) Target { return Target{Set: set} }, parseTarget)
}

// places returns a list in which sets may stand beside what parse reads. In a set for `from` no host names can be.
func places[T any](d *decoder, n *node, from bool, set func(name string) T, parse func(text string) (T, *mistake)) []T {
	var list []T
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		if name, isSet := strings.CutPrefix(text, "@"); isSet {
			d.setRefs = append(d.setRefs, setRef{item, from})
			list = append(list, set(name))
			return
		}
		place, m := parse(text)
		if d.take(item, m) {
			list = append(list, place)
		}
	})
	return list
}

// parseNetwork reads an entry of `from` that is no set.
func parseNetwork(text string) (Network, *mistake) {
	if slices.Contains(placeWords(), text) {
		return Network{Word: text}, nil
	}
	prefix, m := parsePrefix(text)
	if m == nil {
		return Network{Prefix: prefix}, nil
	}
	if strings.HasPrefix(text, "@") {
		return Network{}, &mistake{"a set cannot stand here", "write the networks out"}
	}
	if near := nearest(text, placeWords()); near != "" && !strings.ContainsAny(text, ".:/") {
		m.hint = "did you mean " + quote(near) + "?"
	} else if _, notHost := parseHost(text); notHost == nil && !endsInNumber(text) {
		m.hint = "what can stand here are addresses, networks, and the words " + strings.Join(placeWords(), ", ")
	}
	return Network{}, m
}

// parseTarget reads an entry of `to` that is no set.
func parseTarget(text string) (Target, *mistake) {
	if slices.Contains(placeWords(), text) {
		return Target{Word: text}, nil
	}
	if strings.Contains(text, "://") {
		return Target{}, &mistake{quote(text) + " is a URL", "write only the host name"}
	}
	if strings.ContainsAny(text, ":/") || endsInNumber(text) {
		return addressTarget(text)
	}
	suffix, below := strings.CutPrefix(text, "*.")
	name, m := parseHost(suffix)
	switch {
	case text == "*":
		m.hint = "write any"
	case m != nil && strings.Contains(suffix, "*"):
		m = &mistake{quote(text) + " has a * in a place where it cannot be", "write *.example.com for all names below example.com"}
	case m == nil && !below && !strings.Contains(text, "."):
		m = almostWord(text)
	}
	if m != nil {
		return Target{}, m
	}
	return Target{Name: name, Suffix: below}, nil
}

// addressTarget reads what can only be an address or a network.
func addressTarget(text string) (Target, *mistake) {
	prefix, m := parsePrefix(text)
	if m == nil {
		return Target{Prefix: prefix}, nil
	}
	if host, port, err := net.SplitHostPort(text); err == nil && host != "" {
		if _, ok := parsePort(port); ok {
			m = &mistake{quote(text) + " holds a port", "write " + quote(host) + " here, and the port in `ports`"}
		}
	}
	return Target{}, m
}

// almostWord refuses a host name that is most likely a mistyped word: a rule
// that denies "privat" would deny next to nothing.
func almostWord(text string) *mistake {
	for _, word := range placeWords() {
		slip := distance(strings.ToLower(text), word)
		if slip == 0 || slip == 1 && len(word) > 3 {
			return &mistake{quote(text) + " is not one of the words " + strings.Join(placeWords(), ", "), "did you mean " + quote(word) + "? A host of this name is written " + quote(text+".")}
		}
	}
	return nil
}
