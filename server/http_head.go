package server

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

// httpRequest is a request's head: what is asked, of whom, and how the body
// behind it ends.
type httpRequest struct {
	method    string
	target    socks.Addr
	authority string // the target as the client wrote it, for the Host field
	path      string // path and query; empty for CONNECT
	minor     int    // of the version: 0 or 1
	http2     bool   // it came by HTTP/2, and was put into HTTP/1.1
	fields    fields
	length    int64 // of the body; 0 where it is chunked
	chunked   bool
}

const connectMethod = "CONNECT"

// headEnd returns how many bytes a head has, its empty line included, or 0
// while that has not come. The first seen bytes are known not to hold its end.
// It takes an empty line for the end however it is written: whether it is
// written well is for the parser.
func headEnd(b []byte, seen int) int {
	for at := max(0, seen-3); ; {
		next := bytes.IndexByte(b[at:], '\n')
		if next < 0 {
			return 0
		}
		at += next + 1
		if rest := b[at:]; len(rest) > 0 && rest[0] == '\n' {
			return at + 1
		} else if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return at + 2
		}
	}
}

// parseRequest reads the head of a request to a proxy: all of b. An error means
// that the request must not be answered by anything but a refusal, and that
// where it ends is not known.
func parseRequest(b []byte) (*httpRequest, error) { return parseHead(b, (*httpRequest).parseTarget) }

// parseHead reads a head whose target parseTarget takes for what it is.
func parseHead(b []byte, parseTarget func(r *httpRequest, target string) error) (*httpRequest, error) {
	if len(b) > maxHead {
		return nil, errHeadSize
	}
	line, rest, err := cutLine(string(b))
	if err != nil {
		return nil, err
	}
	method, target, minor, err := parseRequestLine(line)
	if err != nil {
		return nil, err
	}
	r := &httpRequest{method: method, minor: minor}
	if r.fields, err = parseFields(rest); err != nil {
		return nil, err
	}
	if err := parseTarget(r, target); err != nil {
		return nil, err
	}
	if err := r.checkHost(); err != nil {
		return nil, err
	}
	return r, r.frame()
}

func parseRequestLine(line string) (method, target string, minor int, err error) {
	method, rest, _ := strings.Cut(line, " ")
	target, version, found := strings.Cut(rest, " ")
	switch {
	case !isToken(method):
		return "", "", 0, errors.New("a method that is no token")
	case !found || target == "" || !isFieldValue(target) || strings.Contains(target, "\t"):
		return "", "", 0, errors.New("a request line that is not METHOD TARGET VERSION")
	}
	switch version {
	case "HTTP/1.1":
		return method, target, 1, nil
	case "HTTP/1.0":
		return method, target, 0, nil
	}
	return "", "", 0, errors.New("a version that is neither HTTP/1.0 nor HTTP/1.1")
}

// errOrigin is what a client hears that takes the proxy for a web server.
var errOrigin = errors.New("this is a proxy, and the request is one for a web server: it names no http:// address")

// errScheme is what it hears that asks for an https:// or ftp:// address without CONNECT.
var errScheme = errors.New("a target that is no http:// address")

// parseTarget reads the authority-form of CONNECT and the absolute-form of all
// other methods (RFC 9112, section 3.2).
func (r *httpRequest) parseTarget(target string) (err error) {
	if strings.Contains(target, "#") {
		return errors.New("a target with a fragment")
	}
	if r.method == connectMethod {
		r.authority = target
		r.target, err = parseAuthority(target, "")
		return err
	}
	scheme, rest, found := strings.Cut(target, "://")
	switch {
	case target[0] == '/' || target == "*":
		return errOrigin
	case !found || !isWord(scheme, "http"):
		return errScheme
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	r.authority, r.path = strings.TrimSuffix(rest[:end], ":"), rest[end:]
	if r.target, err = parseAuthority(rest[:end], "80"); err != nil {
		return err
	}
	switch {
	case r.path == "" && r.method == "OPTIONS":
		r.path = "*"
	case r.path == "" || r.path[0] == '?':
		r.path = "/" + r.path
	}
	return nil
}

// parseAuthority reads host:port. Where no port stands it is otherwise; where
// that is empty too, there must be one.
func parseAuthority(s, otherwise string) (socks.Addr, error) {
	host, port := s, ""
	if end := strings.IndexByte(s, ']'); strings.HasPrefix(s, "[") && end > 0 {
		host, port = s[:end+1], s[end+1:]
	} else if at := strings.IndexByte(s, ':'); at >= 0 {
		host, port = s[:at], s[at:]
	}
	digits, found := strings.CutPrefix(port, ":")
	if !found && port != "" {
		return socks.Addr{}, errors.New("something other than a port behind the host")
	}
	if digits == "" {
		digits = otherwise
	}
	number, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || number == 0 || len(digits) > 5 {
		return socks.Addr{}, errors.New("a port that is not a number from 1 to 65535")
	}
	addr, err := socks.NewAddr(host, uint16(number))
	if err != nil {
		return socks.Addr{}, errors.New("a host that is neither a name nor an address")
	}
	return addr, nil
}

// checkHost: there must be one Host field and a proper one, though the target's
// own authority takes its place (RFC 9112, section 3.2.2).
func (r *httpRequest) checkHost() error {
	switch n := r.fields.count("Host"); {
	case n > 1:
		return errors.New("more than one Host field")
	case n == 0 && r.minor > 0:
		return errors.New("no Host field")
	}
	if host := r.fields.get("Host"); host != "" {
		if _, err := parseAuthority(host, "80"); err != nil {
			return fmt.Errorf("in the Host field, %w", err)
		}
	}
	return nil
}

// frame finds out how the body ends (RFC 9112, section 6). Anything that two
// readers could take for two lengths is an error.
func (r *httpRequest) frame() error {
	encodings, lengths := r.fields.count("Transfer-Encoding"), r.fields.count("Content-Length")
	switch {
	case encodings > 0 && lengths > 0:
		return errors.New("both Content-Length and Transfer-Encoding")
	case encodings > 0 && r.minor == 0:
		return errors.New("Transfer-Encoding in HTTP/1.0")
	case encodings > 1 || encodings == 1 && !isWord(r.fields.get("Transfer-Encoding"), "chunked"):
		return errors.New("a Transfer-Encoding other than chunked")
	case lengths > 1:
		return errors.New("more than one Content-Length")
	}
	r.chunked = encodings == 1
	if lengths == 1 {
		var err error
		if r.length, err = parseLength(r.fields.get("Content-Length")); err != nil {
			return err
		}
	}
	if r.method == connectMethod && (r.chunked || r.length > 0) {
		return errors.New("CONNECT with a body")
	}
	return nil
}

// parseLength reads a Content-Length: digits and nothing else.
func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("a Content-Length that is no number")
	}
	return strconv.ParseInt(s, 10, 64)
}

func (r *httpRequest) hasBody() bool { return r.chunked || r.length > 0 }

// body returns the reader of what is behind the head.
func (r *httpRequest) body() body {
	if r.chunked {
		return &chunkedBody{}
	}
	return &sizedBody{left: r.length}
}

// closes reports whether the client wants no more of the connection. A proxy
// keeps none open with an HTTP/1.0 client (RFC 9112, section 9.3).
func (r *httpRequest) closes() bool {
	return r.minor == 0 || r.fields.lists("Connection", "close") || r.fields.lists("Proxy-Connection", "close")
}

// expects reports whether the client may wait for 100 before it sends the body.
func (r *httpRequest) expects() bool {
	return r.minor > 0 && r.hasBody() && r.fields.lists("Expect", "100-continue")
}

// upgrade returns the protocols that the client wants to go on with. HTTP/2 is
// not among them: requests would go by this proxy unseen.
func (r *httpRequest) upgrade() string {
	if r.minor == 0 || !r.fields.lists("Connection", "upgrade") || r.fields.lists("Upgrade", "h2c") {
		return ""
	}
	return r.fields.get("Upgrade")
}

// repeatable reports whether the request can be sent once more when it is not
// known whether it arrived.
func (r *httpRequest) repeatable() bool {
	switch r.method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return !r.hasBody()
	}
	return false
}

// hops returns how many more proxies may pass the request on: Max-Forwards,
// which counts for OPTIONS and TRACE alone (RFC 9110, section 7.6.2), and no more
// than 65,535 of it. -1 is any number.
func (r *httpRequest) hops() int {
	if r.method != "OPTIONS" && r.method != "TRACE" {
		return -1
	}
	n, err := strconv.ParseUint(r.fields.get("Max-Forwards"), 10, 16)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return -1
	}
	return int(n) // at its most where it is out of range
}

// appendForward writes the head as it goes to the target. via is what this
// server is called.
func (r *httpRequest) appendForward(b []byte, via string) []byte {
	b = append(b, r.method+" "+r.path+" HTTP/1.1\r\n"...)
	b = appendField(b, "Host", r.authority)
	drop := []string{"host"}
	if r.minor == 0 {
		drop = append(drop, "expect")
	}
	if !r.chunked {
		drop = append(drop, "trailer")
	}
	hops := r.hops()
	if hops > 0 {
		drop = append(drop, "max-forwards")
	}
	b = r.fields.endToEnd(drop...).append(b)
	if hops > 0 {
		b = appendField(b, "Max-Forwards", strconv.Itoa(hops-1))
	}
	b = appendField(b, "Via", r.version()+" "+via)
	switch {
	case r.chunked:
		b = appendField(b, "Transfer-Encoding", "chunked")
	case r.fields.count("Content-Length") > 0:
		b = appendField(b, "Content-Length", strconv.FormatInt(r.length, 10))
	}
	if up := r.upgrade(); up != "" {
		b = appendField(appendField(b, "Connection", "Upgrade"), "Upgrade", up)
	} else if r.minor > 0 && r.fields.lists("TE", "trailers") {
		b = appendField(appendField(b, "Connection", "TE"), "TE", "trailers")
	}
	return append(b, "\r\n"...)
}

// version is that of the protocol by which the request came.
func (r *httpRequest) version() string {
	if r.http2 {
		return "2.0"
	}
	return fmt.Sprintf("1.%d", r.minor)
}

// passedBy reports whether a Via says that the request was here before.
func (r *httpRequest) passedBy(via string) bool {
	for element := range r.fields.list("Via") {
		if parts := strings.Fields(element); len(parts) > 1 && strings.EqualFold(parts[1], via) {
			return true
		}
	}
	return false
}
