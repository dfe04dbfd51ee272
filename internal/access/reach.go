package access

import (
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Reach is what the rules may let clients through to that come from an address,
// whoever they are and whatever the hour.
type Reach struct {
	To   []Destination // of all rules that allow some of it, but for what is in sets
	Sets bool          // they name sets, too
}

// Reach returns what the rules may let a client through to that comes from there and
// speaks the protocol on the listener, by CONNECT. The zero value: nothing; the listener
// is not for it.
func (p *Policy) Reach(listener string, protocol server.Protocol, client netip.Addr) Reach {
	d := p.begin(&server.Request{Listener: listener, Protocol: protocol, Command: socks.Connect, Client: netip.AddrPortFrom(client, 0)})
	defer p.end(d)
	d.narrow(ofReach)
	var found Reach
	for i := range d.candidates.each {
		r := &p.rules[i]
		switch {
		case !r.Deny && r.canBeShown(protocol):
			found.To = append(found.To, r.destinations()...)
			found.Sets = found.Sets || len(r.ToSets) > 0
		case r.Deny && r.During == nil && r.deniesAll():
			return found // nobody comes to the rules behind it
		}
	}
	return found
}

// canBeShown reports whether any client could show what the rule asks by the protocol.
func (r *compiled) canBeShown(by server.Protocol) bool {
	proofs := []server.Proof{server.Ident, server.Certificate, server.Password, server.Key}
	if by == server.SOCKS4 || by == server.SOCKS4a {
		proofs = []server.Proof{server.Claimed, server.Ident, server.Certificate}
	}
	return !r.needsUser() || slices.ContainsFunc(proofs, r.takes)
}

// MayPass reports whether there is anything in it.
func (r Reach) MayPass() bool { return len(r.To) > 0 || r.Sets }
