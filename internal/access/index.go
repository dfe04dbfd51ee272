package access

import (
	"cmp"
	mathbits "math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
)

// bits is a set of rules, by their places in the list.
type bits []uint64

func newBits(rules int) bits { return make(bits, (rules+63)/64) }

func (b bits) set(rule int)      { b[rule/64] |= 1 << (rule % 64) }
func (b bits) clear(rule int)    { b[rule/64] &^= 1 << (rule % 64) }
func (b bits) has(rule int) bool { return b[rule/64]&(1<<(rule%64)) != 0 }

func (b bits) and(other bits) {
	for i, w := range other[:len(b)] {
		b[i] &= w
	}
}

func (b bits) or(other bits) {
	for i, w := range other[:len(b)] {
		b[i] |= w
	}
}

// each goes through the rules in their order.
func (b bits) each(yield func(rule int) bool) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			if !yield(i*64 + mathbits.TrailingZeros64(w)) {
				return
			}
		}
	}
}

// group is a set of rules that have something in common: a list where they are
// few, so that ten thousand groups of one need no memory to speak of.
type group struct {
	few  []uint32
	many bits
}

// newGroup takes places in ascending order, each once.
func newGroup(places []uint32, rules int) group {
	if len(places) < rules/16 || rules < 64 {
		return group{few: places}
	}
	many := newBits(rules)
	group{few: places}.addTo(many)
	return group{many: many}
}

func (g group) addTo(b bits) {
	for _, place := range g.few {
		b.set(int(place))
	}
	if g.many != nil {
		b.or(g.many)
	}
}

// meets reports whether one of the rules is in b.
func (g group) meets(b bits) bool {
	for _, place := range g.few {
		if b.has(int(place)) {
			return true
		}
	}
	for i, w := range g.many {
		if w&b[i] != 0 {
			return true
		}
	}
	return false
}

// keyed finds the rules that have a condition on something by its value.
type keyed[K comparable] struct {
	silent bits // the rules that do not have the condition
	by     map[K]group
}

// newKeyed takes what each rule lists; nothing is no condition.
func newKeyed[K comparable](rules int, listed func(rule int) []K) keyed[K] {
	k, places := keyed[K]{silent: newBits(rules)}, map[K][]uint32{}
	for rule := range rules {
		values := listed(rule)
		if len(values) == 0 {
			k.silent.set(rule)
		}
		addPlaces(places, values, rule)
	}
	k.by = groups(places, rules)
	return k
}

// addPlaces notes a rule under each value, once. Rules come in their order.
func addPlaces[K comparable](places map[K][]uint32, values []K, rule int) {
	for _, v := range values {
		if all := places[v]; len(all) == 0 || all[len(all)-1] != uint32(rule) {
			places[v] = append(all, uint32(rule))
		}
	}
}

func groups[K comparable](places map[K][]uint32, rules int) map[K]group {
	by := make(map[K]group, len(places))
	for value, all := range places {
		by[value] = newGroup(all, rules)
	}
	return by
}

// narrow takes the rules out of candidates that are about other values.
func (k *keyed[K]) narrow(candidates, scratch bits, value K) {
	if len(k.by) == 0 {
		return
	}
	copy(scratch, k.silent)
	k.by[value].addTo(scratch)
	candidates.and(scratch)
}

// portIndex finds the rules by port. The ports fall into segments, in each of which
// the same rules hold.
type portIndex struct {
	silent bits
	starts []int // sorted, the first is 0; empty: no rule has ports
	groups []group
}

func newPortIndex(all []Rule) portIndex {
	x := portIndex{silent: newBits(len(all))}
	cuts := []int{0}
	for rule := range all {
		if len(all[rule].Ports) == 0 {
			x.silent.set(rule)
		}
		for _, r := range all[rule].Ports {
			cuts = append(cuts, int(r.First), int(r.Last)+1)
		}
	}
	if len(cuts) == 1 {
		return x
	}
	slices.Sort(cuts)
	x.starts = slices.Compact(cuts)
	places := map[int][]uint32{}
	for rule := range all {
		for _, r := range all[rule].Ports {
			for segment := x.segment(int(r.First)); segment < len(x.starts) && x.starts[segment] <= int(r.Last); segment++ {
				addPlaces(places, []int{segment}, rule)
			}
		}
	}
	for segment := range x.starts {
		x.groups = append(x.groups, newGroup(places[segment], len(all)))
	}
	return x
}

// segment returns the number of the segment that holds a port.
func (x *portIndex) segment(port int) int {
	i, found := slices.BinarySearch(x.starts, port)
	if !found {
		i--
	}
	return i
}

func (x *portIndex) narrow(candidates, scratch bits, port uint16) {
	if len(x.starts) == 0 {
		return
	}
	copy(scratch, x.silent)
	x.groups[x.segment(int(port))].addTo(scratch)
	candidates.and(scratch)
}

// networkIndex finds the rules that list a network with an address.
type networkIndex struct {
	rules   int
	classes map[Class][]uint32
	places  map[netip.Prefix][]uint32

	class  []classGroup
	table  bart.Table[int32] // to groups: the rules of the prefix and of all that hold it
	groups []group
}

type classGroup struct {
	class Class
	group group
}

func newNetworkIndex(rules int) *networkIndex {
	return &networkIndex{rules: rules, classes: map[Class][]uint32{}, places: map[netip.Prefix][]uint32{}}
}

// add notes that a rule lists a network. Rules come in their order.
func (x *networkIndex) add(n Network, rule int) {
	switch {
	case n.Class != "":
		addPlaces(x.classes, []Class{n.Class}, rule)
	case n.Prefix.IsValid():
		addPlaces(x.places, []netip.Prefix{n.Prefix.Masked()}, rule)
	}
}

// build makes the index out of what was added.
func (x *networkIndex) build() {
	for _, c := range []Class{Any, Internet, Private, Loopback} {
		if places := x.classes[c]; len(places) > 0 {
			x.class = append(x.class, classGroup{c, newGroup(places, x.rules)})
		}
	}
	sorted := make([]netip.Prefix, 0, len(x.places))
	for p := range x.places {
		sorted = append(sorted, p)
	}
	// The short ones first: each then takes over the rules of the one that holds it.
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Compare(b)) })
	var all [][]uint32
	for _, p := range sorted {
		places := x.places[p]
		if holder, ok := x.table.LookupPrefix(p); ok {
			places = slices.Concat(places, all[holder])
			slices.Sort(places)
			places = slices.Compact(places)
		}
		x.table.Insert(p, int32(len(all)))
		all = append(all, places)
		x.groups = append(x.groups, newGroup(places, x.rules))
	}
	x.classes, x.places = nil, nil
}

// addTo adds the rules that list a network with the address a. An IPv6 address
// that leads to an IPv4 address is that as well.
func (x *networkIndex) addTo(b bits, a netip.Addr, own *ownAddrs) {
	if !a.IsValid() {
		return
	}
	for i := range x.class {
		if c := &x.class[i]; c.class.contains(a, own) {
			c.group.addTo(b)
		}
	}
	if g, ok := x.table.Lookup(a); ok {
		x.groups[g].addTo(b)
	}
	if c := carried(a); c != a {
		if g, ok := x.table.Lookup(c); ok {
			x.groups[g].addTo(b)
		}
	}
}

// nameIndex finds the rules that list a host name, or a suffix of it.
type nameIndex struct {
	itself, below map[string]group
	labels        int // of the suffix that has most
}

func newNameIndex(all []Rule) nameIndex {
	itself, below, labels := map[string][]uint32{}, map[string][]uint32{}, 0
	for rule := range all {
		for _, d := range all[rule].To {
			switch {
			case d.Name == "":
			case d.Suffix:
				addPlaces(below, []string{d.Name}, rule)
				labels = max(labels, strings.Count(d.Name, ".")+1)
			default:
				addPlaces(itself, []string{d.Name}, rule)
			}
		}
	}
	return nameIndex{groups(itself, len(all)), groups(below, len(all)), labels}
}

func (x *nameIndex) addTo(b bits, host string) {
	x.itself[host].addTo(b)
	end := len(host)
	for range x.labels {
		if end = strings.LastIndexByte(host[:end], '.'); end < 0 {
			return
		}
		x.below[host[end+1:]].addTo(b)
	}
}
