package config

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
)

// Default returns what is in force without a file: the settings of an empty
// one. The error is an Errors; only the override can cause it.
func Default(o Override) (*Settings, error) {
	return Parse("", nil, o)
}

// Parse reads the settings in data. The name of the file is for errors only.
// The error is an Errors with all faults, in the order of their places; only
// where the text is no YAML is there just the first. A panic of the YAML library
// is a fault too. Parse takes at most 16 MiB, and time and memory in proportion.
//
// Files that the settings name are not looked at: Load does that.
func Parse(file string, data []byte, o Override) (*Settings, error) {
	return parseWith(file, data, o, false, func(string) error { return nil })
}

// parseWith is Parse that asks readable about every file that the settings name.
// Settings that are exposed, to others than the owner and the group, may hold no
// secret.
func parseWith(file string, data []byte, o Override, exposed bool, readable func(path string) error) (*Settings, error) {
	src := newSource(file, data)
	root, fault := src.parse()
	if fault != nil {
		return nil, Errors{fault}
	}
	d := &decoder{src: src, settings: defaults(), named: map[string]*node{}, ruleNames: map[string]*node{}}
	d.document(root)
	d.override(o)
	d.references()
	d.upstreamReferences(exposed)
	d.openProxies()
	d.checkFiles(readable)
	if len(d.faults) > 0 {
		return nil, d.sorted()
	}
	return d.settings, nil
}

// Load reads the settings file at path. A file that cannot be read, or is over
// 16 MiB, is an Errors too, without a place; it wraps the cause. That a file
// which the settings name cannot be opened is a fault of the settings.
func Load(path string, o Override) (*Settings, error) {
	data, exposed, err := readFile(path)
	if err != nil {
		cause := err
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			cause = e.Err // without the path, which the message begins with
		}
		return nil, Errors{{File: path, Problem: "the settings cannot be read: " + cause.Error(), cause: err}}
	}
	return parseWith(path, data, o, exposed, readable)
}

// readFile reads one byte more than may be, and leaves it to Parse to refuse.
func readFile(path string) (data []byte, exposed bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	exposed = runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 // which has no such bits
	data, err = io.ReadAll(io.LimitReader(f, maxSize+1))
	return data, exposed, err
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
		"hide_address":      func(v *node) { d.hideAddress = d.bool(v) },
		"open_to_the_world": func(v *node) { d.openToTheWorld = d.bool(v) },
	}, "virtual_ports", "sets", "schedules", "limits", "ledger", "include")
	for i, p := range d.listeners {
		l := &s.Listeners[i]
		l.HideAddress = l.HideAddress || d.hideAddress && !p.hideSet
		l.OpenToTheWorld = l.OpenToTheWorld || d.openToTheWorld && !p.openSet
	}
}

// references checks the names that point to other sections.
func (d *decoder) references() {
	for _, n := range d.groupRefs {
		name := n.text[1:]
		if _, ok := d.settings.Groups[name]; !ok {
			d.dangling(n, "no group is called "+quote(name), "@", name, slices.Sorted(maps.Keys(d.settings.Groups)))
		}
	}
	for _, n := range d.passwordRefs {
		if d.settings.Users.File == "" && !d.usersSet {
			d.fail(n, "the rule asks for a password, and there are no users", "write `users: {file: users}`; `sallyport user add NAME --file users` puts somebody into it")
		}
	}
	var listeners []string
	for _, l := range d.settings.Listeners {
		listeners = append(listeners, l.Name)
	}
	for _, n := range d.listenerRefs {
		if !slices.Contains(listeners, n.text) {
			d.dangling(n, "no listener is called "+quote(n.text), "", n.text, listeners)
		}
	}
}

// dangling notes a name that leads nowhere.
func (d *decoder) dangling(n *node, problem, sign, name string, known []string) {
	hint := ""
	if near := nearest(name, known); near != "" {
		hint = "did you mean " + quote(sign+near) + "?"
	}
	d.fail(n, problem, hint)
}
