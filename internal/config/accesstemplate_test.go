package config

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAccessTemplate(t *testing.T) {
	for text, want := range map[string][]AccessPiece{
		"{user}":                         {{Field: "user"}},
		"a {user}{up} b":                 {{Text: "a "}, {Field: "user"}, {Field: "up"}, {Text: " b"}},
		`{{"user":"{user}"}}`:            {{Text: `{"user":"`}, {Field: "user"}, {Text: `"}`}},
		"{time}\t{{}}":                   {{Field: "time"}, {Text: "\t{}"}},
		strings.Repeat("{user}", 4096/6): slices.Repeat([]AccessPiece{{Field: "user"}}, 4096/6),
	} {
		if got, err := ParseAccessTemplate(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "neither a format", "JSON": "neither a format", "{{user}}": "neither a format", "{": "brace", "{user": "brace", "user}": "brace", "{user}}": "brace",
		"{usr}": "did you mean {user}?", "{}": "no field", "{user }": "did you mean", "{user}\n": "line breaks", "{user}\x1b": "control", "{user}\u2028": "line breaks",
		strings.Repeat("{user}", 1000): "4096",
	} {
		_, err := ParseAccessTemplate(text)
		fault, ok := errors.AsType[*Error](err)
		if !ok || !strings.Contains(fault.Problem+fault.Hint, want) {
			t.Errorf("%q: %v, want a fault that says %q", text, err, want)
		}
	}
}

// FuzzAccessTemplate: what is taken has fields that there are, can be written down again,
// and has nothing that ends a line.
func FuzzAccessTemplate(f *testing.F) {
	for _, text := range []string{"", "{user}", "a{{b}}{up} {down}", "{", "}", "{}", "{user}\n", "{{{user}}}", "\xff{user}", "{time}\u2028"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pieces, err := ParseAccessTemplate(text)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || pieces != nil {
				t.Fatalf("%v, %#v", pieces, err)
			}
			return
		}
		again := writtenDown(t, pieces)
		if same, err := ParseAccessTemplate(again); err != nil || !reflect.DeepEqual(same, pieces) {
			t.Errorf("%q, and written down again %q: %v, %v", text, again, same, err)
		}
	})
}

// writtenDown makes a template of pieces, each of which must be one.
func writtenDown(t *testing.T, pieces []AccessPiece) string {
	t.Helper()
	var b strings.Builder
	for _, p := range pieces {
		if (p.Field == "") == (p.Text == "") || p.Field != "" && !slices.Contains(AccessFields(), p.Field) || strings.ContainsAny(p.Text, "\r\n\x00") {
			t.Errorf("the piece %+v", p)
		}
		if p.Field != "" {
			b.WriteString("{" + p.Field + "}")
		} else {
			b.WriteString(strings.NewReplacer("{", "{{", "}", "}}").Replace(p.Text))
		}
	}
	return b.String()
}

func TestAccessLogSettings(t *testing.T) {
	s, err := Parse("/etc/sallyport/s.yaml", []byte("log: {access: a.log, access_format: '{user}', access_size: 100 MiB, access_age: 1d, access_keep: 7}"), Override{})
	want := Log{Level: "info", Format: "text", Access: "/etc/sallyport/a.log", AccessFormat: "{user}", AccessSize: 100 << 20, AccessAge: 24 * time.Hour, AccessKeep: 7}
	if err != nil || s.Log != want {
		t.Errorf("%+v, %v; want %+v", s.Log, err, want)
	}
	for text, want := range map[string]string{
		"log: {access_format: squib}":               "1:22: neither",
		"log: {access_format: '{usr}'}":             "did you mean {user}?",
		"log: {access_size: 1 KiB}":                 "64 KiB",
		"log: {access_size: 100 Mb}":                "unit",
		"log: {access_age: 1m}":                     "from 1h",
		"log: {access: x, access_keep: 3}":          "access_size",
		"log: {access_keep: 0, access_size: 1 GiB}": "from 1",
	} {
		if _, err := Parse("s.yaml", []byte(text), Override{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a fault that says %q", text, err, want)
		}
	}
}
