package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// memoryDisk is a disk of files by their names.
type memoryDisk map[string]string

func (m memoryDisk) readable(string) error { return nil }

func (m memoryDisk) read(path string) ([]byte, error) {
	text, ok := m[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func (m memoryDisk) list(folder string) ([]string, error) {
	if _, ok := m[folder]; ok {
		return nil, errNoFolder
	}
	var names []string
	for path := range m {
		if filepath.Dir(path) == folder {
			names = append(names, filepath.Base(path))
		}
	}
	if names == nil {
		return nil, fs.ErrNotExist
	}
	slices.Sort(names)
	return names, nil
}

func (m memoryDisk) real(path string) string { return path }

func (m memoryDisk) exposed(string) bool { return false }

func TestInclude(t *testing.T) {
	s, err := parseOn(memoryDisk{
		"etc/conf.d/20-lab.yml":    "rules: [{allow: lab, to: '@lab'}]\nlisteners: [{name: lab, listen: 127.0.0.1:2}, {name: x, listen: 127.0.0.1:3}]\ngroups: {lab: [carol]}\nlog: {format: json}",
		"etc/conf.d/10-sets.yaml":  "sets: {lab: {prefixes: nets.txt}}\nrules: {deny: mail, ports: 25}\nadmin: off",
		"etc/conf.d/30-empty.yaml": "# nothing",
		"etc/conf.d/.old.yaml":     "x: y",
		"etc/conf.d/old.yaml~":     "x: y",
		"etc/conf.d/README":        "not settings",
		"etc/more/a.conf":          "rules: {allow: a, listeners: lab, users: '@lab', proof: ident, from: '@lab', during: night}\ninclude: deeper.conf",
		"etc/more/deeper.conf":     "schedules: {night: {hours: 22:00-06:00}}\nrules: {deny: deeper}",
		"etc/more/b.conf":          "timeouts: {idle: 1h}",
	}, "etc/sallyport.yaml", []byte("include: [conf.d, 'more/[a-b].*']\nrules: {deny: first, to: 10.0.0.1}\nlog: {level: warn}\ntimeouts: {bind: 1m}\n"), Override{})
	if err != nil {
		t.Fatal(err)
	}
	var rules, listeners []string
	for _, r := range s.Rules {
		rules = append(rules, r.Name)
	}
	for _, l := range s.Listeners {
		listeners = append(listeners, l.Name)
	}
	if got, want := strings.Join(rules, " "), "first mail lab a deeper"; got != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	if got, want := strings.Join(listeners, " "), "lab x"; got != want {
		t.Errorf("listeners %s, want %s", got, want)
	}
	if s.Sets["lab"].Prefixes[0] != "etc/conf.d/nets.txt" {
		t.Errorf("sets %+v: a file is named from the folder of the file that names it", s.Sets)
	}
	if s.Log != (Log{Level: "warn", Format: "json", AccessFormat: AccessJSON}) || s.Timeouts.Idle != time.Hour || s.Timeouts.Bind != time.Minute {
		t.Errorf("%+v, %+v", s.Log, s.Timeouts)
	}
}

// includeMistakes are files with others, and all the faults that must be found.
var includeMistakes = []struct {
	name, file string
	disk       memoryDisk
	want       []string
}{
	{"missing", "include: [none.yaml, no/*.yaml, '']\nrules: {allow: x, users: '@g'}", nil, []string{
		`f.yaml:1:11 the settings in "none.yaml" cannot be read: file does not exist | `,
		`f.yaml:1:22 the settings in "no" cannot be read: file does not exist | `,
		`f.yaml:1:33 expected text, found nothing | `,
	}},
	{"nothing", "include: []", nil, []string{`f.yaml:1:10 the list is empty | leave the key out, and the default holds`}},
	{"no value", "include:", nil, []string{`f.yaml:1:1 "include" has no value | give it a value, or leave the key out`}},
	{"no value there", "include: a", memoryDisk{"a": "include:"}, []string{`a:1:1 "include" is set twice | the other one is in line 1 of f.yaml; keep one of them`}},
	{"a mapping", "include: {file: a}", nil, []string{`f.yaml:1:10 expected text, found keys with values | `}},
	{"NUL", `include: "a\0"`, nil, []string{`f.yaml:1:10 the name of a file cannot hold a NUL byte | `}},
	{"bad patterns", "include: ['*/a.yaml', 'a[.yaml']", nil, []string{
		`f.yaml:1:11 a pattern stands only in the last part of a path | name the folders one by one`,
		`f.yaml:1:23 "a[.yaml" is not a pattern | write *.yaml`,
	}},
	{"itself", "include: '*.yaml'", memoryDisk{"f.yaml": "", "g.yaml": ""}, []string{`f.yaml:1:10 the settings in "f.yaml" include themselves | leave it out`}},
	{"in a circle", "include: a", memoryDisk{"a": "include: b", "b": "include: [c, a]", "c": ""}, []string{`b:1:14 the settings in "a" are included twice | the other time is in line 1 of f.yaml`}},
	{"twice", "include:\n  - a\n  - a", memoryDisk{"a": ""}, []string{`f.yaml:3:5 the settings in "a" are included twice | the other time is in line 2`}},
	{"too deep", "include: l0", deepDisk(), []string{`l7:1:10 over 8 files that include each other | `}},
	{"too long", "include: [long.yaml, l9]", deepDisk(), []string{`f.yaml:1:11 the included files are over 16 MiB | `}},
	{"no YAML", "include: [a, b]\nlog: {levl: x}\nrules: {allow: x, during: y}", memoryDisk{"a": "log: {", "b": "rules: x\nfoo: bar"}, []string{
		`f.yaml:2:7 unknown key "levl" | did you mean "level"?`,
		"a:1:6 this { is never closed | close the mapping with }",
		`b:1:8 expected keys with values, found "x" | the keys here are allow, bind, commands, deny, during, from, limits, listeners, mark, outgoing, ports, proof, protocols, to, users, via`,
		`b:2:1 unknown key "foo" | the keys here are admin, groups, hide_address, include, ledger, limits, listeners, log, open_to_the_world, pac, resolver, rules, schedules, sets, ssh, timeouts, upstreams, users, virtual_ports`,
	}},
	{"a list in an included file", "include: a", memoryDisk{"a": "- x"}, []string{`a:1:1 expected keys with values, found a list | an included file has sections, as the settings file has`}},
	{"the same in two files", "include: a\nrules: {allow: x}\ngroups: {g: u}\nlog: {level: info}\nadmin: off\nlisteners: {name: l, listen: 127.0.0.1:1}\n", memoryDisk{
		"a": "rules: {deny: x}\ngroups: {g: v}\nlog: {level: warn}\nadmin: off\nlisteners: [{name: l, listen: 127.0.0.1:2}, {listen: 127.0.0.1:1}]\ngroups: {}",
	}, []string{
		`a:1:15 two rules are called "x" | the other one is in line 2 of f.yaml`,
		`a:2:10 "g" is set twice | the other one is in line 3 of f.yaml; keep one of them`,
		`a:3:7 "level" is set twice | the other one is in line 4 of f.yaml; keep one of them`,
		`a:4:1 "admin" is set twice | the other one is in line 5 of f.yaml; keep one of them`,
		`a:5:20 two listeners are called "l" | the other one is in line 6 of f.yaml`,
		`a:5:54 two listeners on the same address | the other one is in line 6 of f.yaml`,
		`a:6:1 "groups" is set twice | the other one is in line 3 of f.yaml; keep one of them`,
	}},
	{"names across files", "include: a\nrules: {deny: all}", memoryDisk{"a": "rules: [{allow: x, users: '@g', limits: l}, {allow: y}]"}, []string{
		`a:1:17 the rule "x" can never match: whatever it matches, "all" matches first | "all" is in line 2 of f.yaml; put it behind this one, or take one of them out`,
		`a:1:27 no group is called "g" | there are none in the settings`,
		`a:1:41 no limit is called "l" | there are none in the settings`,
		`a:1:53 the rule "y" can never match: whatever it matches, "all" matches first | "all" is in line 2 of f.yaml; put it behind this one, or take one of them out`,
	}},
}

// deepDisk has files that include each other, and a long one.
func deepDisk() memoryDisk {
	deep := memoryDisk{"l9": "", "long.yaml": strings.Repeat("#", maxSize-20)}
	for i := range 9 {
		deep["l"+strconv.Itoa(i)] = "include: l" + strconv.Itoa(i+1)
	}
	return deep
}

// Each fault stands in its own file.
func TestIncludeMistakes(t *testing.T) {
	for _, c := range includeMistakes {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseOn(c.disk, "f.yaml", []byte(c.file), Override{})
			faults, _ := errors.AsType[Errors](err)
			var got []string
			for _, f := range faults {
				got = append(got, f.File+":"+strconv.Itoa(f.Line)+":"+strconv.Itoa(f.Column)+" "+f.Problem+" | "+f.Hint)
				text := c.disk[f.File]
				if f.File == "f.yaml" {
					text = c.file
				}
				if f.Text != strings.Split(text, "\n")[f.Line-1] {
					t.Errorf("%s:%d shows %q", f.File, f.Line, f.Text)
				}
			}
			if g, w := strings.Join(got, "\n"), strings.Join(c.want, "\n"); g != w {
				t.Errorf("faults:\n%s\nwant:\n%s", g, w)
			}
		})
	}
}

// Files of the machine: folders, links that come round again.
func TestIncludeFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	main := filepath.Join(dir, "sallyport.yaml")
	write("sallyport.yaml", "include: [conf.d, one]\n")
	write("conf.d/b.yaml", "rules: {allow: b, ports: 80}")
	write("conf.d/a.yaml", "rules: {allow: a, ports: 81}")
	write("one", "users: {file: one-users}")
	write("one-users", "")
	s, err := Load(main, Override{})
	if err != nil || len(s.Rules) != 2 || s.Rules[0].Name != "a" || s.Users.File != filepath.Join(dir, "one-users") {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := os.Symlink(main, filepath.Join(dir, "conf.d", "c.yaml")); err != nil {
		t.Fatal(err)
	}
	write("conf.d/d.yaml/x", "")
	_, err = Load(main, Override{})
	for _, want := range []string{"c.yaml\" include themselves", "d.yaml\" cannot be read: it is a folder"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q:\n%v", want, err)
		}
	}
}
