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
}

// name begins a field.
func (f *fields) name(name string) {
	switch {
	case !f.json && len(f.line) > f.begin:
		f.line = append(f.line, ' ')
	case f.json && len(f.line) == f.begin:
		f.line = append(f.line, '{')
	case f.json:
		f.line = append(f.line, ',')
	}
	if f.json {
		f.line = append(append(append(f.line, '"'), name...), '"', ':')
		return
	}
	f.line = append(append(f.line, name...), '=')
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
	f.line = append(strconv.AppendFloat(f.line, took.Seconds(), 'f', 3, 64), 's')
	f.quote()
}

// time adds a time: in JSON to the nanosecond, else to the millisecond.
func (f *fields) time(name string, t time.Time) {
	layout := "2006-01-02T15:04:05.000Z07:00"
	if f.json {
		layout = time.RFC3339Nano
	}
	f.name(name)
	f.quote()
	f.line = t.AppendFormat(f.line, layout)
	f.quote()
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
