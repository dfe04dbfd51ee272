package server

import (
	"context"
	"net/netip"
)

// Credentials are what a client shows of itself during a handshake.
type Credentials struct {
	Protocol Protocol
	Listener string
	Client   netip.AddrPort
	Name     string
	Password string // never printed, never kept

	// Key is the public key that the client shows in the place of a password, as SSH
	// has it on the wire (RFC 4253, section 6.6); nil: it shows none. A right one counts
	// once the client has signed with it.
	Key []byte
}

// Login says what a client has to show before its request is known.
type Login int

// The answers of [Authenticator.Login].
const (
	LoginNone     Login = iota // nothing that it could show would be read
	LoginOptional              // a password opens more than there is without one
	LoginRequired              // without a password nothing can be granted; who could show one and does not is refused
)

// Authenticator checks passwords. It may block, must honour ctx, and is called
// from many goroutines at once. Where a Server has none, nobody is asked for a
// password. It keeps nobody out of what the [Policy] grants: SOCKS 4 and port mappings
// have no login, and their clients come to the Policy with a name that nothing has
// proved, or none. A Policy that wants a password looks at Identity.Proof.
type Authenticator interface {
	// Login says what a client from there has to show on this listener. It does
	// not block.
	Login(listener string, p Protocol, client netip.Addr) Login
	// Authenticate returns the identity that the credentials prove, or an error
	// that wraps [BadLogin]. It takes the same time for a user that it does not know.
	Authenticate(ctx context.Context, c Credentials) (Identity, error)
}

// login says what a client there has to show.
func (s *Server) login(listener string, p Protocol, client netip.Addr) Login {
	if s.Authenticator == nil {
		return LoginNone
	}
	return s.Authenticator.Login(listener, p, client)
}

// login says what this client has to show. One that came with a certificate
// need not have a password as well.
func (x *exchange) login(p Protocol) Login {
	login := x.server.login(x.listener.Name, p, x.session.Client.Addr())
	if x.certificate.Name != "" {
		login = min(login, LoginOptional)
	}
	return login
}
