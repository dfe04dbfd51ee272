package config

import (
	"maps"
	"slices"
	"time"
)

// Default returns what is in force without a file: the settings of an empty
// one. The error is an Errors; only the override can cause it.
func Default(o Override) (*Settings, error) {
	return Parse("", nil, o)
}

// Parse reads the settings in data. The name of the file is for errors, and for
// the folder that other files are named from.
// The error is an Errors with all faults, in the order of their places; only
// where the text is no YAML is there just the first. A panic of the YAML library
// is a fault too. Parse takes at most 16 MiB, and time and memory in proportion.
//
// Files that the settings name are not looked at, and those that they include
// are taken as empty: Load reads them.
func Parse(file string, data []byte, o Override) (*Settings, error) {
	return parseOn(noDisk{}, file, data, o)
}

// parseOn is Parse with a disk that has the files which the settings name.
func parseOn(files disk, file string, data []byte, o Override) (*Settings, error) {
	d := &decoder{
		first: file, disk: files, settings: defaults(), clashed: map[*node]bool{}, named: map[string]*node{}, ruleNames: map[string]*node{},
		zones: map[string]*time.Location{}, included: map[string]*node{}, order: map[string]int{"": -1}, // faults of the command line come first
	}
	d.included[files.real(file)] = nil
	root, fault := d.source(file, data)
	if fault != nil {
		return nil, Errors{fault}
	}
	d.document(d.withIncluded(root))
	d.override(o)
	if !d.partial {
		d.references()
		d.upstreamReferences()
		d.sshReferences()
		d.exposedSecrets()
		d.mapReferences()
		d.ledgerReferences()
		d.openProxies()
		d.neverMatching()
	}
	d.checkFiles()
	if len(d.faults) > 0 {
		return nil, d.sorted()
	}
	return d.settings, nil
}

// Load reads the settings file at path, which may be a pipe, and those that it
// includes. A file that cannot be read, or is over 16 MiB, is an Errors too, without
// a place; it wraps the cause. That a file which the settings name cannot be opened,
// or is not a regular one, is a fault of the settings. Load waits for nothing but
// who writes to the pipe, for 30 seconds at the most.
func Load(path string, o Override) (*Settings, error) {
	data, err := readFirst(path)
	if err != nil {
		return nil, Errors{{File: path, Problem: "the settings cannot be read: " + bare(err).Error(), cause: err}}
	}
	return parseOn(realDisk{}, path, data, o)
}

// document decodes the top level. Sections that are not there keep their
// defaults. A nil root is an empty document.
func (d *decoder) document(root *node) {
	s := d.settings
	if root == nil || !root.has("listeners") {
		d.defaultListener()
	}
	if root == nil || !root.has("rules") {
		d.defaultRule()
	}
	if root == nil || root.kind == empty {
		return
	}
	d.mapping(root, fields{
		"listeners":         d.decodeListeners,
		"groups":            d.decodeGroups,
		"rules":             d.decodeRules,
		"upstreams":         d.decodeUpstreams,
		"resolver":          d.decodeResolver,
		"timeouts":          d.decodeTimeouts,
		"users":             d.decodeUsers,
		"log":               d.decodeLog,
		"admin":             d.decodeAdmin,
		"pac":               d.decodePAC,
		"hide_address":      func(v *node) { d.hideAddress = d.bool(v) },
		"open_to_the_world": func(v *node) { d.openToTheWorld = d.bool(v) },
		"include":           func(*node) {}, // followed before all else
		"sets":              d.decodeSets,
		"schedules":         d.decodeSchedules,
		"limits":            d.decodeLimits,
		"ledger":            d.decodeLedger,
		"virtual_ports":     d.decodeVirtualPorts,
		"ssh":               d.decodeSSH,
	})
	for i, p := range d.listeners {
		l := &s.Listeners[i]
		l.HideAddress = l.HideAddress || d.hideAddress && !p.hideSet
		l.OpenToTheWorld = l.OpenToTheWorld || d.openToTheWorld && !p.openSet
	}
}

// references checks the names that point to other sections.
func (d *decoder) references() {
	s := d.settings
	exists(d, d.groupRefs, "group", s.Groups)
	exists(d, d.scheduleRefs, "schedule", s.Schedules)
	exists(d, d.limitRefs, "limit", s.Limits)
	d.setReferences()
	for _, n := range d.passwordRefs {
		if s.Users.File == "" && !d.usersSet {
			d.fail(n, "the rule asks for a password, and there are no users", "write `users: {file: users}`; `sallyport user add NAME --file users` puts somebody into it")
		}
	}
	listeners := map[string]Listener{}
	for _, l := range s.Listeners {
		listeners[l.Name] = l
	}
	exists(d, d.listenerRefs, "listener", listeners)
}

// exists notes the names that are not among the known ones. Those of groups and
// sets are written with an @.
func exists[T any](d *decoder, refs []*node, what string, known map[string]T) {
	if len(refs) == 0 {
		return
	}
	all := slices.Sorted(maps.Keys(known))
	for _, n := range refs {
		sign, name := "", n.text
		if what == "group" || what == "set" {
			sign, name = "@", n.text[1:]
		}
		if _, ok := known[name]; !ok {
			d.dangling(n, "no "+what+" is called "+quote(name), sign, name, all)
		}
	}
}

// dangling notes a name that leads nowhere.
func (d *decoder) dangling(n *node, problem, sign, name string, known []string) {
	hint := ""
	if len(known) == 0 {
		hint = "there are none in the settings"
	} else if near := nearest(name, known); near != "" {
		hint = "did you mean " + quote(sign+near) + "?"
	}
	d.fail(n, problem, hint)
}
