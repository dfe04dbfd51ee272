package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sallyport/sallyport/server"
)

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
func (d *decision) standing(r *compiled, i int) standing {
	shown := d.request.Identity
	claims, proven, listed := d.claims(), d.proven(), d.users.has(i)
	switch {
	case !r.needsUser():
		return welcome
	case claims && r.takes(server.Claimed), proven && r.takes(shown.Proof):
		if listed && shown.Name != "" {
			return welcome
		}
		return stranger
	case proven, !r.takes(server.Ident):
		return lacking
	case claims && !listed, !claims && !r.asksIdentd():
		return stranger // whatever identd said, it would not match: it is not asked
	}
	return unasked
}

// proves reports whether the client shows what a rule asks that matches otherwise.
func (d *decision) proves(ctx context.Context, r *compiled, i int) bool {
	switch d.standing(r, i) {
	case welcome:
		return true
	case stranger:
		return false
	case lacking:
		if !r.Deny {
			d.lacking = r
		}
		return false
	}
	if err := d.confirm(ctx); err != nil {
		if d.unproven == nil && !r.Deny {
			d.unproven = r
		}
		return false
	}
	return d.users.has(i) && d.identity.Name != ""
}

// proven reports whether the client has shown more than a claim.
func (d *decision) proven() bool {
	proof := d.request.Identity.Proof
	return proof != server.NoProof && proof != server.Claimed
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

var errRelayed = errors.New("the client comes through a load balancer, and its identd is not asked")

// confirm asks the client's identd, once, whether the userid is true. Where the
// client has claimed none, it is the name that identd gives.
func (d *decision) confirm(ctx context.Context) error {
	if d.asked {
		return d.proofErr
	}
	d.asked = true
	if d.silent {
		return d.recall()
	}
	if d.request.Relayed {
		// The client's identd knows its connection to the load balancer, of
		// which only that one can tell.
		d.proofErr = fmt.Errorf("%w: %w", server.NoIdentd, errRelayed)
		return d.proofErr
	}
	if d.prompt {
		d.waits, d.proofErr = true, errWaits
		return d.proofErr
	}
	name, err := d.policy.askIdentd(ctx, d.request.Local, d.request.Client)
	switch {
	case err != nil:
		d.proofErr = err
	case d.claims() && name != d.request.Identity.Name:
		d.proofErr = fmt.Errorf("%w: the client says %q, identd says %q", server.OtherUser, d.request.Identity.Name, name)
	default:
		d.identity = server.Identity{Name: name, Proof: server.Ident}
		d.list(name)
	}
	return d.proofErr
}

func (p *Policy) askIdentd(ctx context.Context, local, client netip.AddrPort) (string, error) {
	if p.identd != nil {
		return p.identd(ctx, local, client)
	}
	return p.ident.Ask(ctx, local, client)
}

var errNotAskedAgain = errors.New("the client's identd was not asked when the session began")

// recall takes what identd said when the session began.
func (d *decision) recall() error {
	if d.known.Proof != server.Ident {
		d.proofErr = fmt.Errorf("%w: %w", server.NoIdentd, errNotAskedAgain)
		return d.proofErr
	}
	d.identity = d.known
	d.list(d.known.Name)
	return nil
}
