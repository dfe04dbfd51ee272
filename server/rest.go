package server

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unique"

	"github.com/sallyport/sallyport/socks"
)

// whole is all that is known of a session, and what is judged about it.
type whole struct {
	record  Record
	grant   Grant
	request *Request // nil: it has made none yet
}

// rest is a whole of which nothing is wanted for as long as nobody asks: a tenth of the
// memory, and hardly a pointer for the garbage collector to follow.
type rest struct {
	terms  unique.Handle[terms]
	packed string
	rare   *rare // nil: there is nothing of it
}

// terms are what many sessions have in common.
type terms struct {
	listener, asked            string // what the listener was called when the session began, and when its request was read
	protocol                   Protocol
	command                    socks.Command
	tls, http2, relayed        bool
	offered                    bool
	byRequest, byGrant, proven Proof
	rule                       string
	way                        *Way
	bind                       BindOptions
	byName, virtual            bool
}

// rare is what few sessions have.
type rare struct {
	through                netip.AddrPort
	to                     socks.Addr
	socket, proxy, primary string
	addrs                  []netip.Addr
	until                  time.Time
	budget                 Budget
}

// pack puts w away. Of what was granted to a session that has reached an address no
// other is of use any more, and an answer has been given: neither is kept.
func (w *whole) pack() rest {
	r, g := &w.record, &w.grant
	p := packing{bytes: make([]byte, 0, 128)} // as a rule it does not leave the stack
	w.each(&p)
	return rest{
		terms: unique.Make(terms{
			listener: r.Listener, asked: w.request.Listener, protocol: r.Protocol, command: r.Command,
			tls: r.TLS, http2: r.HTTP2, relayed: w.request.Relayed, offered: r.Offered,
			byRequest: w.request.Identity.Proof, byGrant: g.Identity.Proof, proven: r.Identity.Proof,
			rule: r.Rule, way: g.Way, bind: g.Bind, byName: g.ByName, virtual: g.Virtual,
		}),
		packed: string(p.bytes),
		rare:   w.rare(),
	}
}

// rare returns what of w few sessions have; nil: nothing.
func (w *whole) rare() *rare {
	r, g := &w.record, &w.grant
	is := rare{through: r.Through, to: r.To, socket: r.Socket, proxy: r.Proxy, primary: r.Primary, until: g.Until, budget: g.Budget}
	if !r.Address.IsValid() {
		is.addrs = g.Addrs
	}
	if !is.through.IsValid() && is.to == (socks.Addr{}) && is.socket == "" && is.proxy == "" && is.primary == "" &&
		is.until.IsZero() && is.budget == nil && len(is.addrs) == 0 {
		return nil
	}
	return &is
}

// unpack is the opposite of pack. ID and Started are the session's own.
func (s *rest) unpack() *whole {
	t := s.terms.Value()
	w := &whole{
		record: Record{
			Listener: t.listener, Protocol: t.protocol, Command: t.command, TLS: t.tls, HTTP2: t.http2, Offered: t.offered,
			Identity: Identity{Proof: t.proven}, Rule: t.rule, Via: t.way.via(),
		},
		grant: Grant{
			Rule: t.rule, Identity: Identity{Proof: t.byGrant}, Way: t.way, Bind: t.bind, ByName: t.byName, Virtual: t.virtual,
		},
		request: &Request{
			Protocol: t.protocol, Command: t.command, Relayed: t.relayed, Listener: t.asked, Identity: Identity{Proof: t.byRequest},
		},
	}
	r, g := &w.record, &w.grant
	if s.rare != nil {
		r.Through, r.To, r.Socket, r.Proxy, r.Primary = s.rare.through, s.rare.to, s.rare.socket, s.rare.proxy, s.rare.primary
		g.Addrs, g.Until, g.Budget = s.rare.addrs, s.rare.until, s.rare.budget
	}
	w.each(&packing{left: s.packed, reads: true})
	w.request.Client, w.request.Target = r.Client, r.Target
	if r.Address.IsValid() {
		g.Addrs = []netip.Addr{r.Address.Addr()}
	}
	return w
}

// each packs, or unpacks, what is each session's own.
func (w *whole) each(p *packing) {
	r := &w.record
	target := netip.AddrPortFrom(r.Target.IP, r.Target.Port)
	p.address(&target, netip.AddrPort{})
	if r.Target.IP, r.Target.Port = target.Addr(), target.Port(); !r.Target.IP.IsValid() {
		p.text(&r.Target.Name)
	}
	for _, at := range [...]*netip.AddrPort{&r.Address, &r.Client, &w.request.Local, &r.Bound} {
		p.address(at, target)
	}
	before := &Identity{}
	for _, id := range [...]*Identity{&r.Identity, &w.grant.Identity, &w.request.Identity} {
		p.identity(id, before)
		before = id
	}
}

// packing writes values behind each other, or reads them in the same order.
type packing struct {
	bytes []byte // what was written
	reads bool
	left  string // what is to be read
}

func (p *packing) number(n *uint64) {
	if !p.reads {
		p.bytes = binary.AppendUvarint(p.bytes, *n)
		return
	}
	*n = 0
	for i := range len(p.left) { // by bytes: some look like characters of several
		*n |= uint64(p.left[i]&0x7f) << (7 * i)
		if p.left[i] < 0x80 {
			p.left = p.left[i+1:]
			return
		}
	}
}

func (p *packing) text(s *string) {
	size := uint64(len(*s))
	if p.number(&size); p.reads {
		*s, p.left = p.left[:size], p.left[size:]
		return
	}
	p.bytes = append(p.bytes, *s...)
}

// address leaves out what is the same as usual.
func (p *packing) address(a *netip.AddrPort, usual netip.AddrPort) {
	var room [40]byte // which an address without a long zone has enough of
	if p.reads {
		var text string
		if p.text(&text); text == "" {
			*a = usual
			return
		}
		_ = a.UnmarshalBinary(append(room[:0], text...)) // it does not fail, of what was written by the other
		return
	}
	var b []byte
	if *a != usual {
		b, _ = a.AppendBinary(room[:0]) // nor does this
	}
	text := string(b)
	p.text(&text)
}

// identity leaves out what is the same as before. The proof is no part of it.
func (p *packing) identity(id, before *Identity) {
	var own uint64
	if id.Name != before.Name || id.Mark != before.Mark {
		own = 1
	}
	if p.number(&own); own == 0 {
		id.Name, id.Mark = before.Name, before.Mark
		return
	}
	p.text(&id.Name)
	p.number(&id.Mark)
}
