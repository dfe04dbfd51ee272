package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxFaults = 1000      // reported; one more says that there were more
	maxVisits = 1_000_000 // nodes looked at, where aliases repeat what was written once
)

// decoder turns the tree into settings. It goes on after a fault, with the
// value left out, so that all of them are found.
type decoder struct {
	first    string // the settings file; those that it includes have names of their own
	disk     disk
	included map[string]*node // files that are read, by their real names: where they are named; nil: the first
	order    map[string]int   // the same, by the names that faults show: which comes first
	bytes    int              // of all files
	partial  bool             // some could not be read: names may be missing
	faults   Errors
	unshown  int
	visits   int
	settings *Settings

	listeners []listenerPlace  // beside settings.Listeners
	clashed   map[*node]bool   // addresses that were told of
	named     map[string]*node // listeners by name: where it stands
	ruleNames map[string]*node // the same of rules
	rules     []rulePlace      // beside settings.Rules
	openRules []Rule           // those that let anybody in

	hideAddress    bool     // what holds for listeners that do not say
	openToTheWorld bool     // the same
	listenerRefs   []*node  // names to be looked up when all is read
	groupRefs      []*node  // the same, with their @
	setRefs        []setRef // the same
	scheduleRefs   []*node  // the same
	limitRefs      []*node  // the same
	passwordRefs   []*node  // the rules that ask for one
	keyRefs        []*node  // the rules that ask for a key
	offerRefs      []*node  // the users of virtual ports
	upstreamRefs   []*node  // the same of rules that say via
	secrets        []secret // URLs with a password
	sharedRates    []*node  // where a rate says whether it is shared
	needLedger     []*node  // where the ledger is to have something
	firstProxies   []firstProxy
	mapRefs        []mapRef
	usersSet       bool // the section is there
	files          []fileRef
	zones          map[string]*time.Location // those looked up; nil: there is none
}

// fail notes a fault at n.
func (d *decoder) fail(n *node, problem, hint string) {
	if len(d.faults) >= maxFaults {
		d.unshown++
		return
	}
	d.add(n.src.fault(n.at.start, n.at.end, problem, hint))
}

// add notes a fault.
func (d *decoder) add(fault *Error) {
	if len(d.faults) >= maxFaults {
		d.unshown++
		return
	}
	d.faults = append(d.faults, fault)
}

// failFlag notes a fault of the command line.
func (d *decoder) failFlag(flag, problem, hint string) {
	d.faults = append(d.faults, &Error{Problem: flag + ": " + problem, Hint: hint})
}

// mistake is what is wrong with a value, without its place. Nil: nothing is.
type mistake struct{ problem, hint string }

// take notes m at n, and tells whether there was none.
func (d *decoder) take(n *node, m *mistake) bool {
	if m != nil {
		d.fail(n, m.problem, m.hint)
	}
	return m == nil
}

// sorted returns the faults in the order of the files and of their places there.
func (d *decoder) sorted() Errors {
	slices.SortStableFunc(d.faults, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(d.order[a.File], d.order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if d.unshown > 0 {
		d.faults = append(d.faults, &Error{File: d.first, Problem: fmt.Sprintf("%d more faults are not shown", d.unshown)})
	}
	return d.faults
}

// visit counts a node, and tells whether there were too many.
func (d *decoder) visit(n *node) bool {
	if d.visits++; d.visits == maxVisits {
		d.fail(n, "aliases make the file too large", "put fewer of them into it")
	}
	return d.visits < maxVisits
}

// fields says what to do with the value of each key of a mapping.
type fields map[string]func(value *node)

// mapping calls the function of each key. The keys of later versions are known
// so that they can be told from mistakes.
func (d *decoder) mapping(n *node, known fields, later ...string) {
	if n.kind != mapping {
		hint := ""
		if len(known) > 0 {
			hint = "the keys here are " + names(known)
		}
		d.fail(n, "expected keys with values, found "+n.describe(), hint)
		return
	}
	seen := map[string]*node{}
	for _, p := range n.pairs {
		if !d.visit(p.key) {
			return
		}
		name := p.key.text
		decode, ok := known[name]
		switch {
		case p.key.kind != scalar:
			d.fail(p.key, "a key is plain text, not "+p.key.describe(), "")
		case seen[name] != nil:
			d.twice(p.key, seen[name])
		case slices.Contains(later, name):
			d.fail(p.key, quote(name)+" is not in this version yet", "leave it out")
		case !ok:
			d.fail(p.key, "unknown key "+quote(name), didYouMean(name, known))
		case p.value.kind == empty:
			d.fail(p.key, quote(name)+" has no value", "give it a value, or leave the key out")
		default:
			decode(p.value)
		}
		if seen[name] == nil {
			seen[name] = p.key
		}
	}
}

// twice notes that a key stands in a mapping for the second time.
func (d *decoder) twice(key, first *node) {
	if key.src == first.src {
		d.fail(key, "the key "+quote(key.text)+" stands here twice", "keep one of them")
		return
	}
	d.fail(key, quote(key.text)+" is set twice", "the other one is in "+placeFrom(key, first)+"; keep one of them")
}

// each calls the function for every entry of a list. A single value is a list
// of one. Where none is allowed, an empty list is a fault: most of them mean
// everything if they are left out, and nobody should have to guess.
func (d *decoder) each(n *node, entry func(*node)) {
	if n.kind == list && len(n.items) == 0 {
		d.fail(n, "the list is empty", "leave the key out, and the default holds")
	}
	d.eachOrNone(n, entry)
}

// eachOrNone is each for lists that may be empty.
func (d *decoder) eachOrNone(n *node, entry func(*node)) {
	items := n.items
	if n.kind != list {
		items = []*node{n}
	}
	for _, item := range items {
		if !d.visit(item) {
			return
		}
		if item.kind == empty {
			d.fail(item, "an entry without a value", "")
			continue
		}
		entry(item)
	}
}

// describe says what n is, for "expected this, found that".
func (n *node) describe() string {
	switch n.kind {
	case empty:
		return "no value"
	case list:
		return "a list"
	case mapping:
		return "keys with values"
	}
	return quote(n.text)
}

// has tells whether the mapping n holds the key.
func (n *node) has(key string) bool {
	return slices.ContainsFunc(n.pairs, func(p pair) bool { return p.key.kind == scalar && p.key.text == key })
}

// names lists the keys.
func names(known fields) string {
	return strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}

// text returns n as text. Numbers are taken as they are written; what YAML
// reads as true, false or null must be quoted, for it may be meant so.
func (d *decoder) text(n *node) (string, bool) {
	switch {
	case n.kind != scalar:
		d.fail(n, "expected text, found "+n.describe(), "")
	case n.plain && isBool(n.text):
		d.fail(n, "expected text, found "+n.text, "write "+strconv.Quote(n.text)+" if the word is meant")
	case n.text == "":
		d.fail(n, "expected text, found nothing", "")
	default:
		return n.text, true
	}
	return "", false
}

// bool returns n as true or false; false for a fault.
func (d *decoder) bool(n *node) bool {
	switch {
	case n.kind == scalar && n.plain && (n.text == "true" || n.text == "false"):
		return n.text == "true"
	case n.kind == scalar && slices.Contains([]string{"yes", "on", "true", "y", "1"}, strings.ToLower(n.text)):
		d.fail(n, "expected true or false, found "+quote(n.text), "write true, without quotes")
	case n.kind == scalar && slices.Contains([]string{"no", "off", "false", "n", "0"}, strings.ToLower(n.text)):
		d.fail(n, "expected true or false, found "+quote(n.text), "write false, without quotes")
	default:
		d.fail(n, "expected true or false, found "+n.describe(), "")
	}
	return false
}

// isBool tells whether YAML reads the plain word as true or false.
func isBool(word string) bool {
	return strings.EqualFold(word, "true") || strings.EqualFold(word, "false")
}

// number returns n as a number from low to high.
func (d *decoder) number(n *node, low, high int) (int, bool) {
	if n.kind != scalar || !n.plain {
		d.fail(n, "expected a number, found "+n.describe(), fmt.Sprintf("write a number from %d to %d, without quotes", low, high))
		return 0, false
	}
	value, err := strconv.Atoi(n.text)
	if err != nil || value < low || value > high || strconv.Itoa(value) != n.text {
		d.fail(n, quote(n.text)+" is not a number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high), "")
		return 0, false
	}
	return value, true
}

// words is a set of words that a value may be, and those of later versions.
type words struct {
	what  string // "a protocol"
	known []string
	later []string
}

// word returns n as one of the known words.
func (d *decoder) word(n *node, w words) (string, bool) {
	text, ok := d.text(n)
	if !ok {
		return "", false
	}
	all := strings.Join(w.known, ", ")
	switch {
	case slices.Contains(w.known, text):
		return text, true
	case slices.Contains(w.later, text):
		d.fail(n, quote(text)+" is not in this version yet", w.what+" is one of "+all)
	default:
		hint := w.what + " is one of " + all
		if near := nearest(text, w.known); near != "" {
			hint = "did you mean " + quote(near) + "?"
		}
		d.fail(n, quote(text)+" is not "+w.what, hint)
	}
	return "", false
}

// wordList returns n as a list of known words.
func (d *decoder) wordList(n *node, w words) []string {
	var list []string
	d.each(n, func(item *node) {
		if word, ok := d.word(item, w); ok {
			list = append(list, word)
		}
	})
	return list
}
