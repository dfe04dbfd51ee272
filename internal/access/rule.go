package access

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// Rule grants or denies what matches all of its conditions. An empty condition
// matches everything, but for two, where silence is taken on the safe side:
// without To a rule allows only the public Internet, and denies everything;
// without Proofs it allows on every proof but a bare claim, and denies on a
// claim too.
type Rule struct {
	Name      string // what the log calls it
	Deny      bool
	Listeners []string
	Protocols []server.Protocol
	Commands  []socks.Command
	From      []Network
	Users     *Users         // nil: anybody, known or not
	Proofs    []server.Proof // how a name may be shown
	To        []Destination
	Ports     []server.PortRange
	Bind      server.BindOptions
	Way       *server.Way // how what it allows leaves; nil: the server's own
	SendNames bool        // that Way takes names, to be looked up at its other end
}

// Users are the names that a rule is for. Without any it is for nobody.
type Users struct {
	Any   bool // every name, as long as one is shown
	Names []string
}

// Network is a class of addresses or, where that is empty, a prefix.
type Network struct {
	Class  Class
	Prefix netip.Prefix
}

func (n Network) contains(a netip.Addr, own *ownAddrs) bool {
	if n.Class != "" {
		return n.Class.contains(a, own)
	}
	// An IPv6 address that leads to an IPv4 address is that as well.
	return n.Prefix.Contains(a) || n.Prefix.Contains(carried(a))
}

// Destination is a network or, where Name is set, a host name, with Suffix
// every name below it.
type Destination struct {
	Network
	Name   string // lower case, without trailing dot
	Suffix bool
}

func (d Destination) matchesName(host string) bool {
	if d.Suffix {
		return strings.HasSuffix(host, "."+d.Name)
	}
	return host == d.Name
}

// What a rule without To is about.
var (
	internet   = []Destination{{Network: Network{Class: Internet}}}
	everywhere = []Destination{{Network: Network{Class: Any}}}
)

func (r *Rule) destinations() []Destination {
	switch {
	case len(r.To) > 0:
		return r.To
	case r.Deny:
		return everywhere
	}
	return internet
}

// needsUser reports whether the rule asks who the client is.
func (r *Rule) needsUser() bool { return r.Users != nil || len(r.Proofs) > 0 }

// takes reports whether the rule is content with a proof.
func (r *Rule) takes(p server.Proof) bool {
	if len(r.Proofs) == 0 {
		return r.Deny || p != server.Claimed
	}
	return slices.Contains(r.Proofs, p)
}

// admits reports whether the rule is for a user whose name was proven.
func (r *Rule) admits(name string) bool {
	return name != "" && r.couldAdmit(name)
}

// couldAdmit reports whether the rule is for the userid that a client claims, or
// for whoever is proven.
func (r *Rule) couldAdmit(claimed string) bool {
	return r.Users == nil || r.Users.Any || slices.Contains(r.Users.Names, claimed)
}

// asksIdentd reports whether the rule wants to know the name of a client that
// has said none. A rule that denies whoever carries a name has to be told so.
func (r *Rule) asksIdentd() bool {
	meant := !r.Deny || len(r.Proofs) > 0
	return meant && (r.Users == nil || r.Users.Any || len(r.Users.Names) > 0)
}

// matchesPlainly checks what can be told from the request alone.
func (r *Rule) matchesPlainly(q *server.Request, own *ownAddrs) bool {
	return r.matchesClient(q.Listener, q.Protocol, q.Client.Addr(), own) &&
		matches(r.Commands, q.Command) &&
		matchesFunc(r.Ports, func(p server.PortRange) bool { return p.First <= q.Target.Port && q.Target.Port <= p.Last })
}

// matchesClient checks what can be told before there is a request.
func (r *Rule) matchesClient(listener string, p server.Protocol, client netip.Addr, own *ownAddrs) bool {
	return matches(r.Listeners, listener) &&
		matches(r.Protocols, p) &&
		matchesFunc(r.From, func(n Network) bool { return n.contains(client.WithZone(""), own) })
}

func matches[T comparable](condition []T, value T) bool {
	return len(condition) == 0 || slices.Contains(condition, value)
}

func matchesFunc[T any](condition []T, holds func(T) bool) bool {
	return len(condition) == 0 || slices.ContainsFunc(condition, holds)
}
