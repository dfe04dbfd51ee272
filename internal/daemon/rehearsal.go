package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// rehearsal answers requests as a server with the same settings would, without
// one: by the same rules, which the same code has made. It opens no socket, wants
// no password and asks no client's identd. It is for one request at a time.
type rehearsal struct {
	settings *config.Settings
	rules    *rules // whose policy is one of these surroundings:

	at      time.Time                                                             // when it is
	identd  func() (string, error)                                                // what the client's identd would say
	resolve func(ctx context.Context, network, host string) ([]netip.Addr, error) // looks names up; nil: as the settings say
}

// newRehearsal reads the settings. Bad ones are a [*SettingsError].
func newRehearsal(ctx context.Context, src Source) (*rehearsal, error) {
	s, err := src.load()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	p, err := openPeople(ctx, s, nil, log)
	if err != nil {
		return nil, fmt.Errorf("the users in the ledger cannot be read: %w", err)
	}
	rules, err := buildRules(s, nil, p, nil, log)
	if err != nil {
		return nil, &SettingsError{err}
	}
	return rehearse(s, rules), nil
}

// rehearse returns a rehearsal of rules, which the settings have made. It changes
// nothing about them.
func rehearse(s *config.Settings, by *rules) *rehearsal {
	own := *by
	own.limits = nil
	r := &rehearsal{settings: s, rules: &own}
	r.rules.policy = buildPolicy(by.people.fill(s), r.rules, access.Options{
		Resolver: r,
		Identd:   func(context.Context, netip.AddrPort, netip.AddrPort) (string, error) { return r.identd() },
		Now:      func() time.Time { return r.at },
	})
	if r.rules.passwords != nil {
		r.rules.passwords = r.rules.passwords.Renewed(r.rules.policy, r.rules.directory(s)) // what logins are for is asked of the same rules
	}
	return r
}

// LookupNetIP implements [access.Resolver].
func (r *rehearsal) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if r.resolve != nil {
		return r.resolve(ctx, network, host)
	}
	return r.rules.resolver.LookupNetIP(ctx, network, host)
}

// listener returns the listener of a name, as rules and the log call it.
func (r *rehearsal) listener(name string) (config.Listener, bool) {
	i := slices.IndexFunc(r.settings.Listeners, func(l config.Listener) bool { return nameOf(l) == name })
	if i < 0 {
		return config.Listener{}, false
	}
	return r.settings.Listeners[i], true
}

// nameOf is what rules and the log call a listener.
func nameOf(l config.Listener) string { return cmp.Or(l.Name, l.Listen) }

// outcome is how a request would fare, and how it came to that.
type outcome struct {
	access.Explanation
	unread server.Proof // what the client would show in vain: nothing there reads it
}

// ask puts a request to the server of the rehearsal. Of the identity, a password
// or a certificate counts as right. Without a target it is only about the
// association as such.
func (r *rehearsal) ask(ctx context.Context, l config.Listener, q server.Request) outcome {
	var o outcome
	refusal := r.admit(l, &q, &o)
	mapped := q.Protocol == server.Mapped // what it leads to may be a unix socket
	if q.Command == socks.Connect && q.Target.Port == 0 && refusal == nil && !mapped {
		refusal = server.Foresee(&q, server.Grant{}) // the rules are not asked
	}
	if q.Command == socks.Associate && refusal == nil && !mapped {
		before := q
		before.Target = socks.Addr{} // of a destination nothing is known yet
		_, refusal = r.rules.policy.MayAssociate(ctx, &before)
	}
	if refusal != nil || q.Target == (socks.Addr{}) {
		o.Err, o.Grant = refusal, server.Grant{Identity: q.Identity}
		return o
	}
	o.Explanation = r.rules.policy.Explain(ctx, &q)
	if o.Err == nil {
		o.Err = server.Foresee(&q, o.Grant)
	}
	return o
}

// admit does what a server does before it asks the rules: it leaves in q the
// identity that would be believed.
func (r *rehearsal) admit(l config.Listener, q *server.Request, o *outcome) error {
	if !slices.Contains(l.Protocols, string(q.Protocol)) {
		return notSpoken(l, q.Protocol)
	}
	shown := q.Identity
	if shown.Proof == server.Certificate && l.TLS.ClientCA == "" {
		o.unread, q.Identity = shown.Proof, server.Identity{}
	}
	if q.Protocol == server.Mapped {
		return nil // nobody is asked for a login
	}
	if isSOCKS4(q.Protocol) {
		if len(shown.Name) > l.UserIDMax && shown.Proof == server.Claimed {
			return fmt.Errorf("%w: a userid of more than %d bytes", server.BadRequest, l.UserIDMax)
		}
		return nil
	}
	return r.signIn(l, q, o)
}

// signIn is admit for the protocols that have logins.
func (r *rehearsal) signIn(l config.Listener, q *server.Request, o *outcome) error {
	login := r.login(l, q)
	var err error
	switch shown := q.Identity; {
	case shown.Proof == server.Key && q.Protocol != server.SSH, (shown.Proof == server.Password || shown.Proof == server.Key) && login == server.LoginNone:
		o.unread, q.Identity = shown.Proof, server.Identity{}
	case shown.Proof == server.Password, shown.Proof == server.Key:
		q.Identity, err = r.rules.passwords.Foretell(shown.Name, shown.Proof)
	case q.Protocol == server.SSH && shown.Proof == server.NoProof && login != server.LoginNone:
		err = fmt.Errorf("%w: the client shows none", server.BadLogin)
	case shown.Proof != server.Certificate && login == server.LoginRequired:
		err = fmt.Errorf("%w: the client shows none", server.BadLogin)
	}
	return err
}

// login is what such a client has to show on the listener.
func (r *rehearsal) login(l config.Listener, q *server.Request) server.Login {
	if r.rules.passwords == nil {
		return server.LoginNone
	}
	return r.rules.passwords.Login(nameOf(l), q.Protocol, q.Client.Addr())
}

func isSOCKS4(p server.Protocol) bool { return p == server.SOCKS4 || p == server.SOCKS4a }

// notSpoken is what becomes of a client whose protocol a listener does not speak.
func notSpoken(l config.Listener, p server.Protocol) error {
	other := slices.ContainsFunc(l.Protocols, func(name string) bool { return isSOCKS4(server.Protocol(name)) })
	if isSOCKS4(p) && other {
		return fmt.Errorf("%w: this listener does not speak %s", server.Unsupported, p)
	}
	return fmt.Errorf("%w: this listener does not speak %s", server.Garbage, p)
}
