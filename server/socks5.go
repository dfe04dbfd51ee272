package server

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/sallyport/sallyport/socks"
)

// socks5 is the handshake of SOCKS 5 (RFC 1928): a greeting, a login where the
// method that was chosen asks for one (RFC 1929), and the request.
type socks5 struct {
	login    Login
	due      message5
	identity Identity
	asked    Request // what it ends in: one piece of memory for both
}

// message5 is what a client of SOCKS 5 has to say next.
type message5 int

const (
	greeting5 message5 = iota
	login5
	request5
)

func (h *socks5) feed(arrived []byte) (int, step) {
	switch h.due {
	case greeting5:
		return h.greeting(arrived)
	case login5:
		return h.password(arrived)
	default:
		return h.request(arrived)
	}
}

// The answers to a greeting that go on.
var (
	chosePassword = socks.Choice5{Method: socks.Password}.Append(nil)
	choseNoAuth   = socks.Choice5{Method: socks.NoAuth}.Append(nil)
)

// greeting chooses the method: a password where the client offers one and it
// would be read, none where the rules can do without, else there is nothing to
// talk about.
func (h *socks5) greeting(arrived []byte) (int, step) {
	g, took, err := socks.ParseGreeting5(arrived)
	if errors.Is(err, socks.ErrShort) {
		return 0, step{}
	}
	if err != nil {
		return len(arrived), h.noMethod(fmt.Errorf("%w: %w", BadRequest, err))
	}
	switch {
	case g.Offers(socks.Password) && h.login != LoginNone:
		h.due = login5
		return took, step{reply: chosePassword}
	case g.Offers(socks.NoAuth) && h.login != LoginRequired:
		h.due = request5
		return took, step{reply: choseNoAuth}
	case h.login == LoginRequired:
		return took, h.noMethod(fmt.Errorf("%w: the client offers none", BadLogin))
	}
	return took, h.noMethod(fmt.Errorf("%w: no method in common", Unsupported))
}

func (h *socks5) noMethod(reason error) step {
	return step{refusal: reason, reply: socks.Choice5{Method: socks.NoAcceptable}.Append(nil)}
}

func (h *socks5) password(arrived []byte) (int, step) {
	login, took, err := socks.ParseLogin5(arrived)
	switch {
	case errors.Is(err, socks.ErrShort):
		return 0, step{}
	case err != nil:
		return len(arrived), h.badLogin(fmt.Errorf("%w: %w", BadRequest, err))
	}
	return took, step{credentials: &Credentials{Name: login.Name, Password: login.Password}, then: h.authenticated}
}

func (h *socks5) badLogin(reason error) step {
	return step{refusal: reason, reply: socks.LoginReply5{}.Append(nil)}
}

// authenticated goes on after a step that asked for credentials to be checked.
func (h *socks5) authenticated(id Identity, err error) step {
	if err != nil {
		return h.badLogin(err)
	}
	h.identity, h.due = id, request5
	return step{reply: socks.LoginReply5{Granted: true}.Append(nil)}
}

func (h *socks5) request(arrived []byte) (int, step) {
	r, took, err := socks.ParseRequest5(arrived)
	switch {
	case errors.Is(err, socks.ErrShort):
		return 0, step{}
	case errors.Is(err, socks.ErrAddressType):
		return len(arrived), refuse5(fmt.Errorf("%w: %w", BadRequest, err), socks.TypeUnsupported5)
	case err != nil:
		return len(arrived), refuse5(fmt.Errorf("%w: %w", BadRequest, err), socks.GeneralFailure5)
	}
	target, err := r.Host.Addr()
	h.asked = Request{
		Protocol: SOCKS5,
		Command:  r.Command,
		Identity: h.identity,
		Target:   target,
		Replier:  replier5{},
	}
	if err != nil {
		refused := refuse5(fmt.Errorf("%w: %w", BadRequest, err), socks.HostUnreachable5)
		refused.about = &h.asked
		return took, refused
	}
	return took, step{request: &h.asked}
}

func refuse5(reason error, code socks.Code5) step {
	return step{refusal: reason, reply: socks.Reply5{Code: code, Host: socks.NewHost5(netip.AddrPort{})}.Append(nil)}
}

// replier5 answers with the codes of RFC 1928, section 6.
type replier5 struct{}

func (replier5) AppendGrant(b []byte, bound netip.AddrPort) []byte {
	return socks.Reply5{Code: socks.Succeeded5, Host: socks.NewHost5(bound)}.Append(b)
}

func (replier5) AppendDeny(b []byte, reason error, about netip.AddrPort) []byte {
	return socks.Reply5{Code: code5(reason), Host: socks.NewHost5(about)}.Append(b)
}

// code5 puts a refusal into the code that comes nearest.
func code5(reason error) socks.Code5 {
	switch ReasonOf(reason) {
	case Denied, Schedule, Revoked, Ended, NoIdentd, OtherUser, Loop, NoPrimary, WrongPeer, BadLogin, TooMany, TooFast, Quota, NoLedger:
		return socks.NotAllowed5
	case Unreachable:
		if errors.Is(reason, syscall.ENETUNREACH) {
			return socks.NetworkUnreachable5
		}
		return socks.HostUnreachable5
	case NoName:
		return socks.HostUnreachable5
	case Refused:
		return socks.Refused5
	case TimedOut:
		return socks.TTLExpired5
	case Unsupported:
		return socks.CommandUnsupported5
	}
	return socks.GeneralFailure5
}
