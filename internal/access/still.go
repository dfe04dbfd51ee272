package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Still says whether an open session would be granted what it holds by these
// rules: the request, as the client that it turned out to be, to the address that
// it has reached, or to one of those that it may reach. It returns when that ends
// (zero: not by itself), or an error that wraps [server.Revoked]. What the client
// had not shown it is not asked for now. It does no I/O and does not block.
func (p *Policy) Still(h server.Held) (until time.Time, err error) {
	grant, err := p.judgeAgain(&h)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%w: after a change of the settings: %w", server.Revoked, err)
	case h.Request.Command == socks.Bind && h.Request.Target.IP.IsUnspecified() && !grant.Bind.AnyPeer:
		return time.Time{}, fmt.Errorf("%w: after a change of the settings the rule %q does not say any_peer", server.Revoked, grant.Rule)
	}
	return grant.Until, nil
}

func (p *Policy) judgeAgain(h *server.Held) (server.Grant, error) {
	d := &decision{policy: p, request: &h.Request, identity: h.Request.Identity, resolved: true, asked: true}
	switch {
	case h.Grant.Identity.Proof == server.Ident:
		d.identity = h.Grant.Identity
	default:
		d.proofErr = fmt.Errorf("%w: the client's identd was not asked when the session began", server.NoIdentd)
	}
	if h.Request.Command == socks.Associate && !h.Address.IsValid() {
		return server.Grant{}, d.mayAssociate(context.Background())
	}
	d.open = slices.Clone(h.Grant.Addrs)
	if h.Address.IsValid() {
		d.open = []netip.Addr{h.Address.Addr()}
	}
	// With all at hand nothing waits for the context.
	return d.run(context.Background())
}

// Still says whether a login that was right is so by the users file of now: the
// user is there, with the same password. An identity that rests on no password is
// none of its affair. A nil Passwords knows no user.
func (p *Passwords) Still(id server.Identity) error {
	if id.Proof != server.Password {
		return nil
	}
	if p == nil {
		return fmt.Errorf("%w: %w", server.Revoked, errNoUsers)
	}
	mark, known := p.file.now.Load().accounts.marks[id.Name]
	switch {
	case !known:
		return fmt.Errorf("%w: %w", server.Revoked, errUserGone)
	case mark != id.Mark:
		return fmt.Errorf("%w: %w", server.Revoked, errOtherPassword)
	}
	return nil
}

var (
	errNoUsers       = errors.New("there are no users any more")
	errUserGone      = errors.New("the user is gone")
	errOtherPassword = errors.New("the user has another password now")
)
