package daemon

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport/sallyport/socks"
)

// fields is a line of names and values as it is written, as [log/slog] would write it: in
// JSON, or as name=value. Each session has one, so it makes no garbage where values are
// what they mostly are.
type fields struct {
	line  []byte
	begin int // where it begins, behind what is none of it
	json  bool
	stamp *stamp // nil: nobody has written a time before
}

// name begins a field.
func (f *fields) name(name string) {
	line, isFirst := f.line, len(f.line) == f.begin
	switch {
	case f.json && isFirst:
		line = append(append(append(line, '{', '"'), name...), '"', ':')
	case f.json:
		line = append(append(append(line, ',', '"'), name...), '"', ':')
	case isFirst:
		line = append(append(line, name...), '=')
	default:
		line = append(append(append(line, ' '), name...), '=')
	}
	f.line = line
}

// end ends the line.
func (f *fields) end() {
	if f.json {
		f.line = append(f.line, '}')
	}
	f.line = append(f.line, '\n')
}

// text adds a text.
func (f *fields) text(name, value string) {
	f.name(name)
	switch {
	case !f.json && isWord(value):
		f.line = append(f.line, value...)
	case !f.json:
		f.line = strconv.AppendQuote(f.line, value)
	case isPlain(value):
		f.line = append(append(append(f.line, '"'), value...), '"')
	default:
		f.line = appendJSON(f.line, value)
	}
}

// some adds a text, unless it is empty.
func (f *fields) some(name, value string) {
	if value != "" {
		f.text(name, value)
	}
}

// quote is before and behind a value that JSON has in quotes and that needs none else.
func (f *fields) quote() {
	if f.json {
		f.line = append(f.line, '"')
	}
}

// address adds an address with its port; that which is zero is an empty text.
func (f *fields) address(name string, a netip.AddrPort) {
	if !a.IsValid() || a.Addr().Zone() != "" { // which may be called anything
		f.text(name, address(a))
		return
	}
	f.name(name)
	f.quote()
	f.line = a.AppendTo(f.line)
	f.quote()
}

// target adds what somebody asked for.
func (f *fields) target(name string, a socks.Addr) {
	if a.IP.IsValid() {
		f.address(name, netip.AddrPortFrom(a.IP, a.Port))
		return
	}
	f.text(name, a.String())
}

// number adds a number.
func (f *fields) number(name string, n int64) {
	f.name(name)
	f.line = strconv.AppendInt(f.line, n, 10)
}

// id adds a number that is never negative.
func (f *fields) id(name string, n uint64) {
	f.name(name)
	f.line = strconv.AppendUint(f.line, n, 10)
}

// truth adds that something is so.
func (f *fields) truth(name string) {
	f.name(name)
	f.line = append(f.line, "true"...)
}

// seconds adds how long something took, to the millisecond.
func (f *fields) seconds(name string, took time.Duration) {
	f.name(name)
	f.quote()
	took = max(took, 0).Round(time.Millisecond)
	f.line = strconv.AppendInt(f.line, int64(took/time.Second), 10)
	f.line = append(appendFraction(f.line, int64(took%time.Second), 3), 's')
	f.quote()
}

// time adds a time: in JSON to the nanosecond, else to the millisecond.
func (f *fields) time(name string, t time.Time) {
	f.name(name)
	f.quote()
	if f.stamp == nil {
		f.stamp = &stamp{}
	}
	f.stamp.set(t)
	f.line = append(f.line, f.stamp.before...)
	switch nanos := int64(t.Nanosecond()); {
	case !f.json:
		f.line = appendFraction(f.line, nanos, 3)
	case nanos > 0:
		f.line = bytes.TrimRight(appendFraction(f.line, nanos, 9), "0")
	}
	f.line = append(f.line, f.stamp.behind...)
	f.quote()
}

// stamp is a second, as it is written before and behind its fraction: many lines have the
// same.
type stamp struct {
	second         int64
	before, behind []byte // of none in the beginning; they lie in text
	text           [len(time.RFC3339)]byte
}

func (s *stamp) set(t time.Time) {
	if s.second == t.Unix() && len(s.before) > 0 {
		return
	}
	s.second = t.Unix()
	s.before = t.AppendFormat(s.text[:0], "2006-01-02T15:04:05")
	s.behind = t.AppendFormat(s.before[len(s.before):], "Z07:00")
}

// appendFraction appends the first digits of so many nanoseconds as a fraction of a second.
func appendFraction(to []byte, nanos int64, digits int) []byte {
	to = append(to, ".000000000"[:1+digits]...)
	for range 9 - digits {
		nanos /= 10
	}
	for i := len(to) - 1; nanos > 0; i-- {
		to[i] = byte('0' + nanos%10)
		nanos /= 10
	}
	return to
}

// isPlain reports whether a text means itself between quotes in JSON.
func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// isWord reports whether a text needs no quotes to be one value.
func isWord(s string) bool {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c <= ' ' || c == '=' || c == '"' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return false
		}
		i += size
	}
	return s != ""
}

// appendJSON appends a text in JSON, in which < and > mean themselves.
func appendJSON(to []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return append(to, `""`...) // there is no such text
	}
	return append(to, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
