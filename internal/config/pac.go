package config

import "strconv"

// mostDirect is how many entries `pac: {direct: ...}` may have: browsers read them all
// for each page.
const mostDirect = 1000

// decodePAC takes off or the keys.
func (d *decoder) decodePAC(n *node) {
	p := &d.settings.PAC
	switch {
	case n.isOff():
		p.Off = true
		return
	case n.kind == scalar:
		d.fail(n, "expected off or keys with values, found "+n.describe(), "write `pac: off` or `pac: {direct: [private, \"*.corp.example\"]}`")
		return
	}
	d.mapping(n, fields{"direct": d.decodeDirect})
	if n.kind == mapping && !n.has("direct") {
		d.fail(n, "`direct` is missing", "write `pac: {direct: private}`, or leave `pac` out")
	}
}

// decodeDirect reads what browsers reach directly.
func (d *decoder) decodeDirect(n *node) {
	p := &d.settings.PAC
	p.Written = true
	if len(n.items) > mostDirect {
		d.fail(n, "over "+strconv.Itoa(mostDirect)+" entries, which browsers read for each page", "a suffix such as *.example.com or a network stands for many")
		return
	}
	d.eachOrNone(n, func(item *node) {
		text, ok := d.text(item)
		if !ok {
			return
		}
		target, m := directTarget(text)
		switch {
		case !d.take(item, m):
		case target.Word == "private":
			p.Private = true
		default:
			p.Direct = append(p.Direct, target)
		}
	})
}

// directTarget reads one entry.
func directTarget(text string) (Target, *mistake) {
	const can = "what can stand here are host names, *.suffixes, networks and the word private"
	if len(text) > 0 && text[0] == '@' {
		return Target{}, &mistake{"a set cannot stand here: browsers would have to read all of it", can}
	}
	target, m := parseTarget(text)
	switch {
	case m != nil:
		return target, m
	case target.Word == "loopback":
		return target, &mistake{"a browser always reaches its own machine directly", "leave loopback out"}
	case target.Word != "" && target.Word != "private":
		return target, &mistake{quote(text) + " would leave the proxy nothing to do", can + "; `pac: off` has no file at all"}
	}
	return target, nil
}
