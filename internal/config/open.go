package config

import (
	"math"
	"net/netip"
	"slices"
)

// A proxy that serves everybody on a public address is found within hours and
// used to attack others. It takes one line to mean it, and none to be safe.

// openProxies refuses listeners that would serve everybody by accident.
func (d *decoder) openProxies() {
	for i, l := range d.settings.Listeners {
		p := d.listeners[i]
		// Behind a load balancer, who connects here is not who is served.
		// Through a port mapping nobody comes anywhere else.
		if !p.ok || p.further && p.listen == d.listeners[max(0, i-1)].listen || l.Map != nil || l.OpenToTheWorld || p.addr.loopback() && len(l.ProxyProtocol) == 0 {
			continue
		}
		open := slices.IndexFunc(d.openRules, func(r Rule) bool {
			return len(r.Listeners) == 0 || slices.Contains(r.Listeners, l.Name)
		})
		if open < 0 {
			continue
		}
		problem := quote(l.Listen) + " is open to the world: the rule " + quote(d.openRules[open].Name) + " does not limit who may use it"
		hint := "limit the rule with `from`, or with `proof: password`; if it is meant, write `open_to_the_world: true`"
		if p.flag {
			d.failFlag("--listen", problem, hint)
		} else {
			d.fail(p.listen, problem, hint)
		}
	}
}

// letsAnybodyIn tells whether the rule allows requests whoever sends them.
func (r Rule) letsAnybodyIn() bool {
	return !r.Deny && anywhere(r.From) && anyone(r.Users, r.Proof)
}

// anyone tells whether nothing is asked for that a stranger could not make up: a
// claimed name is only as good as no name, and neither is any name at all that
// the client's own machine confirms. That IDENT's word for a certain name is
// worth no more from a machine that nobody knows is for the documentation to say.
func anyone(users, proof []string) bool {
	if slices.Contains(proof, "claimed") {
		return true
	}
	named := len(users) > 0 && !slices.Contains(users, "any")
	return !named && (len(proof) == 0 || slices.Contains(proof, "ident"))
}

// anywhere tells whether the networks leave hardly anybody out.
func anywhere(from []Network) bool {
	if len(from) == 0 {
		return true
	}
	var prefixes []netip.Prefix
	for _, n := range from {
		if n.Word == "any" || n.Word == "internet" {
			return true
		}
		if n.Prefix.IsValid() {
			prefixes = append(prefixes, n.Prefix)
		}
	}
	return share(prefixes, netip.PrefixFrom(netip.IPv4Unspecified(), 0)) >= 0.5 ||
		share(prefixes, netip.MustParsePrefix("2000::/3")) >= 0.5
}

// share returns how much of the whole the parts cover, from 0 to 1.
func share(parts []netip.Prefix, whole netip.Prefix) float64 {
	var inside []netip.Prefix
	for _, p := range parts {
		switch {
		case !p.Overlaps(whole):
		case p.Bits() <= whole.Bits():
			return 1
		default:
			inside = append(inside, p)
		}
	}
	slices.SortFunc(inside, netip.Prefix.Compare) // of two that overlap, the larger comes first
	covered := 0.0
	var last netip.Prefix
	for _, p := range inside {
		if last.IsValid() && last.Overlaps(p) {
			continue
		}
		covered += math.Ldexp(1, whole.Bits()-p.Bits())
		last = p
	}
	return covered
}
