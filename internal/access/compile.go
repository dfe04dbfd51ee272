package access

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Policy decides by an ordered list of rules: the first that matches decides,
// and where none does the request is denied. It is a [server.Policy]; make one
// with [NewPolicy]. The zero Policy has no rules. It is not changed once it is
// made (its sets are, see [Set.Watch]); safe for concurrent use.
type Policy struct {
	rules    []compiled
	resolver Resolver
	ident    Ident
	identd   func(ctx context.Context, local, client netip.AddrPort) (string, error) // nil: ident
	hours    map[string]*Schedule
	virtual  map[string]*Users
	clock    func() time.Time
	index    index
	memory   sync.Pool // of *decision
	own      ownAddrs
}

// Options are what a policy needs beside its rules.
type Options struct {
	Resolver Resolver // nil: the operating system's
	Ident    Ident
	// Identd answers in the place of the client's identd, as [Ident.Ask] does; nil:
	// Ident asks.
	Identd func(ctx context.Context, local, client netip.AddrPort) (string, error)
	// ListenerHours are the hours of listeners by their names: outside of them
	// every request is refused. A listener that is not in it is always open.
	ListenerHours map[string]*Schedule
	// VirtualPorts are names that are no host's, and who may offer a service under
	// them. A rule is about one where it lists the name, or everything.
	VirtualPorts map[string]*Users
	Now          func() time.Time // nil: time.Now
}

// compiled is a rule as decisions use it.
type compiled struct {
	Rule
	schedule int   // number of During in index.schedules; -1: none
	anywhere bool  // it is about every address
	denied   error // what a rule that denies says
}

// index finds the rules that a request can match by what tells them apart, so
// that a decision need not look at each.
type index struct {
	all       bits
	listeners keyed[string]
	protocols keyed[server.Protocol]
	commands  keyed[socks.Command]
	ports     portIndex

	from       *networkIndex
	fromAnyone bits // the rules without From and FromSets
	to         *networkIndex
	names      nameIndex
	toNetworks bits // the rules that list networks in To: a name has to be resolved for them
	anyPeer    bits // the rules that grant BIND for any peer

	users     keyed[string]         // by name; silent: the rules that name nobody, or any
	takes     map[server.Proof]bits // the rules that ask for a user and are content with a proof
	sets      []setIndex
	schedules []*Schedule
}

// setIndex is a set, and the rules that have it in FromSets and in ToSets.
type setIndex struct {
	set      *Set
	from, to group
}

// NewPolicy returns the policy with these rules, of which it keeps a copy: the
// slices in them must not be changed any more.
func NewPolicy(rules []Rule, o Options) *Policy {
	p := &Policy{resolver: o.Resolver, ident: o.Ident, identd: o.Identd, hours: o.ListenerHours, virtual: o.VirtualPorts, clock: o.Now}
	x := &p.index
	n := len(rules)
	x.all = newBits(n)
	x.listeners = newKeyed(n, func(i int) []string { return rules[i].Listeners })
	x.protocols = newKeyed(n, func(i int) []server.Protocol { return rules[i].Protocols })
	x.commands = newKeyed(n, func(i int) []socks.Command { return rules[i].Commands })
	x.ports = newPortIndex(rules)
	x.names = newNameIndex(rules)
	x.users = newKeyed(n, func(i int) []string { return rules[i].names() })
	x.from, x.to = newNetworkIndex(n), newNetworkIndex(n)
	x.fromAnyone, x.toNetworks, x.anyPeer = newBits(n), newBits(n), newBits(n)
	x.takes = map[server.Proof]bits{}
	for _, proof := range []server.Proof{server.Claimed, server.Ident, server.Password, server.Certificate, server.Key} {
		x.takes[proof] = newBits(n)
	}
	for i := range rules {
		x.all.set(i)
		p.rules = append(p.rules, x.compile(&rules[i], i))
	}
	x.indexSets(rules)
	x.from.build()
	x.to.build()
	return p
}

// compile enters a rule into what is not built of all rules at once.
func (x *index) compile(r *Rule, i int) compiled {
	c := compiled{Rule: *r, schedule: -1}
	if r.During != nil {
		if c.schedule = slices.Index(x.schedules, r.During); c.schedule < 0 {
			c.schedule = len(x.schedules)
			x.schedules = append(x.schedules, r.During)
		}
	}
	if r.Deny {
		c.denied = fmt.Errorf("%w: by the rule %q", server.Denied, r.Name)
	}
	for _, n := range r.From {
		x.from.add(n, i)
	}
	for _, d := range r.destinations() {
		if d.Name == "" {
			x.to.add(d.Network, i)
			x.toNetworks.set(i)
			c.anywhere = c.anywhere || d.Class == Any
		}
	}
	if r.forNobody() {
		x.users.silent.clear(i)
	}
	for proof, rules := range x.takes {
		if r.needsUser() && r.takes(proof) {
			rules.set(i)
		}
	}
	if len(r.From) == 0 && len(r.FromSets) == 0 {
		x.fromAnyone.set(i)
	}
	if r.Bind.AnyPeer && !r.Deny {
		x.anyPeer.set(i)
	}
	return c
}

// indexSets finds the rules of each set.
func (x *index) indexSets(rules []Rule) {
	from, to := map[*Set][]uint32{}, map[*Set][]uint32{}
	for i := range rules {
		addPlaces(from, rules[i].FromSets, i)
		addPlaces(to, rules[i].ToSets, i)
		for _, s := range slices.Concat(rules[i].FromSets, rules[i].ToSets) {
			if !slices.ContainsFunc(x.sets, func(known setIndex) bool { return known.set == s }) {
				x.sets = append(x.sets, setIndex{set: s})
			}
		}
	}
	for i := range x.sets {
		s := &x.sets[i]
		s.from, s.to = newGroup(from[s.set], len(rules)), newGroup(to[s.set], len(rules))
	}
}
