package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// examples returns the settings files in a page of Markdown: what stands between
// fences of yaml, and what is indented and begins as settings do.
func examples(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", page))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	fence := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	for _, m := range fence.FindAllSubmatch(text, -1) {
		found = append(found, string(m[1]))
	}
	text = fence.ReplaceAll(text, nil)
	begins := regexp.MustCompile(`^(#.*\n)*(listeners|virtual_ports|ssh|users|upstreams|groups|sets|schedules|limits|rules|resolver|timeouts|log|pac|ledger|include):`)
	for _, block := range regexp.MustCompile(`(?m)(^    .*\n)+`).FindAllString(string(text), -1) {
		block = regexp.MustCompile(`(?m)^    `).ReplaceAllString(block, "")
		if begins.MatchString(block) {
			found = append(found, block)
		}
	}
	return found
}

// loadHere puts a file into a folder with every file that it names, and loads it.
func loadHere(t *testing.T, text string) *Settings {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"users", "gw.pem", "gw.key", "staff-ca.pem", "ads.txt", "blocked-hosts.txt", "blocked-nets.txt", "conf.d/empty.yaml", "teams/empty.yaml", "extra.yaml", "headquarters.login", "hq.login", "shop-ca.pem"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "sallyport.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(path, Override{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := schemaFault(t, text); err != nil {
		t.Errorf("the schema refuses it: %v\n%s", err, text)
	}
	return s
}

// TestExamplesInPages: every example is a file that can be used.
func TestExamplesInPages(t *testing.T) {
	for page, least := range map[string]int{"docs/rules.md": 5, "docs/settings.md": 12, "docs/virtual-ports.md": 1, "docs/browsers.md": 1, "README.md": 1} {
		found := examples(t, page)
		if len(found) < least {
			t.Errorf("%d examples in %s: the test looks at the wrong place", len(found), page)
		}
		for _, text := range found {
			loadHere(t, text)
		}
	}
}

// TestLaptopExample: the page says that it is what is in force without a file.
func TestLaptopExample(t *testing.T) {
	for _, page := range []string{"docs/rules.md", "docs/settings.md"} {
		same := false
		for _, text := range examples(t, page) {
			if strings.Contains(text, "allow: this machine") {
				same = reflect.DeepEqual(loadHere(t, text), byDefault())
			}
		}
		if !same {
			t.Errorf("%s does not have the settings of an empty file", page)
		}
	}
}

// TestExampleFile: docs/sallyport.example.yaml has every key that there is.
func TestExampleFile(t *testing.T) {
	text, err := os.ReadFile("../../docs/sallyport.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := loadHere(t, string(text))
	if s.Timeouts != byDefault().Timeouts || s.Log != byDefault().Log {
		t.Errorf("%+v, %+v: where there is a default, the example shows it", s.Timeouts, s.Log)
	}
	walk(settingsSchema(), func(level *jsonschema.Schema) {
		for key := range level.Properties {
			if !regexp.MustCompile(`[\s{#]` + key + `:`).Match(text) {
				t.Errorf("the example does not have the key %q", key)
			}
		}
	})
}
