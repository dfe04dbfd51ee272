package config

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// resolvedSchema is the printed schema, read again.
var resolvedSchema = sync.OnceValues(func() (*jsonschema.Resolved, error) {
	text, err := Schema()
	if err != nil {
		return nil, err
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	return s.Resolve(nil)
})

// schemaFault returns what the schema finds wrong with a file that is YAML.
func schemaFault(t *testing.T, file string) error {
	t.Helper()
	schema, err := resolvedSchema()
	if err != nil {
		t.Fatal(err)
	}
	root, fault := newSource("f.yaml", []byte(file)).parse()
	if fault != nil {
		t.Fatal(fault)
	}
	return schema.Validate(asJSON(root))
}

// asJSON returns the tree as an editor reads it.
func asJSON(n *node) any {
	switch {
	case n == nil || n.kind == empty:
		return nil
	case n.kind == list:
		items := []any{}
		for _, item := range n.items {
			items = append(items, asJSON(item))
		}
		return items
	case n.kind == mapping:
		pairs := map[string]any{}
		for _, p := range n.pairs {
			pairs[p.key.text] = asJSON(p.value)
		}
		return pairs
	case n.plain && (n.text == "true" || n.text == "false"):
		return n.text == "true"
	case n.plain:
		if number, err := strconv.ParseFloat(n.text, 64); err == nil {
			return number
		}
	}
	return n.text
}

// TestSchemaKeys: the schema has the keys that the decoder takes, at each level.
func TestSchemaKeys(t *testing.T) {
	levels := []struct {
		file string // with a key ? where the level is
		in   func(s *jsonschema.Schema) *jsonschema.Schema
	}{
		{"?: 1", func(s *jsonschema.Schema) *jsonschema.Schema { return s }},
		{"listeners: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["listeners"].AnyOf[0] }},
		{"listeners: {tls: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["listeners"].AnyOf[0].Properties["tls"]
		}},
		{"listeners: {map: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["listeners"].AnyOf[0].Properties["map"].AnyOf[0]
		}},
		{"listeners: {map: {tls: {?: 1}}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["listeners"].AnyOf[0].Properties["map"].AnyOf[0].Properties["tls"].AnyOf[0]
		}},
		{"users: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["users"] }},
		{"sets: {a: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["sets"].AdditionalProperties }},
		{"schedules: {a: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["schedules"].AdditionalProperties.AnyOf[0]
		}},
		{"upstreams: {a: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["upstreams"].AdditionalProperties }},
		{"upstreams: {a: {login: {?: 1}}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["upstreams"].AdditionalProperties.Properties["login"]
		}},
		{"admin: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["admin"].AnyOf[0] }},
		{"admin: {tls: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["admin"].AnyOf[0].Properties["tls"]
		}},
		{"pac: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["pac"].AnyOf[0] }},
		{"limits: {a: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["limits"].AdditionalProperties }},
		{"rules: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["rules"].AnyOf[0] }},
		{"rules: {bind: {?: 1}}", func(s *jsonschema.Schema) *jsonschema.Schema {
			return s.Properties["rules"].AnyOf[0].Properties["bind"]
		}},
		{"virtual_ports: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["virtual_ports"].AnyOf[0] }},
		{"ssh: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["ssh"] }},
		{"resolver: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["resolver"] }},
		{"timeouts: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["timeouts"] }},
		{"log: {?: 1}", func(s *jsonschema.Schema) *jsonschema.Schema { return s.Properties["log"] }},
	}
	schema := settingsSchema()
	compared := map[*jsonschema.Schema]bool{}
	for _, level := range levels {
		in := level.in(schema)
		compared[in] = true
		want := "the keys here are " + strings.Join(slices.Sorted(maps.Keys(in.Properties)), ", ")
		_, err := Parse("f.yaml", []byte(strings.ReplaceAll(level.file, "?", "qqqqqqqq")), Override{})
		faults, _ := errors.AsType[Errors](err)
		if !slices.ContainsFunc(faults, func(f *Error) bool { return f.Hint == want }) {
			t.Errorf("%s: the schema says %q, the decoder:\n%v", level.file, want, err)
		}
	}
	walk(schema, func(s *jsonschema.Schema) {
		if len(s.Properties) > 0 && !compared[s] {
			t.Errorf("a level of the schema is not compared: its keys are %q", slices.Sorted(maps.Keys(s.Properties)))
		}
	})
}

// walk visits each schema once, but for the second copy of a list's entry.
func walk(s *jsonschema.Schema, visit func(*jsonschema.Schema)) {
	visit(s)
	for _, p := range s.Properties {
		walk(p, visit)
	}
	if s.AdditionalProperties != nil {
		walk(s.AdditionalProperties, visit)
	}
	if len(s.AnyOf) > 0 {
		walk(s.AnyOf[0], visit)
	}
}

// TestSchemaMistakes: what the schema can know to be wrong, it finds.
func TestSchemaMistakes(t *testing.T) {
	found := 0
	for _, c := range mistakes {
		if err := schemaFault(t, c.file); err != nil {
			found++
		} else if slices.ContainsFunc(c.want, func(w string) bool {
			return strings.Contains(w, "unknown key") || strings.Contains(w, "not in this version yet | leave it out") || strings.Contains(w, " expected ")
		}) {
			t.Errorf("%s: the schema takes %q", c.name, c.file)
		}
	}
	const least = 90
	if found < least { // the others are between places of a file, of which a schema knows nothing
		t.Errorf("the schema finds %d of %d mistakes, want %d", found, len(mistakes), least)
	}
}

func TestSchemaPrints(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil || v["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("%v: %v", err, v["$schema"])
	}
	for _, part := range []string{`"additionalProperties": false`, `"socks4a"`, `"half_closed"`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("it does not hold %s", part)
		}
	}
}
