// Package access decides who may go where: it matches requests against rules,
// resolves the names they ask for, judges every address, and asks a client's
// identd where a rule needs to know who is there.
package access

import (
	"context"
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
	for i := range p.Rules {
		grant, done, err := d.ask(ctx, &p.Rules[i])
		if done {
			grant.Identity = d.identity
			return grant, err
		}
	}
	return d.refusal()
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
	addrs, hit, err := d.match(ctx, r)
	if err != nil {
		return server.Grant{}, true, err
	}
	if !hit || !d.proves(ctx, r) {
		return server.Grant{}, false, nil
	}
	grant = server.Grant{Rule: r.Name, Addrs: addrs, Bind: r.Bind}
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
		if named && vouches(host, a) || d.within(to, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, len(addrs) > 0, nil
}

func (d *decision) within(to []Destination, a netip.Addr) bool {
	return slices.ContainsFunc(to, func(t Destination) bool { return t.Name == "" && t.contains(a, &d.policy.own) })
}

// vouches reports whether naming a host in a rule names an address it resolves
// to. Whoever keeps the host's DNS zone chooses the address: a public or a
// private one is what the administrator meant; loopback, link-local and the
// rest would turn the proxy on its own machine, and must be named themselves.
// The names that stand for loopback by definition (RFC 6761) do name it.
func vouches(host string, a netip.Addr) bool {
	if isLocalhost(host) {
		return a.IsLoopback()
	}
	return isPublic(a) || Private.contains(a, nil)
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

// proves reports whether the client has shown, or can show, what the rule asks.
func (d *decision) proves(ctx context.Context, r *Rule) bool {
	if !r.needsUser() {
		return true
	}
	if r.takes(server.Claimed) {
		return r.admits(d.request.Identity.Name)
	}
	if !r.takes(server.Ident) {
		if r.Deny {
			return false
		}
		d.hint = fmt.Sprintf("; the rule %q asks for %s, which %s cannot show", r.Name, wanted(r.Proofs), d.request.Protocol)
		return false
	}
	if !r.couldAdmit(d.request.Identity.Name) {
		return false // whatever identd said, it would not match: it is not asked
	}
	if err := d.confirm(ctx); err != nil {
		if d.unproven == nil && !r.Deny {
			d.unproven = r
		}
		return false
	}
	return r.admits(d.identity.Name)
}

func wanted(proofs []server.Proof) string {
	var words []string
	for _, p := range proofs {
		words = append(words, string(p))
	}
	return strings.Join(words, " or ")
}

// confirm asks the client's identd, once, whether the userid is true.
func (d *decision) confirm(ctx context.Context) error {
	if d.asked {
		return d.proofErr
	}
	d.asked = true
	name, err := d.policy.Ident.Ask(ctx, d.request.Local, d.request.Client)
	switch {
	case err != nil:
		d.proofErr = err
	case name != d.request.Identity.Name:
		d.proofErr = fmt.Errorf("%w: the client says %q, identd says %q", server.OtherUser, d.request.Identity.Name, name)
	default:
		d.identity.Proof = server.Ident
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
