package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
)

// rules are what decides at one time: policy, users and ways out belong together,
// and are replaced together.
type rules struct {
	policy    *access.Policy
	passwords *access.Passwords // nil: there are no users
	file      *access.UsersFile // what passwords reads; nil: there are no users, or people are
	people    *people           // those that the ledger has; nil: none
	ways      waysOut
	maps      mappings
	lists     lists
	resolver  access.Resolver // the policy's
	limits    *limits.Table   // nil: nobody counts towards any, as nothing is served
}

// still is a [server.Judge].
func (r *rules) still(h server.Held) (time.Time, error) {
	if err := r.passwords.Still(h.Request.Identity); err != nil || h.Request.Command == 0 {
		return time.Time{}, err
	}
	return r.policy.Still(h)
}

// ruling is the rules in force, for a server that never stops asking: its
// policy and its authenticator. Each question is answered by one set of rules,
// the one before a reload or the one after it.
type ruling struct{ now atomic.Pointer[rules] }

// Decide implements [server.Policy]. Who has signed in before the users changed
// is judged by those of now.
func (r *ruling) Decide(ctx context.Context, q *server.Request) (server.Grant, error) {
	now := r.now.Load()
	if err := now.passwords.Still(q.Identity); err != nil {
		return server.Grant{}, err
	}
	return now.policy.Decide(ctx, q)
}

// DecideNow implements [server.PromptPolicy].
func (r *ruling) DecideNow(q *server.Request) (g server.Grant, known bool, err error) {
	now := r.now.Load()
	if err := now.passwords.Still(q.Identity); err != nil {
		return server.Grant{}, true, err
	}
	return now.policy.DecideNow(q)
}

// MayAssociate implements [server.AssociatePolicy].
func (r *ruling) MayAssociate(ctx context.Context, q *server.Request) (until time.Time, err error) {
	now := r.now.Load()
	if err := now.passwords.Still(q.Identity); err != nil {
		return time.Time{}, err
	}
	return now.policy.MayAssociate(ctx, q)
}

// Login implements [server.Authenticator].
func (r *ruling) Login(listener string, p server.Protocol, client netip.Addr) server.Login {
	if now := r.now.Load(); now.passwords != nil {
		return now.passwords.Login(listener, p, client)
	}
	return server.LoginNone
}

// Authenticate implements [server.Authenticator].
func (r *ruling) Authenticate(ctx context.Context, c server.Credentials) (server.Identity, error) {
	now := r.now.Load()
	if now.passwords == nil { // there were some when the client was asked
		return server.Identity{}, fmt.Errorf("%w: there are no users any more", server.BadLogin)
	}
	return now.passwords.Authenticate(ctx, c)
}
