package config

import (
	"slices"
	"strings"
)

// AccessPiece is a part of a template for lines of the access log.
type AccessPiece struct {
	Text  string // as it is
	Field string // or one of [AccessFields], in whose place comes what it says of the session; empty: it is text
}

// AccessFields are the words that may stand between braces in a template.
func AccessFields() []string {
	return []string{
		"time", "unix", "id", "listener", "client", "client_ip", "through", "tls", "protocol", "http", "user", "proof", "command", "target",
		"host", "port", "socket", "address", "bound", "rule", "via", "proxy", "up", "down", "bytes", "dropped", "took", "milliseconds", "reason", "detail",
	}
}

// The formats of the access log that have a name.
const (
	AccessJSON  = "json"
	AccessSquid = "squid"
)

// maxTemplate is how long a template may be, in bytes.
const maxTemplate = 4096

// ParseAccessTemplate takes a template apart: fields between braces, and text. {{ and }}
// stand for braces. A fault is an error that says what is wrong.
func ParseAccessTemplate(text string) ([]AccessPiece, error) {
	pieces, m := parseTemplate(text)
	if m != nil {
		return nil, &Error{Problem: m.problem, Hint: m.hint}
	}
	return pieces, nil
}

func parseTemplate(text string) (pieces []AccessPiece, _ *mistake) {
	switch {
	case len(text) > maxTemplate:
		return nil, &mistake{"a template of more than 4096 bytes", "write a shorter one"}
	case strings.ContainsFunc(text, isControl):
		return nil, &mistake{"a template cannot hold line breaks or other control characters, but for tabs", "each session is one line, whose end is added"}
	}
	var plain strings.Builder
	fields := 0
	for text != "" {
		i := strings.IndexAny(text, "{}")
		if i < 0 {
			plain.WriteString(text)
			break
		}
		plain.WriteString(text[:i])
		text = text[i:]
		if strings.HasPrefix(text, "{{") || strings.HasPrefix(text, "}}") {
			plain.WriteByte(text[0])
			text = text[2:]
			continue
		}
		name, rest, ended := strings.Cut(text[1:], "}")
		if text[0] == '}' || !ended {
			return nil, &mistake{"a brace without the other", "write {{ and }} for braces that are meant"}
		}
		if !slices.Contains(AccessFields(), name) {
			return nil, noField(name)
		}
		if plain.Len() > 0 {
			pieces = append(pieces, AccessPiece{Text: plain.String()})
			plain.Reset()
		}
		pieces = append(pieces, AccessPiece{Field: name})
		fields++
		text = rest
	}
	if plain.Len() > 0 {
		pieces = append(pieces, AccessPiece{Text: plain.String()})
	}
	if fields == 0 {
		return nil, &mistake{"neither a format of the access log nor a template", "write json, squid, or fields in braces such as '{time} {client} {user} {target} {up} {down} {reason}'"}
	}
	return pieces, nil
}

// noField words that there is no such field.
func noField(name string) *mistake {
	hint := "fields are " + strings.Join(AccessFields(), ", ")
	if near := nearest(name, AccessFields()); near != "" {
		hint = "did you mean {" + near + "}?"
	}
	return &mistake{quote("{"+name+"}") + " is no field of the access log", hint}
}

func isControl(r rune) bool {
	return r < ' ' && r != '\t' || r == 0x7f || r == '\u2028' || r == '\u2029' || r == 0x85
}

// accessFormat returns n as the format of the access log.
func (d *decoder) accessFormat(n *node) string {
	text, ok := d.text(n)
	if !ok || text == AccessJSON || text == AccessSquid {
		return text
	}
	_, m := parseTemplate(text)
	d.take(n, m)
	return text
}

// Bounds of a file of the access log.
const (
	leastAccessSize = 64 << 10
	mostAccessSize  = 1 << 40
	mostAccessKeep  = 10_000
)

// accessSize returns n in bytes; 0 for a fault.
func (d *decoder) accessSize(n *node) int64 {
	value, m := d.amount(n, byteUnits(), "a size", "100 MiB")
	if m == nil && (value < leastAccessSize || value > mostAccessSize) {
		m = &mistake{quote(n.text) + " is out of bounds", "from 64 KiB to 1 TiB"}
	}
	if !d.take(n, m) {
		return 0
	}
	return int64(value)
}
