package access

import (
	"strings"
	"testing"
)

// FuzzEscape escapes texts and takes them back, and takes back what nobody escaped.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{
		"", "bob", `b\ob`, `\\x41`, "a\x00\x1b[31m\x7f", "ÿ\u2028\u202e", "\xff\xfe\xc3\x28", "...", `\x4`, `\xzz`, `\`,
		strings.Repeat("x", 252) + "...", strings.Repeat("\x01", 80), strings.Repeat("\u2028", 22), strings.Repeat("ÿ", 128),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := Escape(s)
		switch back, ok := Unescape(escaped); {
		case ok && back != s:
			t.Errorf("%q became %q, and that %q", s, escaped, back)
		case !ok && !strings.HasSuffix(escaped, cutMark):
			t.Errorf("%q became %q, which cannot be taken back", s, escaped)
		}
		if text, ok := Unescape(s); ok && len(text) > len(s) {
			t.Errorf("%q became the longer %q", s, text)
		}
	})
}
