package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Files that the YAML library would take minutes over, or die of. Each is
// refused; that it is refused soon shows in that the test ends.
func TestLimits(t *testing.T) {
	again := func(s string, size int) string { return strings.Repeat(s, size/len(s)) }
	const size = 1 << 20
	for _, c := range []struct{ name, file, want string }{
		{"brackets", again("[", size/8), "over 100 lists and mappings in each other"},
		{"very many brackets", again("[", 15<<20), tooLarge},
		{"braces", again("{a: ", size/4), "over 100 lists and mappings in each other"},
		{"dashes", again("- ", size/4), "over 100 lists and mappings in each other"},
		{"indentation", staircase(1000), "over 100 lists and mappings in each other"},
		{"keys", again("a: b\n", size/4), "over 10000 keys in one mapping"},
		{"commas", "[a" + again(",a", size) + "]", tooLarge},
		{"lines", again("- a\n", size), tooLarge},
		{"empty entries", again("-\n", size/4), tooLarge},
		{"keys without values", "{" + again("a,", size/4) + "}", tooLarge},
		{"tabs in quotes", `a: "` + again("\t", size) + `"`, tooLarge},
		{"tabs and text in quotes", `a: "` + again("\tx", size) + `"`, tooLarge},
		{"less-than signs", again("<", size), tooLarge},
		{"blank lines", "a: |\n  x" + again("\n", size), tooLarge},
		{"empty keys", again("a:\n", size/4), tooLarge},
		{"documents", again("---\n", size/4), "a second document"},
		{"documents that end", again("- a\n...\n", size/4), "a second document"},
		{"tags", again("!a ", size/4), "this does not belong to what stands above it"},
		{"anchors", again("&a ", size/4), "an anchor without a value"},
		{"listeners", "listeners: [" + again("{listen: ':0'}, ", 20*maxListeners) + "]", "over 1000 listeners"},
		{"the whole size", again("#", maxSize+1), "the file is over 16 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.file), Override{})
			faults, ok := errors.AsType[Errors](err)
			if !ok || len(faults) != 1 || faults[0].Problem != c.want {
				t.Fatalf("got %.300v, want %s", err, c.want)
			}
		})
	}
}

// staircase is a file in which each of n lines is further right.
func staircase(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// Large, but what somebody may have.
func TestLargeFiles(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("rules:\n")
	for i := range 5000 {
		fmt.Fprintf(&rules, "  - allow: rule %d  # of many\n    from: [10.0.%d.%d, 192.168.0.0/16]\n    to: internet\n    ports: [80, %d]\n", i, i/256, i%256, i+81)
	}
	if s := parse(t, rules.String()); len(s.Rules) != 5000 {
		t.Errorf("%d rules", len(s.Rules))
	}
	networks := "rules: {allow: x, from: [" + strings.Repeat("10.0.0.1, ", 50_000) + "]}"
	if s := parse(t, networks); len(s.Rules[0].From) != 50_000 {
		t.Errorf("%d networks", len(s.Rules[0].From))
	}
	json := `{"groups": {"g": [` + strings.Repeat(`"a user with a name", `, 60_000) + `"x"]}}`
	if s := parse(t, json); len(s.Groups["g"]) != 60_001 {
		t.Errorf("%d users", len(s.Groups["g"]))
	}
	comments := strings.Repeat("# [{a: b}, {c: d}] and more: of this\n", 200_000) + "log: {level: debug}\n"
	if s := parse(t, comments); s.Log.Level != "debug" {
		t.Errorf("log %+v", s.Log)
	}
}

// A few lines of aliases must not make millions of entries.
func TestAliasBomb(t *testing.T) {
	entry := strings.Repeat("a, ", 20_000)
	repeat := func(s string) string { return strings.Repeat(s, 20_000) }
	for name, file := range map[string]string{
		"lists":  "groups: {a: &a [" + entry + "], b: [" + repeat("*a, ") + "]}",
		"rules":  "groups: {a: &a [" + entry + "]}\nrules: [&r {allow: x, users: *a}, " + repeat("*r, ") + "]",
		"nested": "rules:\n  - &a [x, x]\n  - &b [*a, *a]\n  - &c [*b, *b]\n  - &d [*c, *c]\n  - [*d, *d]\n",
	} {
		_, err := Parse("f.yaml", []byte(file), Override{})
		faults, ok := errors.AsType[Errors](err)
		if !ok || len(faults) > maxFaults+1 {
			t.Errorf("%s: %d faults", name, len(faults))
		}
	}
}

func TestManyFaults(t *testing.T) {
	_, err := Parse("f.yaml", []byte("rules: {allow: x, from: ["+strings.Repeat("x, ", maxFaults+5)+"]}"), Override{})
	faults, ok := errors.AsType[Errors](err)
	if !ok || len(faults) != maxFaults+1 {
		t.Fatalf("%d faults, want %d and one more", len(faults), maxFaults)
	}
	if got, want := faults[maxFaults].Error(), "f.yaml: 5 more faults are not shown"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
