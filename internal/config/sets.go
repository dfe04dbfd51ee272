package config

import "strings"

// setRef is a set that a rule names, with its @.
type setRef struct {
	at   *node
	from bool // it stands for clients, who have addresses and no names
}

// decodeSets fills in s.Sets.
func (d *decoder) decodeSets(n *node) {
	d.namedEntries(n, d.set)
}

func (d *decoder) set(key *node, name string, n *node) {
	d.entryName(key, "set", name)
	if n.kind != mapping {
		d.fail(n, "expected keys with values, found "+n.describe(), "write `hosts: FILE`, `prefixes: FILE`, or `entries: [...]` for what is not in a file")
		return
	}
	var s Set
	d.mapping(n, fields{
		"hosts":    func(v *node) { s.Hosts = d.paths(v) },
		"prefixes": func(v *node) { s.Prefixes = d.paths(v) },
		"entries":  func(v *node) { s.Entries = d.setEntries(v) },
	})
	if len(n.pairs) == 0 {
		d.fail(n, "the set is empty", "write `hosts: FILE`, `prefixes: FILE`, or `entries: [...]`")
	}
	d.settings.Sets[name] = s
}

// setEntries returns n as what belongs to a set without a file: host names and
// networks, and neither words nor sets.
func (d *decoder) setEntries(n *node) []Target {
	list := []Target{}
	d.eachOrNone(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		if strings.HasPrefix(text, "@") {
			d.fail(item, "a set cannot hold another one", "name both of them in the rule")
			return
		}
		target, m := parseTarget(text)
		if text == "*" {
			m.hint = "write the word any in the rule"
		}
		if m == nil && target.Word != "" {
			m = &mistake{"a set cannot hold the word " + quote(text), "write it in the rule, beside the set"}
		}
		if d.take(item, m) {
			list = append(list, target)
		}
	})
	return list
}

// setReferences checks the sets that rules name.
func (d *decoder) setReferences() {
	var all []*node
	for _, r := range d.setRefs {
		all = append(all, r.at)
		set, ok := d.settings.Sets[r.at.text[1:]]
		if ok && r.from && !set.HasNetworks() {
			d.fail(r.at, "the set "+quote(r.at.text)+" holds only host names, and a client has none", "give it `prefixes`, or networks in `entries`")
		}
	}
	exists(d, all, "set", d.settings.Sets)
}
