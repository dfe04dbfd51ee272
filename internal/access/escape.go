package access

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxField is the longest text from outside that a log line carries, in bytes.
const maxField = 255

// Escape makes text from outside fit to stand in a log: what is not printable
// becomes \xNN, so that nothing a client sends can form a line of its own or
// move a terminal's cursor, and what is too long is cut, with "..." in its place.
func Escape(s string) string {
	var b strings.Builder
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		var piece string
		switch {
		case r == '\\':
			piece = `\\`
		case unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			piece = s[i : i+size]
		default:
			for _, c := range []byte(s[i : i+size]) {
				piece += fmt.Sprintf(`\x%02x`, c)
			}
		}
		if b.Len()+len(piece) > maxField {
			b.WriteString("...")
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}
