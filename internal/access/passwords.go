package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/server"
)

// Passwords checks logins against a users file, or a list of users. It is a [server.Authenticator];
// make one with [NewPasswords]. Safe for concurrent use.
type Passwords struct {
	policy  *Policy
	users   Directory
	log     *slog.Logger
	guesses *guesses
	slots   chan struct{} // one for each hash that is computed at once

	mu     sync.Mutex
	trials map[trialKey]*trial
}

// A trial is a login that is being looked at. The same login from the same
// source waits for its end: a browser starts with many requests at once.
type trial struct {
	over  chan struct{} // closed when the rest is known
	right bool
	err   error // why it came to no end
}

type trialKey struct {
	source netip.Addr
	login  loginKey
}

// maxPause is how long a login is held back at the most; one that would have to
// wait longer is refused. It is less than clients have for their handshake.
const maxPause = 5 * time.Second

// The words are for the log; clients are told the same in every case.
var (
	errWrongLogin  = fmt.Errorf("%w: no such user, or another password", server.BadLogin)
	errManyGuesses = fmt.Errorf("%w: too many wrong passwords came from there", server.BadLogin)
)

// NewPasswords returns a Passwords with these users, for the rules of
// policy. Every login that fails is a line in the log: msg="bad login" and then
// client, user and protocol.
func NewPasswords(policy *Policy, users Directory, log *slog.Logger) *Passwords {
	return &Passwords{
		policy:  policy,
		users:   users,
		log:     log,
		guesses: newGuesses(),
		slots:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		trials:  map[trialKey]*trial{},
	}
}

// Renewed returns a Passwords for other rules, and maybe other users, that
// remembers the wrong passwords of this one.
func (p *Passwords) Renewed(policy *Policy, users Directory) *Passwords {
	renewed := NewPasswords(policy, users, p.log)
	renewed.guesses, renewed.slots = p.guesses, p.slots
	return renewed
}

// Login implements [server.Authenticator]: the rules for the listener, the
// protocol and the source say whether a password opens anything, and whether
// anything is open without one.
func (p *Passwords) Login(listener string, protocol server.Protocol, client netip.Addr) server.Login {
	return p.policy.login(listener, protocol, client)
}

// opensWithoutPassword reports whether a client that shows no password could
// match the rule.
func (r *Rule) opensWithoutPassword() bool {
	if !r.needsUser() || len(r.Proofs) == 0 {
		return true
	}
	return slices.ContainsFunc(r.Proofs, func(proof server.Proof) bool {
		return proof != server.Password && proof != server.Key && proof != server.Claimed // which SOCKS 4 alone has
	})
}

// deniesAll reports whether the rule denies every request of a client that it
// matches.
func (r *Rule) deniesAll() bool {
	return r.Deny && !r.needsUser() && len(r.Commands) == 0 && len(r.Ports) == 0 &&
		slices.ContainsFunc(r.destinations(), func(d Destination) bool { return d.Name == "" && d.Class == Any })
}

// Authenticate implements [server.Authenticator]. It blocks while a password is
// hashed, and before that for as long as the source has to pause. A key is looked
// up at once: there is nothing to be guessed in it, and that a client has another
// one is no line in the log.
func (p *Passwords) Authenticate(ctx context.Context, c server.Credentials) (server.Identity, error) {
	if c.Key != nil {
		return p.authenticateKey(ctx, c)
	}
	users := p.users.current()
	key := trialKey{sourceOf(c.Client.Addr()), users.verified.key(c.Name, c.Password)}
	right, err := p.try(ctx, users, key, c)
	switch {
	case err == nil && !right:
		err = errWrongLogin
	case err == nil:
		return server.Identity{Name: c.Name, Proof: server.Password, Mark: users.accounts.marks[c.Name]}, nil
	}
	if errors.Is(err, server.BadLogin) {
		p.log.Warn("bad login", "client", c.Client.Addr().String(), "user", Escape(c.Name), "protocol", string(c.Protocol), "listener", c.Listener)
	}
	return server.Identity{}, err
}

// try finds out whether a login is right: from memory, from whoever is at it
// already, or by hashing.
func (p *Passwords) try(ctx context.Context, users *users, key trialKey, c server.Credentials) (bool, error) {
	for {
		if users.verified.has(key.login, time.Now()) {
			return true, nil
		}
		t, mine := p.join(key)
		if mine {
			t.right, t.err = p.compare(ctx, users, c)
			if t.right {
				users.verified.add(key.login, time.Now())
			}
			p.leave(key, t)
			return t.right, t.err
		}
		select {
		case <-t.over:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		if t.err == nil || errors.Is(t.err, server.BadLogin) {
			return t.right, t.err
		} // else that client left, and nothing is known
	}
}

// join returns the trial of a login, and whether it is a new one.
func (p *Passwords) join(key trialKey) (_ *trial, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, ok := p.trials[key]; ok {
		return t, false
	}
	t := &trial{over: make(chan struct{})}
	p.trials[key] = t
	return t, true
}

func (p *Passwords) leave(key trialKey, t *trial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.trials, key)
	close(t.over)
}

// compare hashes the password when there is a slot for it, and the source need
// not pause. Nobody pauses in a slot.
func (p *Passwords) compare(ctx context.Context, users *users, c server.Credentials) (bool, error) {
	last := time.Now().Add(maxPause)
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		now := time.Now()
		wait := p.guesses.admit(c.Client.Addr(), c.Name, now)
		if wait <= 0 {
			right := users.accounts.matches(c.Name, c.Password)
			p.guesses.ended(c.Client.Addr(), c.Name, right, time.Now())
			<-p.slots
			return right, nil
		}
		<-p.slots
		if now.Add(wait).After(last) {
			return false, &server.LaterError{Err: errManyGuesses, After: wait}
		}
		if err := pause(ctx, wait); err != nil {
			return false, err
		}
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
