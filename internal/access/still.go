package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

var errNotAskedAgain = errors.New("identd is not asked again")

// Still decides whether an open session may go on: whether the policy would
// grant its request to the identity that the session has, with the address at
// which it reached its target (of BIND, the address of its peer or the one that
// was expected; of an association without datagrams the zero Addr). Nobody is
// asked: what identd once said holds, and no name is resolved. Where the session
// may go on, the grant names the rule by which, and when that ends. Where not, the error
// wraps [server.Schedule] if it is only the hour, else [server.Revoked]. Whether
// the user still exists, the users file knows: see [UsersFile.Has].
func (p *Policy) Still(r *server.Request, id server.Identity, target netip.Addr) (server.Grant, error) {
	d := p.begin(r)
	defer p.end(d)
	d.identity, d.asked, d.proofErr = id, true, nil
	if id.Proof != server.Ident {
		d.proofErr = fmt.Errorf("%w: %w", server.NoIdentd, errNotAskedAgain)
	}
	d.chosen = target
	grant, err := d.still()
	switch {
	case err == nil, server.ReasonOf(err) == server.Schedule:
		return grant, err
	}
	return grant, fmt.Errorf("%w: %w", server.Revoked, err)
}

func (d *decision) still() (server.Grant, error) {
	ctx := context.Background() // nobody waits for anybody
	if d.request.Command == socks.Associate && !d.chosen.IsValid() {
		return d.associate(ctx)
	}
	return d.decide(ctx)
}
