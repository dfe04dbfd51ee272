package server

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// httpResponse is the head of what a target answers.
type httpResponse struct {
	code    int
	reason  string
	minor   int // of the version: 0 or 1
	fields  fields
	length  int64 // told by Content-Length; -1: not told
	chunked bool
}

// parseResponse reads the head of a response: all of b. Of what old servers do
// it takes what cannot be read in two ways (a bare LF, a folded line, a space
// before the colon) and passes it on as it should have been.
func parseResponse(b []byte) (*httpResponse, error) {
	line, rest, err := cutLine(tidy(string(b)))
	if err != nil {
		return nil, err
	}
	r, err := parseStatusLine(line)
	if err != nil {
		return nil, err
	}
	if r.fields, err = parseFields(rest); err != nil {
		return nil, err
	}
	return r, r.frame()
}

// tidy writes a head as RFC 9112 wants it (sections 2.2, 5.1 and 5.2).
func tidy(head string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(head, "\n"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			b.WriteString(" " + strings.Trim(line, " \t"))
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		if name, value, found := strings.Cut(line, ":"); found {
			line = strings.TrimRight(name, " \t") + ":" + value
		}
		b.WriteString(line)
	}
	return b.String() + "\r\n"
}

func parseStatusLine(line string) (*httpResponse, error) {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	r := &httpResponse{reason: reason, minor: 1}
	switch version {
	case "HTTP/1.0":
		r.minor = 0
	case "HTTP/1.1":
	default:
		return nil, errors.New("a status line without a version of HTTP/1")
	}
	number, err := strconv.ParseUint(code, 10, 16)
	if err != nil || len(code) != 3 || number < 100 || !isFieldValue(reason) {
		return nil, errors.New("a status line without a proper code")
	}
	r.code = int(number)
	return r, nil
}

// frame finds out how the body ends, as far as the head tells. Lengths that
// contradict each other are an error; a length beside chunks does not count,
// but who sends both is not to be trusted with another request.
func (r *httpResponse) frame() error {
	r.length = -1
	for value := range r.fields.list("Content-Length") {
		n, err := parseLength(value)
		if err != nil {
			return err
		}
		if r.length >= 0 && r.length != n {
			return errors.New("two lengths")
		}
		r.length = n
	}
	encodings := r.fields.count("Transfer-Encoding")
	if encodings > 1 || encodings == 1 && !isWord(r.fields.get("Transfer-Encoding"), "chunked") {
		return errors.New("a Transfer-Encoding that nobody asked for")
	}
	if r.chunked = encodings == 1; r.chunked && r.length >= 0 {
		r.length, r.minor = -1, 0
	}
	return nil
}

func (r *httpResponse) interim() bool { return r.code < 200 }

// bodiless reports whether no body follows, whatever the head says.
func (r *httpResponse) bodiless(method string) bool {
	return r.interim() || r.code == 204 || r.code == 304 || method == "HEAD"
}

// body returns the reader of what is behind the head.
func (r *httpResponse) body(method string) body {
	switch {
	case r.bodiless(method):
		return &sizedBody{}
	case r.chunked:
		return &chunkedBody{}
	case r.length >= 0:
		return &sizedBody{left: r.length}
	}
	return &openBody{}
}

// reusable reports whether the target takes another request behind this one.
func (r *httpResponse) reusable(method string) bool {
	framed := r.bodiless(method) || r.chunked || r.length >= 0
	return framed && r.minor > 0 && !r.fields.lists("Connection", "close")
}

// appendHead writes the head as it goes to the client. via is what this server
// is called.
func (r *httpResponse) appendHead(b []byte, via string, ends ending) []byte {
	b = append(b, fmt.Sprintf("HTTP/1.1 %d %s\r\n", r.code, r.reason)...)
	drop := []string{}
	if !ends.chunks {
		drop = append(drop, "trailer")
	}
	b = r.fields.endToEnd(drop...).append(b)
	b = appendField(b, "Via", fmt.Sprintf("1.%d %s", r.minor, via))
	switch {
	case r.interim() || r.code == 204:
	case ends.chunks:
		b = appendField(b, "Transfer-Encoding", "chunked")
	case r.length >= 0:
		b = appendField(b, "Content-Length", strconv.FormatInt(r.length, 10))
	}
	if r.code == 101 {
		b = appendField(appendField(b, "Connection", "Upgrade"), "Upgrade", r.fields.get("Upgrade"))
	} else if ends.close {
		b = appendField(b, "Connection", "close")
	}
	return append(b, "\r\n"...)
}

// ending is how the client learns where a response ends.
type ending struct {
	chunks bool // it is chunked
	close  bool // the connection ends behind it
}
