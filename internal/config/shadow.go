package config

import (
	"net/netip"
	"slices"
	"strings"
)

// A rule that can never match is most often one that stands in the wrong place,
// and who wrote it believes in it. What is said here to be so is so for every
// request: where that is not certain, nothing is said.

// maxCovering bounds the work of comparing rules with each other: networks,
// targets, names and ports that are compared. Beyond it no more rules are found.
const maxCovering = 50_000_000

// neverMatching notes the rules that can never match.
func (d *decoder) neverMatching() {
	spoken := d.spoken()
	c := covering{budget: maxCovering}
	for i := range d.settings.Rules {
		later, place := &d.settings.Rules[i], &d.rules[i]
		if place.faulty {
			continue
		}
		if at, m := later.contradiction(spoken, place); m != nil {
			d.fail(at, m.problem, m.hint)
			place.faulty = true
		}
		for j := 0; j < i && !place.faulty; j++ {
			if d.rules[j].faulty || !c.covers(&d.settings.Rules[j], later) {
				continue
			}
			earlier := quote(d.settings.Rules[j].Name)
			d.fail(place.name, "the rule "+quote(later.Name)+" can never match: whatever it matches, "+earlier+" matches first",
				earlier+" is in "+placeFrom(place.name, d.rules[j].name)+"; put it behind this one, or take one of them out")
			place.faulty = true
		}
	}
}

// spoken returns the protocols of each listener, and under "" those of all. Nil:
// it is not known, for a listener has faults.
func (d *decoder) spoken() map[string][]string {
	list := map[string][]string{}
	for i, l := range d.settings.Listeners {
		if d.listeners[i].faulty {
			return nil
		}
		list[l.Name] = l.Protocols
		list[""] = append(list[""], l.Protocols...)
	}
	return list
}

// contradiction tells which condition of the rule excludes another, and how; a
// nil mistake: none does. The protocols of each listener are in spoken.
func (r *Rule) contradiction(spoken map[string][]string, p *rulePlace) (*node, *mistake) {
	there := spoken[""]
	if len(there) == 0 {
		return nil, nil
	}
	if len(r.Listeners) > 0 {
		there = nil
		for _, name := range r.Listeners {
			if spoken[name] == nil {
				return nil, nil // there is no such listener, which is said elsewhere
			}
			there = append(there, spoken[name]...)
		}
	}
	var could []string // the protocols of the requests that the rule may match
	for _, protocol := range ruleProtocols().known {
		if slices.Contains(there, protocol) && (len(r.Protocols) == 0 || slices.Contains(r.Protocols, protocol)) {
			could = append(could, protocol)
		}
	}
	all := strings.Join(could, ", ")
	switch {
	case len(could) == 0:
		return p.protocols, &mistake{"the rule can never match: no listener of it speaks this", "let one speak it, or take the rule out"}
	case !anyPair(r.Commands, could, hasCommand):
		return p.commands, &mistake{"the rule can never match: no protocol of it has this command", "bind is a command of socks4, socks4a, socks5 and ssh, udp of socks5 and map; this rule is for " + all}
	case !anyPair(r.Proof, could, showsProof):
		return p.proof, &mistake{"the rule can never match: no protocol of it shows this", "a password is shown by socks5, http and ssh, a key by ssh, a claimed userid by socks4 and socks4a; this rule is for " + all}
	}
	return nil, nil
}

// anyPair tells whether one of the words goes with one of the protocols. No word
// stands for all of them.
func anyPair(some, protocols []string, goes func(word, protocol string) bool) bool {
	return len(some) == 0 || slices.ContainsFunc(some, func(word string) bool {
		return slices.ContainsFunc(protocols, func(protocol string) bool { return goes(word, protocol) })
	})
}

func hasCommand(command, protocol string) bool {
	switch command {
	case "bind":
		return protocol != "http" && protocol != mapped
	case "udp":
		return protocol == "socks5" || protocol == mapped
	}
	return true
}

func showsProof(proof, protocol string) bool {
	bySOCKS4 := protocol == "socks4" || protocol == "socks4a"
	switch proof {
	case "password":
		return !bySOCKS4 && protocol != mapped
	case "claimed":
		return bySOCKS4
	case "key":
		return protocol == "ssh"
	}
	return true
}

// covering compares rules.
type covering struct{ budget int }

// covers tells whether a matches every request that b matches. False may also
// mean that it is not certain.
func (c *covering) covers(a, b *Rule) bool {
	return (a.During == "" || a.During == b.During) &&
		c.allOf(a.Listeners, b.Listeners) && c.allOf(a.Protocols, b.Protocols) && c.allOf(a.Commands, b.Commands) &&
		coversBind(a, b) && c.coversUsers(a, b) && c.coversPorts(a.Ports, b.Ports) &&
		c.coversClients(a.From, b.From) && c.coversTargets(a, b)
}

// spend takes n from what may be compared, and tells whether there was as much.
func (c *covering) spend(n int) bool {
	c.budget -= n
	return c.budget >= 0
}

// allOf tells whether the condition a holds for all of b. An empty one is for
// everything.
func (c *covering) allOf(a, b []string) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 || !c.spend(len(a)*len(b)) {
		return false
	}
	return !slices.ContainsFunc(b, func(s string) bool { return !slices.Contains(a, s) })
}

// coversBind looks at a BIND for whoever connects: a rule that allows it is not
// asked where to.
func coversBind(a, b *Rule) bool {
	isBind := len(b.Commands) == 0 || slices.Contains(b.Commands, "bind")
	anyPeer := func(r *Rule) bool { return r.Bind.AnyPeer && !r.Deny }
	return !isBind || !anyPeer(b) || anyPeer(a) || slices.Contains(a.To, Target{Word: "any"})
}

// coversUsers tells whether whoever b is for is one that a is for. What a rule
// asks of clients who have shown nothing, identd above all, follows from its
// proofs as a whole: only rules with the same ones are compared. A rule that
// denies whom identd names says nothing of the rest, and a later one that allows
// tells them that it is IDENT what they lack.
func (c *covering) coversUsers(a, b *Rule) bool {
	if len(a.Users) == 0 && len(a.Proof) == 0 {
		return true
	}
	if len(b.Users) == 0 && len(b.Proof) == 0 || a.Deny && !b.Deny || a.neverAsks() != b.neverAsks() {
		return false
	}
	if !c.allOf(a.takes(), b.takes()) || !c.allOf(b.takes(), a.takes()) {
		return false
	}
	return slices.Contains(a.Users, "any") || c.allOf(a.Users, b.Users)
}

// neverAsks tells whether the rule is about clients who have shown a name only.
func (r *Rule) neverAsks() bool { return r.Deny && len(r.Proof) == 0 }

// takes returns the proofs that the rule is content with.
func (r *Rule) takes() []string {
	switch {
	case len(r.Proof) > 0:
		return r.Proof
	case r.Deny:
		return proofs().known
	}
	return slices.DeleteFunc(proofs().known, func(p string) bool { return p == "claimed" })
}

// coversPorts tells whether every port of b is one of a.
func (c *covering) coversPorts(a, b []PortRange) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 {
		b = []PortRange{{1, 65535}}
	}
	if !c.spend(len(a) * len(b)) {
		return false
	}
	return !slices.ContainsFunc(b, func(p PortRange) bool {
		return !slices.ContainsFunc(a, func(q PortRange) bool { return q.First <= p.First && p.Last <= q.Last })
	})
}

func (c *covering) coversClients(a, b []Network) bool {
	if len(a) == 0 || slices.Contains(a, Network{Word: "any"}) {
		return true
	}
	if len(b) == 0 || !c.spend(len(a)*len(b)) {
		return false
	}
	return !slices.ContainsFunc(b, func(n Network) bool {
		return !slices.ContainsFunc(a, func(m Network) bool { return m == n || within(m.Prefix, n.Prefix) })
	})
}

// coversTargets compares where requests go. What a name stands for depends on
// whether the rule allows or denies.
func (c *covering) coversTargets(a, b *Rule) bool {
	if slices.Contains(a.To, Target{Word: "any"}) {
		return true
	}
	if !c.spend(len(a.To) * len(b.To)) {
		return false
	}
	return !slices.ContainsFunc(b.To, func(t Target) bool {
		return !slices.ContainsFunc(a.To, func(s Target) bool { return coversTarget(s, t, a.Deny == b.Deny) })
	})
}

func coversTarget(a, b Target, alike bool) bool {
	switch {
	case a.Prefix.IsValid():
		return within(a.Prefix, b.Prefix)
	case a == b:
		return alike || a.Word != ""
	case a.Suffix && b.Name != "":
		return alike && strings.HasSuffix(b.Name, "."+a.Name)
	}
	return false
}

// within tells whether a holds all of b.
func within(a, b netip.Prefix) bool {
	return a.IsValid() && b.IsValid() && a.Bits() <= b.Bits() && a.Contains(b.Addr())
}
