package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/daemon"
)

// topUser is what a user's open sessions come to.
type topUser struct {
	name               string
	sessions           int
	speedUp, speedDown int64
	up, down           int64
	rules              []string
}

// usersOf sums sessions up by user, the fastest first.
func usersOf(sessions []daemon.LiveSession) []*topUser {
	byName := map[string]*topUser{}
	var all []*topUser
	for _, s := range sessions {
		u := byName[s.User]
		if u == nil {
			u = &topUser{name: s.User}
			byName[s.User] = u
			all = append(all, u)
		}
		u.sessions++
		u.speedUp, u.speedDown, u.up, u.down = u.speedUp+s.SpeedUp, u.speedDown+s.SpeedDown, u.up+s.Up, u.down+s.Down
		if !slices.Contains(u.rules, s.Rule) {
			u.rules = append(u.rules, s.Rule)
		}
	}
	slices.SortFunc(all, func(a, b *topUser) int {
		return cmp.Or(cmp.Compare(b.speedUp+b.speedDown, a.speedUp+a.speedDown), cmp.Compare(b.up+b.down, a.up+a.down), strings.Compare(a.name, b.name))
	})
	return all
}

// userRows are users with a headline.
func userRows(sessions []daemon.LiveSession, limits daemon.LiveLimits) [][]string {
	rows := [][]string{{"USER", "SESSIONS", "UP/S", "DOWN/S", "UP", "DOWN", "LIMITS (bytes are of open sessions)"}}
	for _, u := range usersOf(sessions) {
		rows = append(rows, []string{
			orDash(u.name), fmt.Sprint(u.sessions), speed(u.speedUp), speed(u.speedDown), bytesText(u.up), bytesText(u.down), u.limits(limits),
		})
	}
	return rows
}

// limits are those by user of the rules of the sessions: of a quota how the user stands.
func (u *topUser) limits(all daemon.LiveLimits) string {
	var texts, done []string
	for _, rule := range u.rules {
		for _, name := range all.OfRule[rule] {
			if slices.Contains(done, name) {
				continue
			}
			done = append(done, name)
			text := all.Text[name]
			for _, q := range all.Quotas {
				if q.Limit == name && q.Key == u.name {
					text = much(q, q.Used) + " of " + much(q, q.Most)
				}
			}
			texts = append(texts, name+": "+text)
		}
	}
	return orDash(strings.Join(texts, "; "))
}
