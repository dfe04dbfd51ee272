package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Several files are read as if they were one. First comes what the settings file
// says itself, then what it includes, in the order in which that is named; the
// files of a folder in the order of their names. Lists of listeners and rules
// follow each other; in the other sections each key may stand in one file only.

const (
	maxIncludes     = 1000 // files in sum
	maxIncludeDepth = 8    // files that include each other
)

// source reads the text of a file into a tree.
func (d *decoder) source(file string, data []byte) (*node, *Error) {
	d.order[file] = len(d.order)
	d.bytes += len(data)
	return newSource(file, data).parse()
}

// withIncluded returns the whole of root and what it includes.
func (d *decoder) withIncluded(root *node) *node {
	if root == nil || root.kind != mapping || !root.has("include") {
		return root
	}
	all := d.follow(root, 1)
	return d.merge(append([]*node{root}, all...))
}

// follow returns the trees of the files that root includes, and of those that
// they include.
func (d *decoder) follow(root *node, depth int) []*node {
	var trees []*node
	if root == nil || root.kind != mapping {
		return nil
	}
	for _, p := range root.pairs {
		if p.key.kind != scalar || p.key.text != "include" || p.value.kind == empty {
			continue
		}
		d.each(p.value, func(item *node) {
			for _, path := range d.matching(item) {
				if tree := d.include(item, path, depth); tree != nil {
					trees = append(append(trees, tree), d.follow(tree, depth+1)...)
				}
			}
		})
	}
	return trees
}

// matching returns the files that an entry of `include` stands for.
func (d *decoder) matching(n *node) []string {
	text, ok := d.text(n)
	if !ok {
		d.partial = true
		return nil
	}
	path := text
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(n.src.file), path)
	}
	folder, pattern := filepath.Split(path)
	fault := func(problem, hint string) []string {
		d.partial = true
		d.fail(n, problem, hint)
		return nil
	}
	_, bad := filepath.Match(pattern, "")
	switch {
	case strings.Contains(text, "\x00"):
		return fault("the name of a file cannot hold a NUL byte", "")
	case strings.ContainsAny(folder, "*?["):
		return fault("a pattern stands only in the last part of a path", "name the folders one by one")
	case bad != nil:
		return fault(quote(pattern)+" is not a pattern", "write *.yaml")
	}
	if !strings.ContainsAny(pattern, "*?[") {
		folder, pattern = path, ""
	}
	folder = filepath.Clean(folder)
	names, err := d.disk.list(folder)
	switch {
	case errors.Is(err, errNoFolder) && pattern == "":
		return []string{path}
	case err != nil:
		return fault("the settings in "+quote(folder)+" cannot be read: "+bare(err).Error(), "")
	}
	var files []string
	for _, name := range names {
		if settingsFile(name, pattern) {
			files = append(files, filepath.Join(folder, name))
		}
	}
	return files
}

// settingsFile tells whether a file of a folder is meant: by a pattern, or by
// its name. What editors and package managers leave behind is not.
func settingsFile(name, pattern string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	if pattern == "" {
		return slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name))
	}
	ok, _ := filepath.Match(pattern, name)
	return ok
}

// include reads one file; nil for a fault, or for an empty one.
func (d *decoder) include(at *node, path string, depth int) *node {
	fault := func(problem, hint string) *node {
		d.partial = true
		d.fail(at, problem, hint)
		return nil
	}
	name := d.disk.real(path)
	first, twice := d.included[name]
	switch {
	case twice && first == nil:
		return fault("the settings in "+quote(path)+" include themselves", "leave it out")
	case twice:
		return fault("the settings in "+quote(path)+" are included twice", "the other time is in "+placeFrom(at, first))
	case depth > maxIncludeDepth:
		return fault(fmt.Sprintf("over %d files that include each other", maxIncludeDepth), "")
	case len(d.included) > maxIncludes:
		return fault(fmt.Sprintf("over %d files are included", maxIncludes), "")
	}
	d.included[name] = at
	data, err := d.disk.read(path)
	switch {
	case err != nil:
		return fault("the settings in "+quote(path)+" cannot be read: "+bare(err).Error(), "")
	case d.bytes+len(data) > maxSize:
		return fault("the included files are over 16 MiB", "")
	}
	tree, wrong := d.source(path, data)
	if wrong != nil {
		d.partial = true
		d.add(wrong)
	}
	return tree
}

// merge makes one tree out of several files.
func (d *decoder) merge(files []*node) *node {
	whole := *files[0]
	whole.pairs = nil
	first := map[string]int{} // where in whole.pairs a section is
	for _, file := range files {
		if file.kind == empty {
			continue
		}
		if file.kind != mapping {
			d.fail(file, "expected keys with values, found "+file.describe(), "an included file has sections, as the settings file has")
			continue
		}
		seen := map[string]bool{}
		for _, p := range file.pairs {
			name := p.key.text
			at, there := first[name]
			switch {
			case p.key.kind == scalar && !there:
				first[name] = len(whole.pairs)
				whole.pairs = append(whole.pairs, p)
			case name == "include" && !seen[name] && p.value.kind != empty: // each file may have its own
			case p.key.kind != scalar || seen[name] || !d.mergeInto(&whole.pairs[at], p):
				whole.pairs = append(whole.pairs, p) // as a fault that mapping will tell
			}
			seen[name] = true
		}
	}
	return &whole
}

// mergeInto adds a section to the same one of another file. It tells whether the
// two can be one.
func (d *decoder) mergeInto(section *pair, more pair) bool {
	a, b := section.value, more.value
	switch section.key.text {
	case "listeners", "rules":
		if a.kind == empty || b.kind == empty {
			return false
		}
		both := *a
		both.kind, both.pairs = list, nil
		both.items = append(slices.Clone(a.entries()), b.entries()...)
		section.value = &both
		return true
	case "groups", "sets", "schedules", "limits", "users", "upstreams", "resolver", "timeouts", "log":
		if a.kind != mapping || b.kind != mapping {
			return false
		}
		both := *a
		both.pairs = append(slices.Clone(a.pairs), b.pairs...)
		section.value = &both
		return true
	}
	return false
}

// entries returns a list; of what is none, the list of one.
func (n *node) entries() []*node {
	if n.kind == list {
		return n.items
	}
	return []*node{n}
}
