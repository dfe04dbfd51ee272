package access

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxField is the longest text from outside that a log line carries, in bytes.
const maxField = 255

const (
	cutMark  = "..."
	maxPiece = 4 * utf8.UTFMax // what one character can become
)

// Escape makes text from outside fit to stand in a log: what is not printable
// becomes \xNN, so that nothing a client sends can form a line of its own or
// move a terminal's cursor, and what is too long is cut, with "..." in its place.
func Escape(s string) string {
	if isPlain(s) {
		return s
	}
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
			b.WriteString(cutMark)
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

// isPlain reports whether a text is short and ASCII, and has nothing to escape.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '\\' {
			return false
		}
	}
	return len(s) <= maxField
}

// Unescape returns the text of which [Escape] has made s. It fails where s was
// made by nothing of the kind, or may have been cut: then what is missing is lost.
func Unescape(s string) (text string, ok bool) {
	if len(s) > maxField-maxPiece && strings.HasSuffix(s, cutMark) {
		return "", false
	}
	var b strings.Builder
	for s != "" {
		plain, rest, found := strings.Cut(s, `\`)
		b.WriteString(plain)
		if !found {
			break
		}
		var c uint64
		var err error
		switch {
		case strings.HasPrefix(rest, `\`):
			c, rest = '\\', rest[1:]
		case len(rest) >= 3 && rest[0] == 'x':
			c, err = strconv.ParseUint(rest[1:3], 16, 8)
			rest = rest[3:]
		default:
			err = strconv.ErrSyntax
		}
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		s = rest
	}
	return b.String(), true
}
