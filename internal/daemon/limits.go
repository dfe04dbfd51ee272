package daemon

import (
	"cmp"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/limits"
)

// buildLimits makes the limits that the settings describe.
func buildLimits(s *config.Settings) map[string]limits.Limit {
	all := make(map[string]limits.Limit)
	for name, l := range s.Limits {
		all[name] = limits.Limit{
			Per: limits.Per(l.Per), Rate: l.Rate, Up: l.Up, Down: l.Down, Burst: l.Burst, Shared: l.Shared,
			Names:    s.Ledger.Apart.Names,
			Sessions: l.Sessions, New: l.NewSessions, In: l.NewPer,
			Quota: cmp.Or(l.Quota, int64(l.QuotaTime)), Counts: measure(l), Every: every(l), Then: l.Then, Warn: l.Warn,
		}
	}
	return all
}

// hasQuotas reports whether anything is to be remembered after a restart.
func hasQuotas(s *config.Settings) bool {
	for _, l := range s.Limits {
		if l.IsQuota() && l.Per != string(limits.Session) {
			return true
		}
	}
	return false
}

func measure(l config.Limit) limits.Measure {
	switch {
	case l.QuotaTime > 0:
		return limits.Online
	case l.Counts == "up":
		return limits.Up
	case l.Counts == "down":
		return limits.Down
	}
	return limits.Both
}

func every(l config.Limit) limits.Every {
	p := l.Every
	return limits.Every{
		Unit: limits.Unit(p.Unit), Days: p.Days, Weekday: p.Weekday, Date: p.Date, Anchor: p.Anchor,
		Rolling: p.Rolling, Zone: cmp.Or(p.Zone, time.Local),
	}
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
