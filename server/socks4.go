package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/socks"
)

func (l *Listener) speaks(p Protocol) bool {
	if p == SSH {
		return l.HostKey != nil && slices.Contains(l.Protocols, p)
	}
	return len(l.Protocols) == 0 || slices.Contains(l.Protocols, p)
}

func (l *Listener) maxUserID() int {
	return orElse(min(l.MaxUserID, socks.MaxUserID), socks.DefaultUserID)
}

// socks4 is the handshake of SOCKS 4 and 4a: one request, nothing before it.
type socks4 struct {
	listener *Listener
	asked    Request // what it ends in: one piece of memory for both
}

func (h *socks4) feed(arrived []byte) (int, step) {
	r, took, err := socks.ParseRequest4(arrived, h.listener.maxUserID())
	switch {
	case errors.Is(err, socks.ErrShort):
		return 0, step{}
	case err != nil:
		return len(arrived), refuse4(fmt.Errorf("%w: %w", BadRequest, err))
	}
	request, err := h.request(r)
	if err != nil {
		refused := refuse4(err)
		refused.about = request
		return took, refused
	}
	return took, step{request: request}
}

// request turns what was on the wire into what is asked. It refuses what no
// policy could grant, and returns what it made of that too.
func (h *socks4) request(r socks.Request4) (*Request, error) {
	request := &h.asked
	*request = Request{
		Protocol: SOCKS4,
		Command:  r.Command,
		Identity: Identity{Name: r.UserID},
		Target:   socks.Addr{IP: r.IP, Port: r.Port},
		Replier:  replier4{},
	}
	if r.UserID != "" {
		request.Identity.Proof = Claimed
	}
	if r.Is4a() {
		target, err := socks.NewAddr(r.Host, r.Port)
		request.Protocol, request.Target = SOCKS4a, target
		if err != nil {
			return request, fmt.Errorf("%w: %w", BadRequest, err)
		}
	}
	if !h.listener.speaks(request.Protocol) {
		return request, fmt.Errorf("%w: this listener does not speak %s", Unsupported, request.Protocol)
	}
	return request, nil
}

func refuse4(reason error) step {
	return step{refusal: reason, reply: replier4{}.AppendDeny(nil, reason, netip.AddrPort{})}
}

// replier4 answers by the paper: 90 granted, 92 and 93 where IDENT was what
// failed, 91 for everything else.
type replier4 struct{}

func (replier4) AppendGrant(b []byte, bound netip.AddrPort) []byte {
	return socks.NewReply4(socks.Granted4, bound).Append(b)
}

func (replier4) AppendDeny(b []byte, reason error, about netip.AddrPort) []byte {
	code := socks.Rejected4
	switch ReasonOf(reason) {
	case NoIdentd:
		code = socks.NoIdentd4
	case OtherUser:
		code = socks.OtherUser4
	}
	return socks.NewReply4(code, about).Append(b)
}
