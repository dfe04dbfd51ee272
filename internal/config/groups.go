package config

import "strings"

// decodeGroups fills in s.Groups.
func (d *decoder) decodeGroups(n *node) {
	d.namedEntries(n, d.group)
}

// namedEntries decodes a mapping whose keys are names that who writes it has
// chosen.
func (d *decoder) namedEntries(n *node, entry func(key *node, name string, value *node)) {
	if n.kind != mapping {
		d.fail(n, "expected names with values, found "+n.describe(), "write a name of your own, a colon, and behind it what it stands for")
		return
	}
	known := fields{}
	for _, p := range n.pairs {
		name := p.key.text
		if _, twice := known[name]; !twice {
			known[name] = func(v *node) { entry(p.key, name, v) }
		}
	}
	d.mapping(n, known)
}

func (d *decoder) group(key *node, name string, members *node) {
	d.entryName(key, "group", name)
	list := []string{}
	if members.kind == mapping {
		d.settings.Groups[name] = list
		d.ledgerGroup(name, members)
		return
	}
	d.eachOrNone(members, func(item *node) {
		user, ok := d.user(item)
		switch {
		case !ok:
		case user == "any" || strings.HasPrefix(user, "@"):
			d.fail(item, quote(user)+" cannot be in a group", "a group holds the names of users")
		default:
			list = append(list, user)
		}
	})
	d.settings.Groups[name] = list
}

// ledgerGroup is a group whose members the ledger has.
func (d *decoder) ledgerGroup(name string, n *node) {
	d.mapping(n, fields{"ledger": func(v *node) {
		if d.inLedger(v) {
			d.settings.LedgerGroups = append(d.settings.LedgerGroups, name)
		}
	}})
	if !n.has("ledger") {
		d.fail(n, "the group has no members", "write names: `[alice, bob]`, or `{ledger: true}` if the ledger has them")
	}
}

// entryName checks the name of something that is written elsewhere with an @, as
// groups and sets are.
func (d *decoder) entryName(key *node, what, name string) {
	switch {
	case name == "":
		d.fail(key, "a "+what+" without a name", "")
	case strings.HasPrefix(name, "@"):
		d.fail(key, "the name of a "+what+" starts with @ only where it is used", "write "+quote(name[1:])+" here")
	}
}

// user returns n as the name of a user, a group with its @, or the word any.
func (d *decoder) user(n *node) (string, bool) {
	name, ok := d.text(n)
	if ok && strings.Contains(name, "\x00") {
		d.fail(n, "the name of a user cannot hold a NUL byte", "")
		return "", false
	}
	return name, ok
}
