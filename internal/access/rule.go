package access

import (
	"net/netip"
	"slices"

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
	During    *Schedule // nil: at all times
	Bind      server.BindOptions
	Way       *server.Way // how what it allows leaves; nil: the server's own
	SendNames bool        // that Way takes names, to be looked up at its other end
	Limits    []string    // names of what the session counts towards; they decide nothing

	// Budget resolves Limits for a request that the rule has granted, to the client
	// that it turned out to be; nil: there are none. It must not block.
	Budget func(*server.Request, server.Identity) server.Budget

	// The sets are part of From and of To: what is in one of them matches as if
	// it were written there. Of a set in FromSets the host names do not count.
	FromSets, ToSets []*Set
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

// Destination is a network or, where Name is set, a host name, with Suffix
// every name below it.
type Destination struct {
	Network
	Name   string // lower case, without trailing dot
	Suffix bool
}

// What a rule without To is about.
var (
	internet   = []Destination{{Network: Network{Class: Internet}}}
	everywhere = []Destination{{Network: Network{Class: Any}}}
)

func (r *Rule) destinations() []Destination {
	switch {
	case len(r.To) > 0, len(r.ToSets) > 0:
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

// names returns the users that the rule names; none where it names nobody in
// particular.
func (r *Rule) names() []string {
	if r.Users == nil || r.Users.Any {
		return nil
	}
	return r.Users.Names
}

// forNobody reports whether the rule has users and there are none.
func (r *Rule) forNobody() bool {
	return r.Users != nil && !r.Users.Any && len(r.Users.Names) == 0
}

// asksIdentd reports whether the rule wants to know the name of a client that
// has said none. A rule that denies whoever carries a name has to be told so.
func (r *Rule) asksIdentd() bool {
	meant := !r.Deny || len(r.Proofs) > 0
	return meant && !r.forNobody()
}
