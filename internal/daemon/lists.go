package daemon

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
)

// lists are what rules call by a name.
type lists struct {
	groups    map[string][]string
	sets      map[string]*access.Set
	schedules map[string]*access.Schedule
}

// buildLists reads the files of sets.
func buildLists(s *config.Settings, log *slog.Logger) (lists, error) {
	sets, err := openSets(s.Sets, log)
	l := lists{s.Groups, sets, map[string]*access.Schedule{}}
	for name, schedule := range s.Schedules {
		var spans []access.Span
		for _, span := range schedule.Spans {
			spans = append(spans, access.Span(span))
		}
		l.schedules[name] = access.NewSchedule(spans, schedule.Zone)
	}
	return l, err
}

// openSets reads the files of all sets. The error shows every fault of each.
func openSets(written map[string]config.Set, log *slog.Logger) (map[string]*access.Set, error) {
	sets := map[string]*access.Set{}
	var faults []error
	told := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(written)) {
		w := written[name]
		var entries []access.Destination
		for _, e := range w.Entries {
			entries = append(entries, destination(e))
		}
		files := slices.Concat(w.Hosts, w.Prefixes)
		set, err := access.OpenSet(name, entries, files, log)
		found, _ := errors.AsType[access.SetFaults](err)
		for _, f := range found {
			if !told[f.File] { // another set has it, too
				faults = append(faults, placed(f.File, f.Err))
			}
			told[f.File] = true
		}
		sets[name] = set
	}
	return sets, joinFaults(faults...)
}

// hours are the schedules of the listeners that have one.
func (l lists) hours(listeners []config.Listener) map[string]*access.Schedule {
	hours := map[string]*access.Schedule{}
	for _, one := range listeners {
		if one.During != "" {
			hours[cmp.Or(one.Name, one.Listen)] = l.schedules[one.During]
		}
	}
	return hours
}
