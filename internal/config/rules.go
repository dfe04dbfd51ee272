package config

import (
	"net"
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
}

func (d *decoder) decodeRules(n *node) {
	d.eachOrNone(n, d.decodeRule)
}

func (d *decoder) decodeRule(n *node) {
	var r Rule
	var named *node
	before := len(d.faults) + d.unshown
	name := func(deny bool) func(*node) {
		return func(v *node) {
			if named != nil {
				d.fail(v, "a rule either allows or denies", "keep one of `allow` and `deny`")
				return
			}
			named, r.Deny = v, deny
			r.Name, _ = d.text(v)
		}
	}
	d.mapping(n, fields{
		"allow":     name(false),
		"deny":      name(true),
		"listeners": func(v *node) { r.Listeners = d.listenerNames(v) },
		"protocols": func(v *node) { r.Protocols = d.wordList(v, protocols()) },
		"commands": func(v *node) {
			r.Commands = d.wordList(v, words{what: "a command", known: []string{"connect", "bind", "udp"}})
		},
		"from":     func(v *node) { r.From = d.networks(v) },
		"users":    func(v *node) { r.Users = d.users(v) },
		"proof":    func(v *node) { r.Proof = d.proofs(v) },
		"to":       func(v *node) { r.To = d.targets(v) },
		"ports":    func(v *node) { r.Ports = d.portList(v) },
		"bind":     func(v *node) { r.Bind = d.bindTerms(v) },
		"via":      func(v *node) { r.Via = d.via(v) },
		"outgoing": func(v *node) { r.Outgoing, _ = d.address(v) },
	}, "during", "limits")
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
	if first, taken := d.ruleNames[r.Name]; taken {
		d.fail(named, "two rules are called "+quote(r.Name), "the other one is in line "+d.lineOf(first))
	} else if r.Name != "" {
		d.ruleNames[r.Name] = named
	}
	d.settings.Rules = append(d.settings.Rules, r)
	if before == len(d.faults)+d.unshown && r.letsAnybodyIn() {
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

// waysOut refuses a rule that denies and says how to leave.
func (d *decoder) waysOut(n *node, r Rule) {
	for _, p := range n.pairs {
		if r.Deny && (p.key.text == "via" || p.key.text == "outgoing") {
			d.fail(p.key, "a rule that denies lets nothing out, by whatever way", "leave "+quote(p.key.text)+" out")
		}
	}
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
		word, ok := d.word(item, words{what: "a proof", known: []string{"claimed", "ident", "password", "certificate", "key"}})
		if !ok {
			return
		}
		if word == "password" {
			d.passwordRefs = append(d.passwordRefs, item)
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
			word, _ := d.word(v, words{what: "a word for `primary`", known: []string{"required", "optional"}})
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

// parseNetwork reads an entry of `from`.
func parseNetwork(text string) (Network, *mistake) {
	if slices.Contains(placeWords(), text) {
		return Network{Word: text}, nil
	}
	prefix, m := parsePrefix(text)
	if m == nil {
		return Network{Prefix: prefix}, nil
	}
	if strings.HasPrefix(text, "@") {
		return Network{}, &mistake{"sets are not in this version yet", "write the networks out"}
	}
	if near := nearest(text, placeWords()); near != "" && !strings.ContainsAny(text, ".:/") {
		m.hint = "did you mean " + quote(near) + "?"
	} else if _, notHost := parseHost(text); notHost == nil && !endsInNumber(text) {
		m.hint = "what can stand here are addresses, networks, and the words " + strings.Join(placeWords(), ", ")
	}
	return Network{}, m
}

func (d *decoder) targets(n *node) []Target {
	var list []Target
	d.each(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		target, m := parseTarget(text)
		if d.take(item, m) {
			list = append(list, target)
		}
	})
	return list
}

// parseTarget reads an entry of `to`.
func parseTarget(text string) (Target, *mistake) {
	if slices.Contains(placeWords(), text) {
		return Target{Word: text}, nil
	}
	if strings.HasPrefix(text, "@") {
		return Target{}, &mistake{"sets are not in this version yet", "write the targets out"}
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
