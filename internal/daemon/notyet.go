package daemon

import (
	"log/slog"
	"slices"

	"github.com/sallyport/sallyport/internal/config"
)

// warnOfLimits says once that quotas do not hold yet, if a rule has any.
func warnOfLimits(s *config.Settings, log *slog.Logger) {
	var rules []string
	for _, r := range s.Rules {
		if slices.ContainsFunc(r.Limits, func(name string) bool { return s.Limits[name].Quota > 0 }) {
			rules = append(rules, r.Name)
		}
	}
	if len(rules) > 0 {
		log.Warn("quotas are not enforced in this version yet: these rules let as much through as comes", "rules", rules)
	}
}
