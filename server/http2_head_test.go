package server

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// section2 makes a field section of lines such as ":path: /" or "te: trailers".
func section2(lines ...string) (section []hpack.HeaderField) {
	for _, line := range lines {
		at := strings.Index(line[1:], ":") + 1
		section = append(section, hpack.HeaderField{Name: line[:at], Value: strings.TrimPrefix(line[at+1:], " ")})
	}
	return section
}

func TestParseHTTP2Head(t *testing.T) {
	get := []string{":method: GET", ":scheme: http", ":authority: h:81", ":path: /a?b"}
	for _, test := range []struct {
		name string
		ends bool
		in   []string
		want string
	}{
		{"GET", true, append(get, "x-odd: 1", "te: trailers"), "GET http://h:81/a?b HTTP/1.1\r\nhost: h:81\r\nx-odd: 1\r\nte: trailers\r\n\r\n"},
		{"a body of any length", false, get, "GET http://h:81/a?b HTTP/1.1\r\nhost: h:81\r\ntransfer-encoding: chunked\r\n\r\n"},
		{"a body of a length", false, append(get, "content-length: 3"), "GET http://h:81/a?b HTTP/1.1\r\nhost: h:81\r\ncontent-length: 3\r\n\r\n"},
		{"cookies in pieces", true, append(get, "cookie: a=1", "cookie: b=2"), "GET http://h:81/a?b HTTP/1.1\r\nhost: h:81\r\ncookie: a=1; b=2\r\n\r\n"},
		{"the same host twice", true, append(get, "host: H:81"), "GET http://h:81/a?b HTTP/1.1\r\nhost: h:81\r\n\r\n"},
		{"host alone", true, []string{":method: GET", ":scheme: http", ":path: /", "host: h"}, "GET http://h/ HTTP/1.1\r\nhost: h\r\n\r\n"},
		{"OPTIONS *", true, []string{":method: OPTIONS", ":scheme: http", ":authority: h", ":path: *"}, "OPTIONS http://h HTTP/1.1\r\nhost: h\r\n\r\n"},
		{"CONNECT", false, []string{":method: CONNECT", ":authority: h:443", "proxy-authorization: Basic eDp5"}, "CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\nproxy-authorization: Basic eDp5\r\n\r\n"},
	} {
		h, err := parseHTTP2Head(section2(test.in...), test.ends)
		if string(h.text) != test.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", test.name, h.text, err, test.want)
			continue
		}
		if _, err := parseRequest(h.text); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// badSections are what a smuggler would send, and what HTTP/2 forbids.
var badSections = map[string][]string{
	"nothing":                    {},
	"no method":                  {":scheme: http", ":authority: h", ":path: /"},
	"no authority":               {":method: GET", ":scheme: http", ":path: /"},
	"no path":                    {":method: GET", ":scheme: http", ":authority: h"},
	"a path without slash":       {":method: GET", ":scheme: http", ":authority: h", ":path: a"},
	"a path with a blank":        {":method: GET", ":scheme: http", ":authority: h", ":path: / HTTP/1.1"},
	"a path with CR LF":          {":method: GET", ":scheme: http", ":authority: h", ":path: /\r\nX: y"},
	"a path for an authority":    {":method: GET", ":scheme: http", ":authority: h/x", ":path: /"},
	"userinfo":                   {":method: GET", ":scheme: http", ":authority: a@h", ":path: /"},
	"an authority with LF":       {":method: GET", ":scheme: http", ":authority: h\nx", ":path: /"},
	"a method with a blank":      {":method: GET /", ":scheme: http", ":authority: h", ":path: /"},
	"two paths":                  {":method: GET", ":scheme: http", ":authority: h", ":path: /", ":path: /"},
	"an unknown pseudo-header":   {":method: GET", ":scheme: http", ":authority: h", ":path: /", ":x: /"},
	"a pseudo-header too late":   {":method: GET", ":scheme: http", ":authority: h", "x: y", ":path: /"},
	"two hosts":                  {":method: GET", ":scheme: http", ":authority: h", ":path: /", "host: h", "host: h"},
	"another host":               {":method: GET", ":scheme: http", ":authority: h", ":path: /", "host: i"},
	"capitals":                   {":method: GET", ":scheme: http", ":authority: h", ":path: /", "X: y"},
	"a name with a blank":        {":method: GET", ":scheme: http", ":authority: h", ":path: /", "x y: z"},
	"a name with a colon":        {":method: GET", ":scheme: http", ":authority: h", ":path: /", "x\r\ny: z"},
	"a value with LF":            {":method: GET", ":scheme: http", ":authority: h", ":path: /", "x: y\nz: a"},
	"a value with CR":            {":method: GET", ":scheme: http", ":authority: h", ":path: /", "x: y\rz"},
	"a value with NUL":           {":method: GET", ":scheme: http", ":authority: h", ":path: /", "x: y\x00"},
	"a value with blanks around": {":method: GET", ":scheme: http", ":authority: h", ":path: /", "x: y "},
	"connection":                 {":method: GET", ":scheme: http", ":authority: h", ":path: /", "connection: close"},
	"proxy-connection":           {":method: GET", ":scheme: http", ":authority: h", ":path: /", "proxy-connection: close"},
	"keep-alive":                 {":method: GET", ":scheme: http", ":authority: h", ":path: /", "keep-alive: 5"},
	"upgrade":                    {":method: GET", ":scheme: http", ":authority: h", ":path: /", "upgrade: websocket"},
	"transfer-encoding":          {":method: POST", ":scheme: http", ":authority: h", ":path: /", "transfer-encoding: chunked"},
	"te":                         {":method: GET", ":scheme: http", ":authority: h", ":path: /", "te: gzip"},
	"two lengths":                {":method: POST", ":scheme: http", ":authority: h", ":path: /", "content-length: 0", "content-length: 0"},
	"a length that is none":      {":method: POST", ":scheme: http", ":authority: h", ":path: /", "content-length: +1"},
	"a length without content":   {":method: POST", ":scheme: http", ":authority: h", ":path: /", "content-length: 1"},
	"CONNECT with a path":        {":method: CONNECT", ":authority: h:1", ":path: /"},
	"CONNECT with a scheme":      {":method: CONNECT", ":authority: h:1", ":scheme: http"},
	"CONNECT with a protocol":    {":method: CONNECT", ":authority: h:1", ":protocol: websocket"},
	"CONNECT with a host only":   {":method: CONNECT", "host: h:1"},
	"CONNECT with a length":      {":method: CONNECT", ":authority: h:1", "content-length: 1"},
}

func TestBadHTTP2Heads(t *testing.T) {
	for name, lines := range badSections {
		if h, err := parseHTTP2Head(section2(lines...), true); err == nil {
			t.Errorf("%s: became %q", name, h.text)
		}
	}
	many := []string{":method: GET", ":scheme: http", ":authority: h", ":path: /"}
	for range maxFields + 1 {
		many = append(many, "x: y")
	}
	if _, err := parseHTTP2Head(section2(many...), true); !errors.Is(err, errHeadSize) {
		t.Errorf("%d fields: %v", maxFields+1, err)
	}
	for _, bad := range []string{":path: /", "X: y", "x: y\n", "connection: z"} {
		if _, err := parseHTTP2Trailers(section2(bad)); err == nil {
			t.Errorf("taken for a trailer: %q", bad)
		}
	}
}

// FuzzHTTP2Head: whatever comes, it becomes a head that ends where it ends, with
// as many fields as came, or nothing at all.
func FuzzHTTP2Head(f *testing.F) {
	f.Add(":method\x01GET\x01:scheme\x01http\x01:authority\x01h:81\x01:path\x01/a?b\x01x\x01y", true)
	f.Add(":method\x01CONNECT\x01:authority\x01h:81\x01cookie\x01a\x01cookie\x01b", false)
	f.Add(":method\x01OPTIONS\x01:scheme\x01http\x01:path\x01*\x01host\x01h\x01content-length\x013", false)
	f.Fuzz(func(t *testing.T, text string, ends bool) {
		parts := strings.Split(text, "\x01")
		var section []hpack.HeaderField
		for i := 0; i+1 < len(parts); i += 2 {
			section = append(section, hpack.HeaderField{Name: parts[i], Value: parts[i+1]})
		}
		h, err := parseHTTP2Head(section, ends)
		if err != nil {
			return
		}
		if n := headEnd(h.text, 0); n != len(h.text) {
			t.Fatalf("%q ends at %d", h.text, n)
		}
		r, err := parseRequest(h.text)
		if err != nil {
			return // it is refused further on
		}
		if r.method != h.method || r.chunked != h.framed || r.length != max(0, h.length) || len(r.fields) > len(section)+2 {
			t.Fatalf("%q was read as %+v, of %+v", h.text, r, h)
		}
	})
}
