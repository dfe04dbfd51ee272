package live

import (
	"maps"

	"github.com/sallyport/sallyport/server"
)

// Door is where sessions come in: a listener, and what is spoken there.
type Door struct {
	Listener string
	Protocol server.Protocol // empty: it was not told before the end
}

// Passage is what was counted at a door since the process began.
type Passage struct {
	Opened   uint64 // sessions whose request was known
	Open     int    // of them, how many are
	Up, Down int64  // bytes, of the sessions that are open as of the last sample
	// Refused and Ended are as those of [Totals].
	Refused, Ended map[server.Reason]uint64
}

// UserBytes is what a user has moved since the process began.
type UserBytes struct{ Up, Down int64 }

// OthersUsers is the name under which users are summed up who have no count of their
// own. It is no user's.
const OthersUsers = ""

// door is what is counted at a Door, and the accounts of those without a user, before and
// after their rules have their hits.
type door struct {
	Passage
	plain, ruled account
}

// door returns that by which a session has come. Callers hold mu. Doors are named by the
// settings and protocols by the server: there are not many.
func (v *View) door(r *server.Record) *door {
	at := Door{r.Listener, r.Protocol}
	d := v.doors[at]
	if d == nil {
		d = &door{Passage: Passage{Refused: make(map[server.Reason]uint64), Ended: make(map[server.Reason]uint64)}}
		d.plain, d.ruled = account{door: d}, account{door: d, ruled: true}
		v.doors[at] = d
	}
	return d
}

// userBytes returns the counts of a session's user, once that is known. Callers hold
// mu. A name that was only claimed is anybody's choice, and has no count of its own.
func (v *View) userBytes(r *server.Record) *UserBytes {
	name := r.Identity.Name
	if r.Identity.Proof == server.NoProof || r.Identity.Proof == server.Claimed {
		name = OthersUsers
	}
	u := v.users[name]
	if u == nil && name != OthersUsers && len(v.users) >= v.mostUsers {
		name = OthersUsers
		u = v.users[name]
	}
	if u == nil {
		u = &UserBytes{}
		v.users[name] = u
	}
	return u
}

// CountUsers has bytes counted by user, in as many counts as most, that of the others
// among them; 0: they are not. It is for before the first session.
func (v *View) CountUsers(most int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mostUsers = most
}

// Doors returns what was counted at each door that anybody has come to. It is the
// caller's.
func (v *View) Doors() map[Door]Passage {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make(map[Door]Passage, len(v.doors))
	for at, d := range v.doors {
		one := d.Passage
		one.Refused, one.Ended = maps.Clone(one.Refused), maps.Clone(one.Ended)
		all[at] = one
	}
	return all
}

// Users returns what users have moved, by name; those without a count of their own are
// [OthersUsers]. It is empty unless [View.CountUsers] asked for it.
func (v *View) Users() map[string]UserBytes {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make(map[string]UserBytes, len(v.users))
	for name, u := range v.users {
		all[name] = *u
	}
	return all
}
