package daemon

import (
	"slices"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/limits"
)

// buildLimits makes the limits that the settings describe, but for quotas.
func buildLimits(s *config.Settings) map[string]limits.Limit {
	all := make(map[string]limits.Limit)
	for name, l := range s.Limits {
		if l.Quota > 0 {
			continue
		}
		all[name] = limits.Limit{
			Per: limits.Per(l.Per), Rate: l.Rate, Up: l.Up, Down: l.Down,
			Sessions: l.Sessions, New: l.NewSessions, In: l.NewPer,
		}
	}
	return all
}

// enforced returns those of the names that are no quotas.
func enforced(s *config.Settings, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return s.Limits[name].Quota > 0 })
}

// groupsOf returns the groups of each user.
func groupsOf(members map[string][]string) map[string][]string {
	groups := make(map[string][]string)
	for group, users := range members {
		for _, user := range users {
			if !slices.Contains(groups[user], group) {
				groups[user] = append(groups[user], group)
			}
		}
	}
	return groups
}
