package daemon

import (
	"log/slog"

	"github.com/sallyport/sallyport/internal/config"
)

// warnOfLimits says once that limits do not hold yet, if a rule has any.
func warnOfLimits(s *config.Settings, log *slog.Logger) {
	var rules []string
	for _, r := range s.Rules {
		if len(r.Limits) > 0 {
			rules = append(rules, r.Name)
		}
	}
	if len(rules) > 0 {
		log.Warn("limits are not enforced in this version yet: these rules let everything through that they allow", "rules", rules)
	}
}
