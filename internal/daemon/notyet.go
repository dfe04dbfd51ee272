package daemon

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/sallyport/sallyport/internal/config"
)

// Nobody may believe in a rule that does not hold. What would let somebody in
// who should stay out is refused; what only costs more than was meant is told.

// refuseUnenforced returns a fault for settings that ask for what no rule can do
// yet.
func refuseUnenforced(s *config.Settings) error {
	for _, l := range s.Listeners {
		if l.During != "" {
			return fmt.Errorf("the listener %q: schedules are not enforced in this version yet; leave `during` out", l.Name)
		}
	}
	for _, r := range s.Rules {
		switch {
		case r.During != "":
			return fmt.Errorf("the rule %q: schedules are not enforced in this version yet; leave `during` out", r.Name)
		case slices.ContainsFunc(r.From, func(n config.Network) bool { return n.Set != "" }),
			slices.ContainsFunc(r.To, func(t config.Target) bool { return t.Set != "" }):
			return fmt.Errorf("the rule %q: sets are not enforced in this version yet; write out what is in them", r.Name)
		}
	}
	return nil
}

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
