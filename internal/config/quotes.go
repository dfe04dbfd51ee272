package config

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// Quoted text must end on the line where it starts. YAML lets it go on, but
// then a forgotten quote is found at the other end of the file, if at all.

// singleQuoted returns the end of the quoted text that starts at.
func (s *source) singleQuoted(at int) (int, *Error) {
	for i := at + 1; i < len(s.text) && s.text[i] != '\n'; i++ {
		if s.text[i] != '\'' {
			continue
		}
		if i++; i == len(s.text) || s.text[i] != '\'' { // two of them stand for one
			return i, nil
		}
	}
	return 0, s.unclosed(at)
}

// doubleQuoted is singleQuoted for double quotes. It checks the escapes too:
// the YAML library takes any two characters for the digits of \x.
func (s *source) doubleQuoted(at int) (int, *Error) {
	for i := at + 1; i < len(s.text) && s.text[i] != '\n'; {
		switch s.text[i] {
		case '"':
			return i + 1, nil
		case '\\':
			size := escapeSize(s.text[i:min(i+10, len(s.text))])
			if size == 0 {
				return 0, s.fault(i, i+2, "this is not an escape of YAML", `write \\ for a backslash, "\x01" for a byte, "\u00e9" for a character`)
			}
			i += size
		default:
			i++
		}
	}
	return 0, s.unclosed(at)
}

func (s *source) unclosed(at int) *Error {
	return s.fault(at, at+1, "this quote is not closed on its line", "")
}

// escapeSize returns the length of the escape that text starts with, which is
// 10 bytes at the most, or 0 if there is no such escape.
func escapeSize(text string) int {
	if len(text) < 2 {
		return 0
	}
	digits := 0
	switch text[1] {
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	default:
		if strings.IndexByte("0abtnvfre \"/\\N_LP\t", text[1]) < 0 {
			return 0
		}
		return 2
	}
	if len(text) < 2+digits {
		return 0
	}
	code, err := strconv.ParseUint(text[2:2+digits], 16, 32)
	if err != nil || code > utf8.MaxRune || !utf8.ValidRune(rune(code)) { // half of a surrogate pair is none
		return 0
	}
	return 2 + digits
}

// invalid says what is wrong where the YAML library found no token.
func (s *source) invalid(tk *token.Token, at int) *Error {
	if tab, ok := s.indentedByTab(tk.Position.Line); ok {
		return s.fault(tab, tab+1, "a tab in the indentation", "indent with spaces")
	}
	if at < len(s.text) {
		switch c := s.text[at]; c {
		case '@', '`':
			word := s.restOfLine(at)
			word = word[:1+strings.IndexAny(word[1:]+" ", " \t,]}#")]
			return s.fault(at, at+len(word), "a value that starts with "+string(c)+" stands in quotes", "write "+quote(word))
		case '"':
			if _, fault := s.doubleQuoted(at); fault != nil {
				return fault
			}
		case '\'':
			if _, fault := s.singleQuoted(at); fault != nil {
				return fault
			}
		case '|', '>':
			return s.fault(at, at+1, "a block of text is used nowhere in settings", "put the value in quotes")
		}
	}
	return s.misread(at)
}

// indentedByTab finds a tab in the blank space that line number begins with.
func (s *source) indentedByTab(number int) (offset int, ok bool) {
	if number < 1 || number > len(s.starts) {
		return 0, false
	}
	start := s.starts[number-1]
	line := s.restOfLine(start)
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	i := strings.IndexByte(indent, '\t')
	return start + i, i >= 0
}
