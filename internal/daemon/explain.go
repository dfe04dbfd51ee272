package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Question is a request to be explained.
type Question struct {
	From     netip.Addr      // where the client is
	User     string          // who it says it is; empty: it does not say
	Proof    server.Proof    // how that is shown; empty: as the protocol has it
	Target   socks.Addr      // where it wants to go
	Command  socks.Command   // zero: connect
	Protocol server.Protocol // empty: what the rest asks for, else socks5
	Listener string          // its name; empty: the only one
	At       time.Time       // zero: now
}

// QuestionError says that a [Question] makes no sense, and why.
type QuestionError struct{ text string }

// Error returns the text.
func (e *QuestionError) Error() string { return e.text }

func badQuestion(format string, args ...any) error {
	return &QuestionError{fmt.Sprintf(format, args...)}
}

// Explanation tells how a request fares by the settings, and why.
type Explanation = admin.Explanation

// Step is a rule on the way of a request.
type Step = admin.Step

// Explain decides as [Daemon.Run] would by the same settings, and tells how it came
// to that. It opens no listening socket and asks no identd; it looks the target's
// name up where a rule needs it, and blocks as long. Bad settings are a
// [*SettingsError], a bad question is a [*QuestionError].
func Explain(ctx context.Context, src Source, ask Question) (*Explanation, error) {
	r, err := newRehearsal(ctx, src)
	if err != nil {
		return nil, err
	}
	return r.explain(ctx, ask)
}

// explain is Explain by the settings of the rehearsal.
func (r *rehearsal) explain(ctx context.Context, ask Question) (*Explanation, error) {
	l, err := r.chooseListener(ask.Listener)
	if err != nil {
		return nil, err
	}
	if l.Map != nil && ask.Protocol == "" {
		ask.Protocol = server.Mapped
	}
	if err := ask.complete(); err != nil {
		return nil, err
	}
	r.at, r.identd = ask.At, ask.identd
	q := ask.request(l)
	o := r.ask(ctx, l, q)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var after []access.Step
	if len(o.Steps) == 0 && isAboutLogins(o.Err, q.Command) {
		after = r.rules.policy.Explain(ctx, &q).Steps // what would have helped
	}
	return r.tell(ask, q, o, after), nil
}

// isAboutLogins reports whether it is worth it to look at the rules, though the
// server had not come to them.
func isAboutLogins(err error, c socks.Command) bool {
	return server.ReasonOf(err) == server.BadLogin || err != nil && c == socks.Associate
}

// chooseListener returns the one of a name; empty: the only one. One that has several
// addresses stands in the settings as many.
func (r *rehearsal) chooseListener(name string) (config.Listener, error) {
	var names []string
	for _, l := range r.settings.Listeners {
		if quoted := strconv.Quote(nameOf(l)); !slices.Contains(names, quoted) {
			names = append(names, quoted)
		}
	}
	if name == "" && len(names) == 1 {
		return r.settings.Listeners[0], nil
	}
	if name == "" {
		return config.Listener{}, badQuestion("there are several listeners: say with --listener which one of %s", strings.Join(names, ", "))
	}
	l, ok := r.listener(name)
	if !ok {
		return l, badQuestion("there is no listener %q; there is %s", name, strings.Join(names, ", "))
	}
	return l, nil
}

// protocolFor returns a protocol that has a proof.
func protocolFor(p server.Proof) server.Protocol {
	switch p {
	case server.Claimed:
		return server.SOCKS4a
	case server.Key:
		return server.SSH
	}
	return server.SOCKS5
}

// complete fills in what was left out, and refuses what no client can ask.
func (ask *Question) complete() error {
	if ask.Command == 0 {
		ask.Command = socks.Connect
	}
	if ask.At.IsZero() {
		ask.At = time.Now()
	}
	ask.From = ask.From.Unmap()
	if ask.Protocol == "" {
		ask.Protocol = protocolFor(ask.Proof)
	}
	if ask.User != "" && ask.Proof == server.NoProof {
		ask.Proof = usualProof(ask.Protocol)
	}
	return ask.possible()
}

// usualProof is how who names a user shows that by a protocol.
func usualProof(p server.Protocol) server.Proof {
	switch {
	case isSOCKS4(p):
		return server.Claimed
	case p == server.Mapped:
		return server.Certificate
	}
	return server.Password
}

// possible refuses what no client can ask.
func (ask *Question) possible() error {
	four := isSOCKS4(ask.Protocol)
	switch {
	case ask.User == "" && ask.Proof != server.NoProof:
		return badQuestion("the proof %s is of a name: say with --user whose", ask.Proof)
	case ask.Proof == server.Claimed && !four:
		return badQuestion("a bare claim is possible in SOCKS 4 only: %s has passwords", ask.Protocol)
	case ask.Proof == server.Password && ask.Protocol == server.Mapped:
		return badQuestion("the clients of a port mapping show no password")
	case ask.Proof == server.Password && four:
		return badQuestion("%s has no passwords: a userid is claimed, and identd may confirm it", ask.Protocol)
	case ask.Proof == server.Key && ask.Protocol != server.SSH:
		return badQuestion("a key is shown over ssh only")
	case ask.Protocol == server.SOCKS4 && !ask.Target.IP.Is4():
		return badQuestion("socks4 has IPv4 addresses only: its clients look names up themselves; socks4a has names")
	case ask.Command == socks.Associate && ask.Protocol != server.SOCKS5 && ask.Protocol != server.Mapped:
		return badQuestion("%s has no UDP: socks5 has", ask.Protocol)
	case ask.Command == socks.Bind && ask.Protocol == server.Mapped:
		return badQuestion("a port mapping has no BIND: SOCKS has")
	case ask.Command == socks.Bind && ask.Protocol == server.HTTP:
		return badQuestion("http has no BIND: SOCKS has")
	}
	return nil
}

var errIdentdNotAsked = fmt.Errorf("%w: identd is not asked here; --proof ident takes it that it confirms the user", server.NoIdentd)

// identd is what the client's identd would say.
func (ask *Question) identd() (string, error) {
	if ask.Proof != server.Ident {
		return "", errIdentdNotAsked
	}
	return ask.User, nil
}

// request is the request of which the server would be asked.
func (ask *Question) request(l config.Listener) server.Request {
	return server.Request{
		Protocol: ask.Protocol, Command: ask.Command, Identity: shown(ask.Protocol, ask.User, ask.Proof),
		Target: ask.Target, Client: netip.AddrPortFrom(ask.From, 0), Listener: nameOf(l),
	}
}

// shown is what a client itself shows of who it is, where it turns out to be user
// by that proof: what identd says it need not know.
func shown(p server.Protocol, user string, proof server.Proof) server.Identity {
	switch four := isSOCKS4(p); {
	case user == "", proof == server.NoProof, proof == server.Ident && !four:
		return server.Identity{}
	case proof == server.Ident:
		proof = server.Claimed
	}
	return server.Identity{Name: user, Proof: proof}
}

// tell makes an Explanation of what came out. The steps after are of rules that
// the server would have come to, had it not refused before.
func (r *rehearsal) tell(ask Question, q server.Request, o outcome, after []access.Step) *Explanation {
	e := &Explanation{
		Allowed: o.Err == nil, Rule: o.Grant.Rule,
		Listener: q.Listener, Protocol: string(q.Protocol), Command: q.Command.String(), From: ask.From.String(),
		User: access.Escape(o.Grant.Identity.Name), Proof: string(o.Grant.Identity.Proof),
		Target: q.Target.String(), At: ask.At, Limits: o.Limits,
	}
	if q.Target.Name != "" {
		e.Addresses = addresses(o.Addrs)
	}
	for _, s := range append(o.Steps, after...) {
		e.Steps = append(e.Steps, Step{Rule: s.Rule, Deny: s.Deny, Miss: string(s.Miss), Text: s.Text, Wants: spelled(s.Wants)})
	}
	e.Notes = r.notes(ask, o)
	if len(after) > 0 {
		e.Notes = append(e.Notes, "the server refuses before it looks at the target; what the rules would say is below")
	}
	if o.Err != nil {
		e.Reason, e.Detail, e.Limits = string(server.ReasonOf(o.Err)), detailOf(o.Err), nil
		return e
	}
	e.Granted, e.ByName, e.Until = addresses(o.Grant.Addrs), o.Grant.ByName && q.Target.Name != "", o.Grant.Until
	for _, rule := range r.settings.Rules {
		if rule.Name == o.Grant.Rule {
			e.Via = rule.Via
			e.Outgoing = outgoing(rule)
		}
	}
	return e
}

// outgoing tells how the sessions of a rule leave this machine.
func outgoing(r config.Rule) string {
	all := addresses([]netip.Addr{r.Outgoing})
	if r.Interface != "" {
		all = append(all, r.Interface)
	}
	if r.Mark != 0 {
		all = append(all, fmt.Sprintf("mark %d", r.Mark))
	}
	return strings.Join(all, ", ")
}

// notes is what the verdict alone does not tell.
func (r *rehearsal) notes(ask Question, o outcome) []string {
	var all []string
	if o.unread != "" {
		all = append(all, fmt.Sprintf("nobody reads a %s on this listener: the client is nobody known", o.unread))
	}
	if ask.Command == socks.Bind && o.Err == nil && !o.Grant.Bind.PrimaryOptional && !ask.Target.IP.IsUnspecified() {
		all = append(all, "the client must hold a CONNECT to the same host: else the server refuses with no-primary, for the rule does not say `bind: {primary: optional}`")
	}
	if o.Err == nil {
		all = append(all, r.quotaNotes(ask.At, o.Limits)...)
	}
	if ask.Command == socks.Connect && o.Err == nil && r.listensOn(ask.Target.Port) {
		all = append(all, "a listener has that port: if the target is this proxy itself, the server refuses with loop")
	}
	return all
}

// quotaNotes says which quotas would be asked, besides.
func (r *rehearsal) quotaNotes(at time.Time, names []string) (all []string) {
	known := buildLimits(r.settings)
	for _, name := range names {
		l := known[name]
		if l.Quota == 0 {
			continue
		}
		note := fmt.Sprintf("the quota %q applies, and only the server knows what is left of it: ", name)
		if l.Then > 0 {
			note += "the session is slowed where it is used up"
		} else {
			note += "the server refuses with quota where it is used up"
		}
		if until := l.Standing(limits.Balance{}, at).Until; !until.IsZero() && l.Per != limits.Session {
			note += "; it begins anew at " + until.Format(time.RFC3339)
		}
		all = append(all, note)
	}
	return all
}

// listensOn reports whether a listener has the port.
func (r *rehearsal) listensOn(port uint16) bool {
	return slices.ContainsFunc(r.settings.Listeners, func(l config.Listener) bool {
		return strings.HasSuffix(l.Listen, fmt.Sprintf(":%d", port))
	})
}

func addresses(addrs []netip.Addr) []string {
	var all []string
	for _, a := range addrs {
		if a.IsValid() {
			all = append(all, a.String())
		}
	}
	return all
}

func spelled[T ~string](words []T) []string {
	var all []string
	for _, w := range words {
		all = append(all, string(w))
	}
	return all
}
