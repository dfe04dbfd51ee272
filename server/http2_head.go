package server

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// http2Head is the head of a request of HTTP/2, put into HTTP/1.1.
type http2Head struct {
	method string
	text   []byte // the head, its empty line included
	length int64  // of the body, as told; -1: not told
	framed bool   // the body behind the head is to be chunked
}

// notOfHTTP2 are the fields that HTTP/2 has no use for, and that would mean something
// behind it (RFC 9113, section 8.2.2).
var notOfHTTP2 = map[string]bool{
	"connection":        true,
	"proxy-connection":  true,
	"keep-alive":        true,
	"transfer-encoding": true,
	"upgrade":           true,
}

// parseHTTP2Head reads a request's field section. ends says that no body
// follows. What it returns is one head for every reader, of which parseRequest
// is the first: no value can end its line. The method is returned beside an
// error too, where there is one.
func parseHTTP2Head(section []hpack.HeaderField, ends bool) (h http2Head, err error) {
	pseudo, lines, err := splitSection(section)
	h = http2Head{method: pseudo[":method"], length: -1}
	if err != nil {
		return h, err
	}
	target, authority, err := requestTarget(pseudo, lines)
	if err != nil {
		return h, err
	}
	h.text = append(h.text, h.method+" "+target+" HTTP/1.1\r\n"...)
	h.text = appendField(h.text, "host", authority)
	for _, f := range lines {
		if f.name != "host" && f.name != "cookie" && f.name != "content-length" {
			h.text = appendField(h.text, f.name, f.value)
		}
	}
	if lines.count("cookie") > 0 { // RFC 9113, section 8.2.3: it may come in pieces
		var crumbs []string
		for value := range lines.all("cookie") {
			crumbs = append(crumbs, value)
		}
		h.text = appendField(h.text, "cookie", strings.Join(crumbs, "; "))
	}
	if err := h.frame(lines, ends); err != nil {
		return h, err
	}
	h.text = append(h.text, "\r\n"...)
	return h, nil
}

// frame says how the body ends.
func (h *http2Head) frame(lines fields, ends bool) (err error) {
	if n := lines.count("content-length"); n > 1 {
		return errors.New("more than one content-length")
	} else if n == 1 {
		if h.length, err = parseLength(lines.get("content-length")); err != nil {
			return err
		}
	}
	switch {
	case ends && h.length > 0:
		return errors.New("a content-length, and no content")
	case h.method == connectMethod && h.length > 0:
		return errors.New("CONNECT with a body")
	case h.length >= 0:
		h.text = appendField(h.text, "content-length", strconv.FormatInt(h.length, 10))
	case !ends && h.method != connectMethod:
		h.framed = true
		h.text = appendField(h.text, "transfer-encoding", "chunked")
	}
	return nil
}

// splitSection checks the form of a field section and parts the pseudo-header
// fields from the others (RFC 9113, sections 8.2 and 8.3).
func splitSection(section []hpack.HeaderField) (pseudo map[string]string, lines fields, err error) {
	pseudo = make(map[string]string)
	for _, f := range section {
		if !strings.HasPrefix(f.Name, ":") {
			lines = append(lines, field{f.Name, f.Value})
			continue
		}
		_, double := pseudo[f.Name]
		switch f.Name {
		case ":method", ":scheme", ":authority", ":path":
		default:
			return pseudo, nil, errors.New("a pseudo-header field that is not known here")
		}
		switch {
		case double:
			return pseudo, nil, errors.New("a pseudo-header field that is there twice")
		case len(lines) > 0:
			return pseudo, nil, errors.New("a pseudo-header field behind other fields")
		case strings.ContainsFunc(f.Value, notOfLine):
			return pseudo, nil, errors.New("a pseudo-header field with blanks or control characters")
		}
		pseudo[f.Name] = f.Value
	}
	if !isToken(pseudo[":method"]) {
		return pseudo, nil, errors.New("a method that is no token")
	}
	if len(lines) > maxFields {
		return pseudo, nil, errHeadSize
	}
	return pseudo, lines, lines.check2()
}

// notOfLine reports whether r would break up a request line.
func notOfLine(r rune) bool { return r <= ' ' || r == 0x7f }

// check2 reports what is wrong with fields that came by HTTP/2.
func (f fields) check2() error {
	for _, each := range f {
		switch {
		case !isToken(each.name) || strings.ToLower(each.name) != each.name:
			return errors.New("a field without a proper name")
		case !isFieldValue(each.value) || strings.Trim(each.value, " \t") != each.value:
			return errors.New("a field with control characters, or with blanks around its value")
		case notOfHTTP2[each.name] || each.name == "te" && each.value != "trailers":
			return fmt.Errorf("the field %s, which HTTP/2 does not have", each.name)
		}
	}
	return nil
}

// requestTarget returns the target of the request line, and the authority.
func requestTarget(pseudo map[string]string, lines fields) (target, authority string, err error) {
	authority, named := pseudo[":authority"]
	host := lines.get("host")
	switch {
	case lines.count("host") > 1:
		return "", "", errors.New("more than one host field")
	case named && host != "" && !strings.EqualFold(host, authority):
		return "", "", errors.New("a host field that contradicts :authority")
	case !named:
		authority = host
	}
	if authority == "" || strings.ContainsAny(authority, "/?#@\\") || strings.ContainsFunc(authority, notOfLine) {
		return "", "", errors.New("an :authority that is no host and port")
	}
	scheme, path := pseudo[":scheme"], pseudo[":path"]
	if pseudo[":method"] == connectMethod {
		if !named || scheme != "" || path != "" {
			return "", "", errors.New("CONNECT with other than an :authority")
		}
		return authority, authority, nil
	}
	switch {
	case path == "*" && pseudo[":method"] == "OPTIONS":
		path = ""
	case !strings.HasPrefix(path, "/"):
		return "", "", errors.New("a :path that does not begin with a slash")
	}
	return scheme + "://" + authority + path, authority, nil
}

// parseHTTP2Trailers reads the field section behind a body.
func parseHTTP2Trailers(section []hpack.HeaderField) (fields, error) {
	var lines fields
	for _, f := range section {
		lines = append(lines, field{f.Name, f.Value}) // a colon is in no proper name
	}
	if len(lines) > maxFields {
		return nil, errHeadSize
	}
	return lines, lines.check2()
}
