// Package access decides who may go where: it matches requests against rules,
// resolves the names they ask for, judges every address, and asks a client's
// identd where a rule needs to know who is there.
package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Policy decides by an ordered list of rules: the first that matches decides,
// and where none does the request is denied. It is a [server.Policy]. It must
// not be changed once it is in use; it is safe for concurrent use.
type Policy struct {
	Rules    []Rule
	Resolver Resolver // nil: the operating system's
	Ident    Ident

	own ownAddrs
}

// Decide implements [server.Policy]. A host name is resolved once; every
// address is judged by itself, and the grant holds only those that the rule
// allows. IDENT is asked at most once, and only when a rule that needs it
// matches otherwise.
func (p *Policy) Decide(ctx context.Context, r *server.Request) (server.Grant, error) {
	d := &decision{policy: p, request: r, identity: r.Identity}
	if r.Target.IP.IsValid() {
		d.open, d.resolved = []netip.Addr{r.Target.IP}, true
	}
	return d.run(ctx)
}

// run asks the rules in turn.
func (d *decision) run(ctx context.Context) (server.Grant, error) {
	for i := range d.policy.Rules {
		grant, done, err := d.ask(ctx, &d.policy.Rules[i])
		if done {
			grant.Identity = d.identity
			return grant, err
		}
	}
	return d.refusal()
}

// MayAssociate implements [server.AssociatePolicy]: whether there is a rule by
// which this client could be granted some destination of a datagram.
func (p *Policy) MayAssociate(ctx context.Context, r *server.Request) error {
	return (&decision{policy: p, request: r, identity: r.Identity}).mayAssociate(ctx)
}

func (d *decision) mayAssociate(ctx context.Context) error {
	r, own := d.request, &d.policy.own
	for i := range d.policy.Rules {
		rule := &d.policy.Rules[i]
		if !rule.Deny && matches(rule.Commands, r.Command) &&
			rule.matchesClient(r.Listener, r.Protocol, r.Client.Addr(), own) && d.proves(ctx, rule) {
			return nil
		}
	}
	_, err := d.refusal()
	return err
}

// decision is one request on its way through the rules.
type decision struct {
	policy   *Policy
	request  *server.Request
	identity server.Identity
	open     []netip.Addr // the target's addresses that no rule has decided on yet
	resolved bool         // open is known
	asked    bool         // identd was asked; what it said:
	proofErr error        // why it proved nothing
	unproven *Rule        // the first rule that would have allowed it but for that
	hint     string       // what else a rule wanted that this client cannot show
}

// ask puts the request to one rule; done says that the rule decided.
func (d *decision) ask(ctx context.Context, r *Rule) (grant server.Grant, done bool, err error) {
	if !r.matchesPlainly(d.request, &d.policy.own) {
		return server.Grant{}, false, nil
	}
	if d.standing(r) == stranger {
		return server.Grant{}, false, nil // and no name is looked up for it
	}
	addrs, hit, err := d.match(ctx, r)
	if err != nil {
		return server.Grant{}, true, err
	}
	if !hit || !d.proves(ctx, r) {
		return server.Grant{}, false, nil
	}
	grant = server.Grant{Rule: r.Name, Addrs: addrs, Bind: r.Bind, Way: r.Way, ByName: !d.resolved}
	if !r.Deny {
		return grant, true, nil
	}
	d.open = slices.DeleteFunc(d.open, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	if len(d.open) > 0 {
		return server.Grant{}, false, nil // the name has other addresses that this rule does not deny
	}
	return server.Grant{Rule: r.Name}, true, fmt.Errorf("%w: by the rule %q", server.Denied, r.Name)
}

// match returns the open addresses that the rule is about; hit is false where
// it is about none. A rule that denies by name needs no addresses.
func (d *decision) match(ctx context.Context, r *Rule) (addrs []netip.Addr, hit bool, err error) {
	if r.Bind.AnyPeer && !r.Deny && d.request.Command == socks.Bind && d.request.Target.IP.IsUnspecified() {
		return d.open, true, nil
	}
	if d.sendsName(r) {
		return nil, true, nil
	}
	to := r.destinations()
	host := d.request.Target.Name
	named := host != "" && slices.ContainsFunc(to, func(t Destination) bool { return t.Name != "" && t.matchesName(host) })
	if named && r.Deny {
		return slices.Clone(d.open), true, nil
	}
	if !named && host != "" && !slices.ContainsFunc(to, func(t Destination) bool { return t.Name == "" }) {
		return nil, false, nil
	}
	if err := d.resolve(ctx); err != nil {
		return nil, false, err
	}
	for _, a := range d.open {
		if named && d.vouches(host, a) || d.within(to, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, len(addrs) > 0, nil
}

// sendsName reports whether a rule allows a host by its name alone: it lets it
// leave through an upstream that looks names up, and names the host or any target
// at all. Where an earlier rule had to know the addresses, they are judged and
// sent; and datagrams need them always, for who answers must be known.
func (d *decision) sendsName(r *Rule) bool {
	host := d.request.Target.Name
	return r.SendNames && !r.Deny && host != "" && !d.resolved && !isLocalhost(host) &&
		d.request.Command != socks.Associate &&
		slices.ContainsFunc(r.destinations(), func(t Destination) bool {
			return t.Class == Any || t.Name != "" && t.matchesName(host)
		})
}

func (d *decision) within(to []Destination, a netip.Addr) bool {
	return slices.ContainsFunc(to, func(t Destination) bool { return t.Name == "" && t.contains(a, &d.policy.own) })
}

// vouches reports whether naming a host in a rule names an address it resolves
// to. Whoever keeps the host's DNS zone chooses the address: a public or a
// private one is what the administrator meant; loopback, link-local, this
// machine's own and the rest would turn the proxy on its own machine, and must be
// named themselves. The names that stand for loopback by definition (RFC 6761)
// do name it.
func (d *decision) vouches(host string, a netip.Addr) bool {
	own := &d.policy.own
	if isLocalhost(host) {
		return a.IsLoopback()
	}
	return Internet.contains(a, own) || Private.contains(a, own) && !own.has(a)
}

// resolve looks the host name up, once.
func (d *decision) resolve(ctx context.Context) error {
	if d.resolved {
		return nil
	}
	addrs, err := d.policy.lookup(ctx, d.request.Target.Name)
	d.open, d.resolved = addrs, err == nil
	return err
}

// standing is how a client stands to a rule, as far as the request alone tells.
type standing int

const (
	welcome  standing = iota // it has shown what the rule asks, or the rule asks nothing
	stranger                 // the rule is for others
	lacking                  // it cannot show what the rule asks
	unasked                  // its identd may tell
)

// standing judges by what the client has shown. A client is one user: whoever
// has shown more than a claim is that user to all rules, and no identd is asked
// for another name.
func (d *decision) standing(r *Rule) standing {
	shown := d.request.Identity
	claims, proven := d.claims(), shown.Proof != server.NoProof && shown.Proof != server.Claimed
	switch {
	case !r.needsUser():
		return welcome
	case claims && r.takes(server.Claimed), proven && r.takes(shown.Proof):
		if r.admits(shown.Name) {
			return welcome
		}
		return stranger
	case proven, !r.takes(server.Ident):
		return lacking
	case claims && !r.couldAdmit(shown.Name), !claims && !r.asksIdentd():
		return stranger // whatever identd said, it would not match: it is not asked
	}
	return unasked
}

// proves reports whether the client shows what a rule asks that matches otherwise.
func (d *decision) proves(ctx context.Context, r *Rule) bool {
	switch d.standing(r) {
	case welcome:
		return true
	case stranger:
		return false
	case lacking:
		d.hintAt(r)
		return false
	}
	if err := d.confirm(ctx); err != nil {
		if d.unproven == nil && !r.Deny {
			d.unproven = r
		}
		return false
	}
	return r.admits(d.identity.Name)
}

// claims reports whether the client names itself without a proof, as SOCKS 4
// has it. Of other clients nothing is known before they have proven it.
func (d *decision) claims() bool {
	switch d.request.Identity.Proof {
	case server.NoProof, server.Claimed:
		return d.request.Protocol == server.SOCKS4 || d.request.Protocol == server.SOCKS4a
	}
	return false
}

// hintAt notes that a rule asks for what the client has not shown.
func (d *decision) hintAt(r *Rule) {
	if r.Deny {
		return
	}
	why := "the client has not shown"
	if d.claims() {
		why = fmt.Sprintf("%s cannot show", d.request.Protocol)
	}
	d.hint = fmt.Sprintf("; the rule %q asks for %s, which %s", r.Name, wanted(r.Proofs), why)
}

func wanted(proofs []server.Proof) string {
	var words []string
	for _, p := range proofs {
		words = append(words, string(p))
	}
	return strings.Join(words, " or ")
}

var errRelayed = errors.New("the client comes through a load balancer, and its identd is not asked")

// confirm asks the client's identd, once, whether the userid is true. Where the
// client has claimed none, it is the name that identd gives.
func (d *decision) confirm(ctx context.Context) error {
	if d.asked {
		return d.proofErr
	}
	d.asked = true
	if d.request.Relayed {
		// The client's identd knows its connection to the load balancer, of
		// which only that one can tell.
		d.proofErr = fmt.Errorf("%w: %w", server.NoIdentd, errRelayed)
		return d.proofErr
	}
	name, err := d.policy.Ident.Ask(ctx, d.request.Local, d.request.Client)
	switch {
	case err != nil:
		d.proofErr = err
	case d.claims() && name != d.request.Identity.Name:
		d.proofErr = fmt.Errorf("%w: the client says %q, identd says %q", server.OtherUser, d.request.Identity.Name, name)
	default:
		d.identity = server.Identity{Name: name, Proof: server.Ident}
	}
	return d.proofErr
}

// refusal says why no rule matched. Where IDENT was what failed, it names the
// rule that asked for it.
func (d *decision) refusal() (server.Grant, error) {
	grant := server.Grant{Identity: d.identity}
	if d.unproven == nil {
		return grant, fmt.Errorf("%w: no rule allows it%s", server.Denied, d.hint)
	}
	grant.Rule = d.unproven.Name
	return grant, fmt.Errorf("%w (the rule %q asked)", d.proofErr, grant.Rule)
}
