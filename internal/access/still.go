package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Still says whether an open session would be granted what it holds by these
// rules: the request, as the client that it turned out to be, to the address that
// it has reached, or to one of those that it may reach. It returns when that ends
// (zero: not by itself). Where it would not, the error wraps [server.Schedule] if
// it is only the hour, else [server.Revoked]. What the client had not shown it is
// not asked for now, and a name that was left to an upstream is judged as a name.
// It does no I/O and does not block.
func (p *Policy) Still(h server.Held) (until time.Time, err error) {
	d := p.begin(&h.Request)
	defer p.end(d)
	d.silent, d.known, d.held = true, h.Grant.Identity, h.Grant.Addrs
	if h.Address.IsValid() {
		d.held = []netip.Addr{h.Address.Addr()}
	}
	grant, err := d.again(h.Address.IsValid())
	switch {
	case server.ReasonOf(err) == server.Schedule:
		return time.Time{}, err
	case err != nil:
		return time.Time{}, fmt.Errorf("%w: after a change of the settings: %w", server.Revoked, err)
	case d.forAnyPeer() && !grant.Bind.AnyPeer:
		return time.Time{}, fmt.Errorf("%w: after a change of the settings the rule %q does not say any_peer", server.Revoked, grant.Rule)
	}
	return grant.Until, nil
}

func (d *decision) again(reached bool) (server.Grant, error) {
	ctx := context.Background() // with all at hand nothing waits for it
	if d.request.Command == socks.Associate && !reached {
		return d.associate(ctx)
	}
	return d.decide(ctx)
}

// Foretell returns the identity that the right password of a user would prove, or,
// where proof is [server.Key], any of the user's keys. It fails, wrapping
// [server.BadLogin], for a user who is not there, or has none. A nil Passwords
// knows none.
func (p *Passwords) Foretell(name string, proof server.Proof) (server.Identity, error) {
	if p == nil {
		return server.Identity{}, fmt.Errorf("%w: %w", server.BadLogin, errNoUsers)
	}
	now := p.users.latest()
	mark := now.accounts.marks[name]
	switch {
	case !now.accounts.admits(name):
		return server.Identity{}, errWrongLogin
	case proof == server.Key && !now.keys.has(name):
		return server.Identity{}, errWrongKey
	case proof == server.Key:
		for _, mark = range now.keys.byName[name] {
			break
		}
		return server.Identity{Name: name, Proof: server.Key, Mark: mark}, nil
	}
	return server.Identity{Name: name, Proof: server.Password, Mark: mark}, nil
}

// Still says whether a login that was right is so by the users file of now: the
// user is there, with the same password or still with the key. An identity that
// rests on neither is none of its affair. A nil Passwords knows no user.
func (p *Passwords) Still(id server.Identity) error {
	if id.Proof != server.Password && id.Proof != server.Key {
		return nil
	}
	if p == nil {
		return fmt.Errorf("%w: %w", server.Revoked, errNoUsers)
	}
	now := p.users.latest()
	if id.Proof == server.Key {
		return now.stillKey(id.Name, id.Mark)
	}
	mark, known := now.accounts.marks[id.Name]
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

// Look takes up a change of the users file now, if a second has passed since the
// last look.
func (p *Passwords) Look() { p.users.current() }
