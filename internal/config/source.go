package config

import (
	"sort"
	"strings"
	"unicode/utf8"
)

// maxSize is the most bytes of a settings file that are read.
const maxSize = 16 << 20

// source is the text of a file, and knows which line and column an offset is.
type source struct {
	file   string
	text   string // with \n for line ends, and without a byte order mark
	starts []int  // the offset of each line's first byte
}

func newSource(file string, data []byte) *source {
	text := strings.TrimPrefix(string(data), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	s := &source{file: file, text: text, starts: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			s.starts = append(s.starts, i+1)
		}
	}
	return s
}

// line returns the line that holds offset: its number from 1, and its text
// without the newline.
func (s *source) line(offset int) (number int, text string) {
	i := sort.SearchInts(s.starts, offset+1) - 1
	end := len(s.text)
	if i+1 < len(s.starts) {
		end = s.starts[i+1] - 1
	}
	return i + 1, s.text[s.starts[i]:end]
}

// fault returns an Error at the offsets from start to end. What lies in later
// lines than start is not underlined.
func (s *source) fault(start, end int, problem, hint string) *Error {
	start = min(start, len(s.text))
	number, text := s.line(start)
	first := s.starts[number-1]
	end = min(max(end, start), first+len(text))
	return &Error{
		File: s.file, Line: number, Column: 1 + utf8.RuneCountInString(s.text[first:start]),
		Text: veil(text), Problem: problem, Hint: hint,
		Width: utf8.RuneCountInString(s.text[start:max(start, end)]),
	}
}

// check refuses what is no text, and what the YAML library would take too long
// over. It looks at every byte once.
func (s *source) check() *Error {
	if len(s.text) > maxSize {
		return &Error{File: s.file, Problem: "the file is over 16 MiB"}
	}
	if fault := s.characters(); fault != nil {
		return fault
	}
	return s.work()
}

func (s *source) characters() *Error {
	for i := 0; i < len(s.text); {
		r, size := utf8.DecodeRuneInString(s.text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return s.fault(i, i+1, "this is not UTF-8 text", "save the file as UTF-8")
		case r < ' ' && r != '\t' && r != '\n', r >= 0x7f && r < 0xa0, r == 0xfeff:
			return s.fault(i, i+size, "a control character stands in the text", `between double quotes it may be written as an escape, such as "\x01"`)
		}
		i += size
	}
	return nil
}
