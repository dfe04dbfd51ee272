package access

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/server"
)

// Condition is what of a rule did not match, by the word of the settings.
type Condition string

// The conditions, in the order in which they are looked at.
const (
	MissListeners Condition = "listeners"
	MissProtocols Condition = "protocols"
	MissCommands  Condition = "commands"
	MissPorts     Condition = "ports"
	MissFrom      Condition = "from"
	MissUsers     Condition = "users"
	MissDuring    Condition = "during"
	MissTo        Condition = "to"
	MissProof     Condition = "proof"
	MissRest      Condition = "rest" // it denies some of the target's addresses, but not the rest
)

// Explanation tells how a request was decided.
type Explanation struct {
	Grant  server.Grant // as [Policy.Decide] returned it
	Err    error        // the same
	Steps  []Step       // the rules in their order, up to the one that decided
	Addrs  []netip.Addr // what the target is, or its name resolved to; none where that was not needed, or failed
	Limits []string     // of the rule that allows it
}

// Step is one rule on the way of a request.
type Step struct {
	Rule  string
	Place int // in the list of rules, from 0
	Deny  bool
	Miss  Condition      // the first thing about the rule that did not match; empty: it decided
	Text  string         // the same for a person
	Wants []server.Proof // where Miss is proof: what would have been believed
}

// Explain decides as [Policy.Decide] does, asking whomever that asks, and tells
// how it came to that.
func (p *Policy) Explain(ctx context.Context, r *server.Request) Explanation {
	d := p.begin(r)
	defer p.end(d)
	var e Explanation
	asked := map[int]Condition{}
	last := len(p.rules) - 1
	d.trace = func(rule int, done bool) {
		asked[rule] = d.miss
		if done {
			last = rule
		}
	}
	e.Grant, e.Err = d.decide(ctx)
	for i := range d.targets {
		e.Addrs = append(e.Addrs, d.targets[i].addr)
	}
	if len(asked) == 0 && d.isListening() != nil {
		return e // no rule was looked at
	}
	for i := range last + 1 {
		rule := &p.rules[i]
		miss, ok := asked[i]
		if !ok {
			miss = d.passedOver(i)
		}
		step := Step{Rule: rule.Name, Place: i, Deny: rule.Deny, Miss: miss, Text: d.explain(rule, miss)}
		if miss == MissProof {
			step.Wants = rule.wants()
		}
		e.Steps = append(e.Steps, step)
		if miss == "" && e.Err == nil {
			e.Limits = rule.Limits
		}
		if miss == "" && e.Err != nil && e.Grant.Rule == "" {
			e.Steps[len(e.Steps)-1].Text = "the target's name has to be looked up for it, and that failed"
		}
	}
	return e
}

// passedOver returns why the index left a rule out: what takes it out where
// it is the only candidate.
func (d *decision) passedOver(rule int) Condition {
	clear(d.candidates)
	d.candidates.set(rule)
	for _, n := range ofRequest {
		switch n.narrow(d); {
		case d.candidates.has(rule):
		case n.by == MissTo && d.standing(&d.policy.rules[rule], rule) == stranger:
			return MissUsers // for a reason that the index does not know
		default:
			return n.by
		}
	}
	return ""
}

// wants returns the proofs that the rule believes.
func (r *Rule) wants() []server.Proof {
	if len(r.Proofs) > 0 {
		return r.Proofs
	}
	return []server.Proof{server.Ident, server.Password, server.Certificate, server.Key}
}

// explain words what did not match.
func (d *decision) explain(r *compiled, miss Condition) string {
	q := d.request
	switch miss {
	case "":
		if r.Deny {
			return "it matches, and denies"
		}
		return "it matches, and allows"
	case MissListeners:
		return fmt.Sprintf("it is for the listeners %s, not for %s", strings.Join(r.Listeners, ", "), q.Listener)
	case MissProtocols:
		return fmt.Sprintf("it is for %s, not for %s", joined(r.Protocols), q.Protocol)
	case MissCommands:
		var names []string
		for _, c := range r.Commands {
			names = append(names, c.String())
		}
		return fmt.Sprintf("it is for %s, not for %s", strings.Join(names, ", "), q.Command)
	case MissPorts:
		return fmt.Sprintf("the port %d is not among its ports", q.Target.Port)
	case MissFrom:
		return fmt.Sprintf("the client %s is not where it says", q.Client.Addr())
	case MissUsers:
		if q.Identity.Name == "" {
			return "it is for users, and the client names none"
		}
		return fmt.Sprintf("it is for other users than %q", q.Identity.Name)
	case MissDuring:
		return "it is for other hours"
	case MissTo:
		return fmt.Sprintf("the target %s is not where it says", q.Target.Host())
	case MissProof:
		return fmt.Sprintf("it wants to be shown %s", wanted(r.wants()))
	case MissRest:
		return "it denies some of the target's addresses, and there are others"
	}
	return string(miss)
}

func joined[T ~string](words []T) string {
	var all []string
	for _, w := range words {
		all = append(all, string(w))
	}
	return strings.Join(all, ", ")
}
