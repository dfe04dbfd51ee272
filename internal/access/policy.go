// Package access decides who may go where: it matches requests against rules,
// resolves the names they ask for, judges every address, and asks a client's
// identd where a rule needs to know who is there.
package access

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Decide implements [server.Policy]. A host name is resolved once; every
// address is judged by itself, and the grant holds only those that the rule
// allows. IDENT is asked at most once, and only when a rule that needs it
// matches otherwise. Where no rule matches, and one would have at another hour,
// the reason is [server.Schedule], and that rule is named.
func (p *Policy) Decide(ctx context.Context, r *server.Request) (server.Grant, error) {
	d := p.begin(r)
	defer p.end(d)
	return d.decide(ctx)
}

// DecideNow implements [server.PromptPolicy]: it decides as Decide does, and stops
// where a name would have to be resolved, which the Resolver does not remember, or identd
// to be asked.
func (p *Policy) DecideNow(r *server.Request) (g server.Grant, known bool, err error) {
	d := p.begin(r)
	defer p.end(d)
	d.prompt = true
	g, err = d.decide(context.Background()) // nothing waits for it
	if d.waits {
		return server.Grant{}, false, nil
	}
	return g, true, err
}

// MayAssociate implements [server.AssociatePolicy]: whether there is a rule by
// which this client could be granted some destination of a datagram, and when the
// hours of the last such rule end.
func (p *Policy) MayAssociate(ctx context.Context, r *server.Request) (until time.Time, err error) {
	d := p.begin(r)
	defer p.end(d)
	grant, err := d.associate(ctx)
	return grant.Until, err
}

// decide asks the rules in their order, but for those of which the index knows
// that they do not match.
func (d *decision) decide(ctx context.Context) (server.Grant, error) {
	if err := d.isListening(); err != nil {
		return server.Grant{Identity: d.identity}, err
	}
	if d.virtual && d.request.Command == socks.Bind {
		if err := d.mayOffer(); err != nil {
			return server.Grant{Identity: d.identity}, err
		}
	}
	d.narrow(ofRequest)
	for i := range d.candidates.each {
		grant, done, err := d.ask(ctx, i)
		if d.trace != nil {
			d.trace(i, done)
		}
		if done {
			grant.Identity = d.identity
			return grant, err
		}
		if d.waits {
			break // what is missing is not known, so whatever follows would be a guess
		}
	}
	if d.virtual && d.request.Command == socks.Bind && d.late == nil {
		return server.Grant{Rule: "virtual port " + d.request.Target.Name, Identity: d.identity, Virtual: true, Until: d.hoursEnd()}, nil
	}
	return d.refusal()
}

// associate looks for a rule that allows some datagram.
func (d *decision) associate(ctx context.Context) (server.Grant, error) {
	if err := d.isListening(); err != nil {
		return server.Grant{Identity: d.identity}, err
	}
	d.narrow(ofAssociate)
	var grant *server.Grant // by the first such rule, until the last one's hours end
	for i := range d.candidates.each {
		r := &d.policy.rules[i]
		switch {
		case r.Deny:
		case !d.isOpen(r):
			if d.late == nil && d.couldProve(r, i) {
				d.late = r
			}
		case grant != nil:
			if s := d.standing(r, i); s == welcome || s == unasked && d.couldProve(r, i) {
				grant.Until = later(grant.Until, d.until(r))
			}
		case d.proves(ctx, r, i):
			grant = &server.Grant{Rule: r.Name, Identity: d.identity, Until: d.until(r)}
		}
	}
	if grant != nil {
		return *grant, nil
	}
	return d.refusal()
}

// later returns the later of two ends. Zero is no end at all.
func later(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && a.After(b) {
		return a
	}
	return b
}

// isListening returns an error outside of the listener's hours.
func (d *decision) isListening() error {
	if d.policy.hours[d.request.Listener].Contains(d.now) {
		return nil
	}
	return fmt.Errorf("%w: the listener %q is open at other hours", server.Schedule, d.request.Listener)
}

// login says what the rules want to be shown by a client before its request is
// known, at this time.
func (p *Policy) login(listener string, protocol server.Protocol, client netip.Addr) server.Login {
	d := p.begin(&server.Request{Listener: listener, Protocol: protocol, Client: netip.AddrPortFrom(client, 0)})
	defer p.end(d)
	if d.isListening() != nil {
		return server.LoginNone // nothing that it could show would help
	}
	d.narrow(ofLogin)
	login, open := server.LoginNone, false
	if protocol == server.SSH && len(p.virtual) > 0 {
		login = server.LoginOptional // who offers one has to sign in
	}
	for i := range d.candidates.each {
		r := &p.rules[i]
		if !d.isOpen(r) {
			continue
		}
		if r.needsUser() && (r.takes(server.Password) || protocol == server.SSH && r.takes(server.Key)) {
			login = server.LoginOptional
		}
		open = open || !r.Deny && r.opensWithoutPassword()
		if r.deniesAll() {
			break // nobody comes to the rules behind it
		}
	}
	if login == server.LoginOptional && !open {
		return server.LoginRequired
	}
	return login
}
