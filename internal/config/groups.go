package config

import "strings"

// decodeGroups fills in s.Groups. Any key is the name of a group.
func (d *decoder) decodeGroups(n *node) {
	known := fields{}
	for _, p := range n.pairs {
		name := p.key.text
		known[name] = func(v *node) { d.group(p.key, name, v) }
	}
	d.mapping(n, known)
}

func (d *decoder) group(key *node, name string, members *node) {
	switch {
	case name == "":
		d.fail(key, "a group without a name", "")
	case strings.HasPrefix(name, "@"):
		d.fail(key, "the name of a group starts with @ only where it is used", "write "+quote(name[1:])+" here")
	}
	list := []string{}
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

// user returns n as the name of a user, a group with its @, or the word any.
func (d *decoder) user(n *node) (string, bool) {
	name, ok := d.text(n)
	if ok && strings.Contains(name, "\x00") {
		d.fail(n, "the name of a user cannot hold a NUL byte", "")
		return "", false
	}
	return name, ok
}
