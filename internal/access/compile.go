package access

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/server"
)

// Policy decides by an ordered list of rules: the first that matches decides,
// and where none does the request is denied. It is a [server.Policy]; make one
// with [NewPolicy]. The zero Policy has no rules. It is not changed once it is
// made (its sets are, see [Set.Watch]); safe for concurrent use.
type Policy struct {
	rules    []compiled
	resolver Resolver
	ident    Ident
	hours    map[string]*Schedule
	clock    func() time.Time
	index    index
	memory   sync.Pool // of *decision
	own      ownAddrs
}

// Options are what a policy needs beside its rules.
type Options struct {
	Resolver Resolver // nil: the operating system's
	Ident    Ident
	// ListenerHours are the hours of listeners by their names: outside of them
	// every request is refused. A listener that is not in it is always open.
	ListenerHours map[string]*Schedule
	Now           func() time.Time // nil: time.Now
}

// compiled is a rule as decisions use it.
type compiled struct {
	Rule
	schedule  int   // number of During in index.schedules; -1: none
	fromSets  []int // numbers in index.sets
	toSets    []int
	addresses bool  // To lists networks outright
	denied    error // what a rule that denies says
}

// index finds the rules that a request can match by what tells them apart, so
// that a decision need not look at each.
type index struct {
	all       bits
	listeners keyed[string]
	protocols keyed[server.Protocol]
	commands  keyed[byte]
	ports     portIndex

	from        *networkIndex
	fromAnyone  bits // the rules without From and FromSets
	fromSets    bits // the rules with FromSets
	to          *networkIndex
	names       nameIndex
	toAddresses bits // the rules that list networks in To, or have ToSets: a name may have to be resolved for them
	toSets      bits // the rules with ToSets
	anyPeer     bits // the rules that grant BIND for any peer

	users     keyed[string]         // by name; silent: the rules that name nobody, or any
	takes     map[server.Proof]bits // the rules that ask for a user and are content with a proof
	sets      []*Set
	schedules []*Schedule
}

// NewPolicy returns the policy with these rules, of which it keeps a copy: the
// slices in them must not be changed any more.
func NewPolicy(rules []Rule, o Options) *Policy {
	p := &Policy{resolver: o.Resolver, ident: o.Ident, hours: o.ListenerHours, clock: o.Now}
	x := &p.index
	n := len(rules)
	x.all = newBits(n)
	x.listeners = newKeyed(n, func(i int) []string { return rules[i].Listeners })
	x.protocols = newKeyed(n, func(i int) []server.Protocol { return rules[i].Protocols })
	x.commands = newKeyed(n, func(i int) []byte { return bytesOf(rules[i].Commands) })
	x.ports = newPortIndex(rules)
	x.names = newNameIndex(rules)
	x.users = newKeyed(n, func(i int) []string { return rules[i].names() })
	x.from, x.to = newNetworkIndex(n), newNetworkIndex(n)
	x.fromAnyone, x.fromSets, x.toAddresses, x.toSets, x.anyPeer = newBits(n), newBits(n), newBits(n), newBits(n), newBits(n)
	x.takes = map[server.Proof]bits{}
	for _, proof := range []server.Proof{server.Claimed, server.Ident, server.Password, server.Certificate} {
		x.takes[proof] = newBits(n)
	}
	for i := range rules {
		x.all.set(i)
		p.rules = append(p.rules, x.compile(&rules[i], i))
	}
	x.from.build()
	x.to.build()
	return p
}

func bytesOf[T ~byte](from []T) []byte {
	var to []byte
	for _, v := range from {
		to = append(to, byte(v))
	}
	return to
}

// compile enters a rule into what is not built of all rules at once.
func (x *index) compile(r *Rule, i int) compiled {
	c := compiled{Rule: *r, schedule: -1, fromSets: number(&x.sets, r.FromSets), toSets: number(&x.sets, r.ToSets)}
	if r.During != nil {
		c.schedule = number(&x.schedules, []*Schedule{r.During})[0]
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
			c.addresses = true
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
	for _, fact := range []struct {
		of    bits
		holds bool
	}{
		{x.fromAnyone, len(r.From) == 0 && len(r.FromSets) == 0},
		{x.fromSets, len(r.FromSets) > 0},
		{x.toSets, len(r.ToSets) > 0},
		{x.toAddresses, len(r.ToSets) > 0 || c.addresses},
		{x.anyPeer, r.Bind.AnyPeer && !r.Deny},
	} {
		if fact.holds {
			fact.of.set(i)
		}
	}
	return c
}

// number returns the places of items in known, where new ones are put behind
// the others.
func number[T comparable](known *[]T, items []T) (numbers []int) {
	for _, item := range items {
		i := slices.Index(*known, item)
		if i < 0 {
			i = len(*known)
			*known = append(*known, item)
		}
		numbers = append(numbers, i)
	}
	return numbers
}
