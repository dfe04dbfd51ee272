package daemon

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Bounds of a replay, so that a log may be of any length.
const (
	replayLine   = 16 << 10 // bytes of a line; a longer one is broken
	replayGroups = 1000     // changes that are told apart
)

// Replay is what would become of the sessions in a log.
type Replay struct {
	Sessions  int        `json:"sessions"`  // that were judged
	Same      int        `json:"same"`      // of these, those that would fare as they did
	Changes   []Change   `json:"changes"`   // what would change: those who lose first, then those who gain
	More      int        `json:"more"`      // sessions with changes beyond those that are told apart
	Unjudged  []Unjudged `json:"unjudged"`  // sessions of which it cannot be told
	Undecided int        `json:"undecided"` // sessions that had not come to a decision: bad logins, garbage, clients that left
	Broken    int        `json:"broken"`    // lines that are none of a log
	Other     int        `json:"other"`     // lines about something else than sessions
}

// Change is a number of sessions that fared in the same way and now would in
// another.
type Change struct {
	Sessions int     `json:"sessions"`
	Was      verdict `json:"was"`
	Now      verdict `json:"now"`
	Example  string  `json:"example"` // the first of them
}

// Unjudged is a number of sessions, and why it is not known how they would fare.
type Unjudged struct {
	Sessions int    `json:"sessions"`
	Why      string `json:"why"`
}

// Differs reports whether anything would change.
func (r *Replay) Differs() bool { return len(r.Changes) > 0 }

// Kind says whether the sessions are lost by the change, gained, or neither.
func (c *Change) Kind() string {
	switch {
	case c.Was.Allowed && !c.Now.Allowed:
		return "lost"
	case !c.Was.Allowed && c.Now.Allowed:
		return "gained"
	}
	return "otherwise"
}

// ReplayLog puts what the sessions of a log have asked for to the rules of other
// settings, each at its hour, and tells what would change. A name is taken to
// have the address that was dialled; one without is looked up only where resolve
// says so. It reads log to its end, and uses no more memory for a long one. Bad
// settings are a [*SettingsError].
func ReplayLog(ctx context.Context, src Source, log io.Reader, resolve bool) (*Replay, error) {
	r, err := newRehearsal(ctx, src)
	if err != nil {
		return nil, err
	}
	p := &replay{rehearsal: r, resolves: resolve, groups: map[change]*Change{}, unjudged: map[error]int{}}
	p.rehearsal.resolve, p.rehearsal.identd = p.lookUp, p.askIdentd
	lines := bufio.NewReaderSize(log, replayLine)
	for {
		line, err := readLogLine(lines)
		switch {
		case errors.Is(err, io.EOF):
			return p.result(), nil
		case errors.Is(err, errLogLine):
			p.Broken++
			continue
		case err != nil:
			return nil, fmt.Errorf("reading the log: %w", err)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		p.take(ctx, line)
	}
}

// readLogLine returns the next line, which is not empty. One that is too long is
// errLogLine.
func readLogLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	long := errors.Is(err, bufio.ErrBufferFull)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", err
	case long:
		return "", errLogLine
	case len(line) == 0:
		return "", io.EOF
	}
	return string(line), nil
}

// replay is a Replay in the making.
type replay struct {
	Replay
	*rehearsal
	resolves bool
	groups   map[change]*Change
	unjudged map[error]int

	session logged // that is being judged
	unknown error  // what nobody knows and was asked for it; nil: nothing
}

// change is what sessions of one group have in common.
type change struct{ was, now verdict }

// Why a session cannot be judged.
var (
	errNoAddress  = errors.New("the name has no address in the log, and is looked up only with --resolve")
	errNoIdentd   = errors.New("identd was not asked then, and would be now")
	errCutName    = errors.New("the user's name is cut in the log")
	errNoDatagram = errors.New("an association was refused that now would not be: where its datagrams were to go is not known")
	errWhatLogin  = errors.New("a login was refused, and now the client would do without one: whether it showed a wrong one is not known")
	errNoAnswer   = errors.New("the look-up of the name failed")
)

// take judges one line.
func (p *replay) take(ctx context.Context, line string) {
	s, err := parseLogLine(line)
	switch {
	case errors.Is(err, errNotLogged):
		p.Other++
		return
	case err != nil:
		p.Broken++
		return
	}
	was, known := s.was()
	if !known {
		p.Undecided++
		return
	}
	now, err := p.judge(ctx, s)
	if err != nil {
		p.unjudged[err]++
		return
	}
	p.Sessions++
	if was == now {
		p.Same++
		return
	}
	p.note(change{was, now}, s)
}

// judge returns how a session would fare now.
func (p *replay) judge(ctx context.Context, s logged) (verdict, error) {
	if s.cut {
		return verdict{}, errCutName
	}
	l, ok := p.listener(s.request.Listener)
	if !ok {
		return verdict{Reason: "no listener " + access.Escape(s.request.Listener)}, nil
	}
	p.session, p.unknown, p.at = s, nil, s.began
	if s.reason == server.BadLogin && p.login(l, &s.request) == server.LoginOptional {
		return verdict{}, errWhatLogin
	}
	o := p.ask(ctx, l, s.request)
	switch {
	case p.unknown != nil:
		return verdict{}, p.unknown
	case o.Err != nil:
		return verdict{Reason: string(server.ReasonOf(o.Err)), Rule: o.Grant.Rule}, nil
	case s.request.Target == (socks.Addr{}):
		return verdict{}, errNoDatagram
	}
	v := verdict{Allowed: true, Rule: o.Grant.Rule}
	if o.Grant.Way != nil {
		v.Via = o.Grant.Way.Via
	}
	if until := o.Grant.Until; !until.IsZero() && !until.After(s.ended) {
		v.CutShort = true
	}
	return v, nil
}

// lookUp knows of a name what the log knows.
func (p *replay) lookUp(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if a := p.session.address; a.IsValid() {
		return []netip.Addr{a.Addr()}, nil
	}
	if !p.resolves {
		p.unknown = errNoAddress
		return nil, errNoAddress
	}
	found, err := p.rules.resolver.LookupNetIP(ctx, network, host)
	if err != nil && server.ReasonOf(err) != server.NoName {
		p.unknown = errNoAnswer
	}
	return found, err
}

// askIdentd answers what identd has answered then.
func (p *replay) askIdentd() (string, error) {
	switch {
	case p.session.shown.Proof == server.Ident:
		return p.session.shown.Name, nil
	case p.session.reason == server.NoIdentd, p.session.reason == server.OtherUser:
		return "", p.session.reason
	}
	p.unknown = errNoIdentd
	return "", server.NoIdentd
}

// note counts a change.
func (p *replay) note(key change, s logged) {
	group := p.groups[key]
	switch {
	case group != nil:
	case len(p.groups) == replayGroups:
		p.More++
		return
	default:
		group = &Change{Was: key.was, Now: key.now, Example: s.String()}
		p.groups[key] = group
	}
	group.Sessions++
}

// String tells a session to a person who looks for it in the log.
func (s *logged) String() string {
	q := s.request
	who := q.Client.Addr().String()
	if s.shown.Name != "" {
		who = fmt.Sprintf("%s (%s) at %s", access.Escape(s.shown.Name), s.shown.Proof, who)
	}
	text := fmt.Sprintf("%s: %s, %s %s", s.began.Format(time.RFC3339), who, q.Protocol, q.Command)
	if q.Target != (socks.Addr{}) {
		text += " to " + q.Target.String()
	}
	return text + " by " + access.Escape(q.Listener)
}

// result puts what was found in its order.
func (p *replay) result() *Replay {
	p.Changes, p.Unjudged = []Change{}, []Unjudged{}
	for _, group := range p.groups {
		p.Changes = append(p.Changes, *group)
	}
	kinds := []string{"lost", "gained", "otherwise"}
	slices.SortFunc(p.Changes, func(a, b Change) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind()), slices.Index(kinds, b.Kind())),
			cmp.Compare(b.Sessions, a.Sessions),
			cmp.Compare(a.Was.String(), b.Was.String()),
			cmp.Compare(a.Now.String(), b.Now.String()))
	})
	for why, sessions := range p.unjudged {
		p.Unjudged = append(p.Unjudged, Unjudged{sessions, why.Error()})
	}
	slices.SortFunc(p.Unjudged, func(a, b Unjudged) int { return cmp.Compare(a.Why, b.Why) })
	return &p.Replay
}
