package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// decision is one request on its way through the rules. Its memory is used
// again: what it gives away must be of its own.
type decision struct {
	policy   *Policy
	request  *server.Request
	identity server.Identity
	now      time.Time

	candidates bits // the rules that can match, as far as the index tells
	named      bits // the rules that list the target's host name
	networks   bits // those that list networks as targets
	users      bits // those that list the client's user
	scratch    bits
	sets       []content // of those that were looked at, by their numbers
	hours      []int8    // which schedules are open (1) and closed (-1), by their numbers

	held     []netip.Addr    // those of the target's addresses that count, where a session holds some already
	silent   bool            // nobody is asked: neither name servers nor identd
	prompt   bool            // likewise; but where somebody would have been, the decision waits for that
	waits    bool            // of a prompt decision: it cannot be had
	known    server.Identity // who the client turned out to be when the session began; for silent decisions
	targets  []judged        // the target's addresses
	resolved bool            // targets is known
	virtual  bool            // the target is a virtual port, and has no address
	asked    bool            // identd was asked; what it said:
	proofErr error           // why it proved nothing
	unproven *compiled       // the first rule that would have allowed it but for that
	late     *compiled       // the first rule that would have at another hour
	lacking  *compiled       // the last rule that wanted what the client cannot show

	miss  Condition                 // of the rule that was asked last
	trace func(rule int, done bool) // told of each rule that was asked; may be nil
}

// judged is one address of the target.
type judged struct {
	addr    netip.Addr
	within  bits // the rules that list a network with it
	decided bool // a rule denied it
	hit     bool // the rule that is being asked is about it
}

// begin returns a decision that has seen nothing yet, and end takes it back.
func (p *Policy) begin(r *server.Request) *decision {
	d, _ := p.memory.Get().(*decision)
	if d == nil {
		n := len(p.index.all)
		all := make(bits, 5*n)
		d = &decision{
			candidates: all[:n:n], named: all[n : 2*n : 2*n], networks: all[2*n : 3*n : 3*n], users: all[3*n : 4*n : 4*n], scratch: all[4*n:],
			sets: make([]content, len(p.index.sets)), hours: make([]int8, len(p.index.schedules)),
		}
	}
	d.policy, d.request, d.identity = p, r, r.Identity
	_, d.virtual = p.virtual[r.Target.Name]
	if len(p.index.schedules) > 0 || len(p.hours) > 0 {
		d.now = p.now()
	}
	copy(d.candidates, p.index.all)
	return d
}

func (p *Policy) end(d *decision) {
	clear(d.sets)
	clear(d.hours)
	*d = decision{
		candidates: d.candidates, named: d.named, networks: d.networks, users: d.users, scratch: d.scratch,
		sets: d.sets, hours: d.hours, targets: d.targets[:0],
	}
	p.memory.Put(d)
}

func (p *Policy) now() time.Time {
	if p.clock == nil {
		return time.Now()
	}
	return p.clock()
}

// isOpen reports whether it is the hour of the rule.
func (d *decision) isOpen(r *compiled) bool {
	if r.schedule < 0 {
		return true
	}
	if d.hours[r.schedule] == 0 {
		d.hours[r.schedule] = -1
		if r.During.Contains(d.now) {
			d.hours[r.schedule] = 1
		}
	}
	return d.hours[r.schedule] > 0
}

// ask puts the request to the rule i; done says that the rule decided.
func (d *decision) ask(ctx context.Context, i int) (grant server.Grant, done bool, err error) {
	r := &d.policy.rules[i]
	if d.miss = d.standsOff(r, i); d.miss != "" {
		return server.Grant{}, false, nil // and no name is looked up for it
	}
	hit, err := d.match(ctx, r, i)
	switch {
	case err != nil:
		return server.Grant{}, true, err
	case !hit:
		d.miss = MissTo
		return server.Grant{}, false, nil
	case !d.proves(ctx, r, i):
		d.miss = MissProof
		return server.Grant{}, false, nil
	case !r.Deny:
		return d.grant(r), true, nil
	case d.deny():
		d.miss = MissRest
		return server.Grant{}, false, nil
	}
	return server.Grant{Rule: r.Name}, true, r.denied
}

// standsOff returns what keeps the rule from matching that can be told without
// asking anybody, the target aside.
func (d *decision) standsOff(r *compiled, i int) Condition {
	switch {
	case d.standing(r, i) == stranger:
		return MissUsers
	case !d.isOpen(r):
		if d.late == nil && !r.Deny && d.couldMatch(r, i) {
			d.late = r
		}
		return MissDuring
	}
	return ""
}

// grant returns what a rule grants that matches.
func (d *decision) grant(r *compiled) server.Grant {
	grant := server.Grant{Rule: r.Name, Bind: r.Bind, Way: r.Way, ByName: !d.resolved, Until: d.until(r)}
	if r.Budget != nil && !d.silent {
		grant.Budget = r.Budget(d.request, d.identity)
	}
	if d.virtual {
		grant.Way, grant.ByName, grant.Virtual = nil, false, true
	}
	n := 0
	for i := range d.targets {
		if d.targets[i].hit {
			n++
		}
	}
	grant.Addrs = make([]netip.Addr, 0, n)
	for i := range d.targets {
		if d.targets[i].hit {
			grant.Addrs = append(grant.Addrs, d.targets[i].addr)
		}
	}
	return grant
}

// until returns when the hours of the rule or of the listener end, whichever do
// first.
func (d *decision) until(r *compiled) time.Time {
	end := r.During.Until(d.now)
	if other := d.policy.hours[d.request.Listener].Until(d.now); end.IsZero() || !other.IsZero() && other.Before(end) {
		end = other
	}
	return end
}

// deny takes out the addresses that a rule denies, and reports whether there are
// others.
func (d *decision) deny() (left bool) {
	for i := range d.targets {
		t := &d.targets[i]
		t.decided = t.decided || t.hit
		left = left || !t.decided
	}
	return left
}

// match marks the addresses that the rule is about; hit is false where it is
// about none. A rule that denies by name needs no addresses.
func (d *decision) match(ctx context.Context, r *compiled, i int) (hit bool, err error) {
	if r.Bind.AnyPeer && !r.Deny && d.forAnyPeer() {
		return d.mark(func(*judged) bool { return true }), nil
	}
	if d.virtual {
		return r.anywhere || d.named.has(i), nil
	}
	if d.sendsName(r, i) {
		return true, nil
	}
	named := d.named.has(i)
	if named && r.Deny {
		d.mark(func(*judged) bool { return true })
		return true, nil
	}
	if !named && d.request.Target.Name != "" && !d.networks.has(i) {
		return false, nil
	}
	if err := d.resolve(ctx); err != nil {
		return false, err
	}
	return d.mark(func(t *judged) bool { return named && d.vouches(t.addr) || t.within.has(i) }), nil
}

// sendsName reports whether a rule allows a host by its name alone: it lets it
// leave through an upstream that looks names up, and names the host or any target
// at all. Where an earlier rule had to know the addresses, they are judged and
// sent; and datagrams need them always, for who answers must be known.
func (d *decision) sendsName(r *compiled, i int) bool {
	host := d.request.Target.Name
	return r.SendNames && !r.Deny && host != "" && !d.resolved && !isLocalhost(host) &&
		d.request.Command != socks.Associate && (r.anywhere || d.named.has(i))
}

// mark marks the addresses that no rule has decided on and that fit.
func (d *decision) mark(fits func(*judged) bool) (any bool) {
	for i := range d.targets {
		t := &d.targets[i]
		t.hit = !t.decided && fits(t)
		any = any || t.hit
	}
	return any
}

// vouches reports whether naming the target's host in a rule names an address it
// resolves to. Whoever keeps the host's DNS zone chooses the address: a public or
// a private one is what the administrator meant; loopback, link-local, this
// machine's own and the rest would turn the proxy on its own machine, and must be
// named themselves. The names that stand for loopback by definition (RFC 6761)
// do name it.
func (d *decision) vouches(a netip.Addr) bool {
	own := &d.policy.own
	if isLocalhost(d.request.Target.Name) {
		return a.IsLoopback()
	}
	return Internet.contains(a, own) || Private.contains(a, own) && !own.has(a)
}

// errWaits ends a prompt decision that somebody would have to be asked for. Nobody
// is told.
var errWaits = errors.New("somebody has to be asked")

// resolve looks the host name up, once.
func (d *decision) resolve(ctx context.Context) error {
	if d.resolved || d.silent || d.virtual {
		return nil
	}
	addrs, err := d.addresses(ctx)
	if err == nil {
		d.setTargets(addrs...)
	}
	return err
}

// addresses are those of the host name. A prompt decision goes by what is known.
func (d *decision) addresses(ctx context.Context) ([]netip.Addr, error) {
	if !d.prompt {
		return d.policy.lookup(ctx, d.request.Target.Name)
	}
	addrs, known, err := d.policy.recall(d.request.Target.Name)
	if !known {
		d.waits = true
		return nil, errWaits
	}
	return addrs, err
}

// couldMatch reports whether a rule would allow the request at another hour, as
// far as that can be told without asking anybody.
func (d *decision) couldMatch(r *compiled, i int) bool {
	if !d.couldProve(r, i) {
		return false
	}
	switch named := d.named.has(i); {
	case r.Bind.AnyPeer && d.forAnyPeer():
		return true
	case d.virtual:
		return named || r.anywhere
	case !d.resolved:
		return named || d.networks.has(i)
	default:
		return slices.ContainsFunc(d.targets, func(t judged) bool {
			return !t.decided && (named && d.vouches(t.addr) || t.within.has(i))
		})
	}
}

// couldProve reports whether the client might show what a rule asks. Of one that
// has shown nothing that is not known: it may not have been asked, for the hour.
func (d *decision) couldProve(r *compiled, i int) bool {
	switch d.standing(r, i) {
	case welcome:
		return true
	case lacking:
		return !d.claims() && !d.proven() && !r.forNobody()
	case unasked:
		return !d.asked || d.proofErr == nil && d.identity.Name != "" && d.users.has(i)
	}
	return false
}

var errNoRule = fmt.Errorf("%w: no rule allows it", server.Denied)

// refusal says why no rule matched. Where IDENT was what failed, it names the
// rule that asked for it; where the hour was, the rule that has others.
func (d *decision) refusal() (server.Grant, error) {
	grant := server.Grant{Identity: d.identity}
	switch {
	case d.unproven != nil:
		grant.Rule = d.unproven.Name
		return grant, fmt.Errorf("%w (the rule %q asked)", d.proofErr, grant.Rule)
	case d.late != nil:
		grant.Rule = d.late.Name
		return grant, fmt.Errorf("%w: the rule %q allows it at other hours", server.Schedule, grant.Rule)
	case d.lacking != nil:
		return grant, fmt.Errorf("%w%s", errNoRule, d.hint())
	}
	return grant, errNoRule
}

// hint tells that a rule asks for what the client has not shown.
func (d *decision) hint() string {
	why := "the client has not shown"
	if d.claims() {
		why = fmt.Sprintf("%s cannot show", d.request.Protocol)
	}
	return fmt.Sprintf("; the rule %q asks for %s, which %s", d.lacking.Name, wanted(d.lacking.Proofs), why)
}

// wanted lists proofs.
func wanted(proofs []server.Proof) string {
	var words []string
	for _, p := range proofs {
		words = append(words, string(p))
	}
	return strings.Join(words, " or ")
}
