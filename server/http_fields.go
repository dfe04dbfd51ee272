package server

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Bounds of a message's head, and of the trailers behind a body.
const (
	maxHead    = 64 << 10 // bytes, with the empty line that ends it
	maxFields  = 100
	maxTrailer = 16 << 10 // bytes, likewise
)

// errHeadSize says that a head is past its bounds; every other fault of a head
// is a plain error.
var errHeadSize = fmt.Errorf("a head of more than %d bytes or %d fields", maxHead, maxFields)

// field is one header or trailer field, as it was written.
type field struct{ name, value string }

// fields are those of a head, in the order in which they came.
type fields []field

// parseFields reads field lines up to the empty line, which must be the end of
// s (RFC 9112, section 5). It is as strict as the grammar: whatever two readers
// could read in two ways is an error.
func parseFields(s string) (fields, error) {
	all := make(fields, 0, min(strings.Count(s, "\n"), maxFields))
	for {
		line, rest, err := cutLine(s)
		switch {
		case err != nil:
			return nil, err
		case line == "" && rest == "":
			return all, nil
		case line == "":
			return nil, errors.New("bytes behind the empty line")
		case len(all) == maxFields:
			return nil, errHeadSize
		}
		f, err := parseField(line)
		if err != nil {
			return nil, err
		}
		all, s = append(all, f), rest
	}
}

// cutLine returns what stands before the first CR LF, and what behind.
func cutLine(s string) (line, rest string, err error) {
	end := strings.IndexByte(s, '\n')
	if end < 1 || s[end-1] != '\r' {
		return "", "", errors.New("a line that does not end with CR LF")
	}
	return s[:end-1], s[end+1:], nil
}

func parseField(line string) (field, error) {
	name, value, found := strings.Cut(line, ":")
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return field{}, errors.New("a folded field")
	case !found || !isToken(name):
		return field{}, errors.New("a field without a proper name")
	}
	value = strings.Trim(value, " \t")
	if !isFieldValue(value) {
		return field{}, errors.New("a field with control characters")
	}
	return field{name, value}, nil
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	return c-'0' < 10 || c|0x20-'a' < 26 || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if isControl(s[i]) && s[i] != '\t' {
			return false
		}
	}
	return true
}

func isControl(c byte) bool { return c < ' ' || c == 0x7f }

// all yields the values of a name, whatever case it is written in.
func (f fields) all(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, each := range f {
			if isWord(each.name, name) && !yield(each.value) {
				return
			}
		}
	}
}

// count returns how often a name is there.
func (f fields) count(name string) (n int) {
	for range f.all(name) {
		n++
	}
	return n
}

// get returns the first value of a name, or nothing.
func (f fields) get(name string) string {
	for value := range f.all(name) {
		return value
	}
	return ""
}

// list yields the elements of a name's lists, without the empty ones.
func (f fields) list(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for value := range f.all(name) {
			for element := range strings.SplitSeq(value, ",") {
				if element = strings.Trim(element, " \t"); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

// lists reports whether a token is among the elements of a name's lists.
func (f fields) lists(name, token string) bool {
	for element := range f.list(name) {
		if isWord(element, token) {
			return true
		}
	}
	return false
}

// isWord reports whether s is an ASCII word, in whatever case. (EqualFold alone
// takes some letters outside ASCII for ones inside it, but those are longer.)
func isWord(s, word string) bool { return len(s) == len(word) && strings.EqualFold(s, word) }

// append writes the field lines, without an empty one behind them.
func (f fields) append(b []byte) []byte {
	for _, each := range f {
		b = appendField(b, each.name, each.value)
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// perHop are the fields that are for one connection only (RFC 9110, section
// 7.6.1), those that carry the framing, those of the proxy's own login, and those
// by which it says why it refuses: what a target sends must not look like that.
var perHop = map[string]bool{
	"connection":                true,
	"proxy-connection":          true,
	"keep-alive":                true,
	"te":                        true,
	"transfer-encoding":         true,
	"content-length":            true,
	"upgrade":                   true,
	"http2-settings":            true,
	"proxy-authorization":       true,
	"proxy-authenticate":        true,
	"proxy-authentication-info": true,
	"sallyport-reason":          true,
	"sallyport-rule":            true,
}

// endToEnd returns the fields that are passed on: without those of this hop,
// without those that Connection names, and without the names in drop, which
// are in lower case.
func (f fields) endToEnd(drop ...string) fields {
	gone := make(map[string]bool)
	for name := range f.list("Connection") {
		gone[strings.ToLower(name)] = true
	}
	for _, name := range drop {
		gone[name] = true
	}
	kept := make(fields, 0, len(f))
	for _, each := range f {
		if name := strings.ToLower(each.name); !perHop[name] && !gone[name] {
			kept = append(kept, each)
		}
	}
	return kept
}

// trailers returns what of a trailer section may be passed on (RFC 9110,
// section 6.5.1): not what says how a message is framed, routed or let in.
func (f fields) trailers() fields {
	return f.endToEnd("host", "trailer", "authorization", "cookie", "set-cookie", "content-type",
		"content-encoding", "content-range", "cache-control", "expect", "max-forwards", "range", "via")
}
