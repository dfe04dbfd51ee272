package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// getHead is what the head of a request to 192.0.2.1:80 begins with.
const getHead = "GET http://192.0.2.1/a?b HTTP/1.1\r\nHost: 192.0.2.1\r\n"

// badRequests are heads that two readers could read in two ways, or that are no
// requests to a proxy. Nothing of them may reach a target.
var badRequests = map[string]string{
	"CL with TE":               getHead + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
	"TE with CL":               getHead + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
	"two CLs":                  getHead + "Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
	"two equal CLs":            getHead + "Content-Length: 4\r\nContent-Length: 4\r\n\r\n",
	"CL list":                  getHead + "Content-Length: 4, 4\r\n\r\n",
	"CL with a plus":           getHead + "Content-Length: +4\r\n\r\n",
	"CL with a minus":          getHead + "Content-Length: -4\r\n\r\n",
	"CL with a space":          getHead + "Content-Length: 1 4\r\n\r\n",
	"CL in hex":                getHead + "Content-Length: 0x4\r\n\r\n",
	"CL empty":                 getHead + "Content-Length: \r\n\r\n",
	"CL too large":             getHead + "Content-Length: 9999999999999999999\r\n\r\n",
	"CL with a dot":            getHead + "Content-Length: 4.0\r\n\r\n",
	"TE identity":              getHead + "Transfer-Encoding: identity\r\n\r\n",
	"TE gzip, chunked":         getHead + "Transfer-Encoding: gzip, chunked\r\n\r\n",
	"TE chunked, identity":     getHead + "Transfer-Encoding: chunked, identity\r\n\r\n",
	"TE chunked twice":         getHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	"TE xchunked":              getHead + "Transfer-Encoding: xchunked\r\n\r\n",
	"TE with a Kelvin sign":    getHead + "Transfer-Encoding: chun\u212aed\r\n\r\n",
	"TE quoted":                getHead + "Transfer-Encoding: \"chunked\"\r\n\r\n",
	"TE with vertical tab":     getHead + "Transfer-Encoding: \vchunked\r\n\r\n",
	"TE empty":                 getHead + "Transfer-Encoding:\r\n\r\n",
	"TE folded":                getHead + "Transfer-Encoding:\r\n chunked\r\n\r\n",
	"TE in HTTP/1.0":           "POST http://192.0.2.1/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
	"space before the colon":   getHead + "Content-Length : 4\r\n\r\n",
	"tab before the colon":     getHead + "Content-Length\t: 4\r\n\r\n",
	"folded field":             getHead + "X: a\r\n b\r\n\r\n",
	"first field folded":       "GET http://192.0.2.1/ HTTP/1.1\r\n Host: 192.0.2.1\r\n\r\n",
	"empty field name":         getHead + ": x\r\n\r\n",
	"no colon":                 getHead + "Nonsense\r\n\r\n",
	"NUL in a value":           getHead + "X: a\x00b\r\n\r\n",
	"NUL in a name":            getHead + "X\x00: b\r\n\r\n",
	"escape in a value":        getHead + "X: \x1b[2J\r\n\r\n",
	"DEL in a value":           getHead + "X: a\x7fb\r\n\r\n",
	"bare CR in a value":       getHead + "X: a\rContent-Length: 4\r\n\r\n",
	"bare LF between fields":   getHead + "X: a\nContent-Length: 4\r\n\r\n",
	"bare LF at the end":       getHead + "X: a\r\n\n",
	"bare LFs":                 "GET http://192.0.2.1/ HTTP/1.1\nHost: 192.0.2.1\n\n",
	"name that is no token":    getHead + "X(y): z\r\n\r\n",
	"name beyond ASCII":        getHead + "X\xc3\xa4: z\r\n\r\n",
	"two Hosts":                getHead + "Host: 192.0.2.2\r\n\r\n",
	"two equal Hosts":          getHead + "Host: 192.0.2.1\r\n\r\n",
	"no Host":                  "GET http://192.0.2.1/ HTTP/1.1\r\n\r\n",
	"Host with userinfo":       "GET http://192.0.2.1/ HTTP/1.1\r\nHost: a@192.0.2.1\r\n\r\n",
	"Host list":                "GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1, 192.0.2.2\r\n\r\n",
	"Host with a path":         "GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1/x\r\n\r\n",
	"userinfo":                 "GET http://u:p@192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"port over 65535":          "GET http://192.0.2.1:65616/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"port 0":                   "GET http://192.0.2.1:0/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"port with a sign":         "GET http://192.0.2.1:+80/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"two ports":                "GET http://192.0.2.1:80:80/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"fragment":                 "GET http://192.0.2.1/a#b HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"https":                    "GET https://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"ftp":                      "GET ftp://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"no host":                  "GET http:///a HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"host with a percent":      "GET http://192.0.2.%31/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"host with a backslash":    "GET http://192.0.2.1\\@x/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"origin-form":              "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"asterisk-form":            "OPTIONS * HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"authority-form with GET":  "GET 192.0.2.1:80 HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"method that is no token":  "GE(T http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"two spaces":               "GET  http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"space behind the version": "GET http://192.0.2.1/ HTTP/1.1 \r\nHost: 192.0.2.1\r\n\r\n",
	"space in the target":      "GET http://192.0.2.1/ a HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"tab in the target":        "GET http://192.0.2.1/\ta HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"no version":               "GET http://192.0.2.1/\r\nHost: 192.0.2.1\r\n\r\n",
	"HTTP/2.0":                 "PRI * HTTP/2.0\r\n\r\n",
	"HTTP/1.2":                 "GET http://192.0.2.1/ HTTP/1.2\r\nHost: 192.0.2.1\r\n\r\n",
	"HTTP/0.9":                 "GET http://192.0.2.1/ HTTP/0.9\r\nHost: 192.0.2.1\r\n\r\n",
	"version in lower case":    "GET http://192.0.2.1/ http/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"CONNECT without a port":   "CONNECT 192.0.2.1 HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"CONNECT with port 0":      "CONNECT 192.0.2.1:0 HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"CONNECT over 65535":       "CONNECT 192.0.2.1:65536 HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"CONNECT with an address":  "CONNECT http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	"CONNECT with a body":      "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 4\r\n\r\n",
	"CONNECT with chunks":      "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: 192.0.2.1\r\nTransfer-Encoding: chunked\r\n\r\n",
}

func TestBadRequests(t *testing.T) {
	for name, head := range badRequests {
		if r, err := parseRequest([]byte(head)); err == nil {
			t.Errorf("%s: taken for %+v", name, r)
		}
	}
}

func TestParseRequest(t *testing.T) {
	for _, test := range []struct {
		head, target, authority, path string
	}{
		{getHead + "\r\n", "192.0.2.1:80", "192.0.2.1", "/a?b"},
		{"GET HTTP://Example.COM HTTP/1.1\r\nHost: other\r\n\r\n", "example.com:80", "Example.COM", "/"},
		{"GET http://example.com?q HTTP/1.1\r\nHost:\r\n\r\n", "example.com:80", "example.com", "/?q"},
		{"GET http://example.com: HTTP/1.0\r\n\r\n", "example.com:80", "example.com", "/"},
		{"OPTIONS http://example.com:8080 HTTP/1.1\r\nHost: example.com:8080\r\n\r\n", "example.com:8080", "example.com:8080", "*"},
		{"GET http://[::1]:81/x HTTP/1.1\r\nHost: [::1]:81\r\n\r\n", "[::1]:81", "[::1]:81", "/x"},
		{"GET http://[::ffff:127.0.0.1]/x://y@z HTTP/1.1\r\nHost: a\r\n\r\n", "127.0.0.1:80", "[::ffff:127.0.0.1]", "/x://y@z"},
		{"M-SEARCH http://2130706433/ HTTP/1.1\r\nHost: a\r\n\r\n", "127.0.0.1:80", "2130706433", "/"},
		{"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "example.com:443", "example.com:443", ""},
		{"CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n", "[2001:db8::1]:443", "[2001:db8::1]:443", ""},
	} {
		r, err := parseRequest([]byte(test.head))
		if err != nil {
			t.Errorf("%q: %v", test.head, err)
			continue
		}
		if r.target.String() != test.target || r.authority != test.authority || r.path != test.path {
			t.Errorf("%q: %v %q %q", test.head, r.target, r.authority, r.path)
		}
	}
}

func TestHeadBounds(t *testing.T) {
	pad := func(n int) string {
		return getHead + "X: " + strings.Repeat("x", n-len(getHead)-len("X: \r\n\r\n")) + "\r\n\r\n"
	}
	many := func(n int) string {
		return getHead + strings.Repeat("X: y\r\n", n-1) + "\r\n" // the Host is one
	}
	for name, test := range map[string]struct {
		head string
		want error
	}{
		"as large as may be":   {pad(maxHead), nil},
		"a byte more":          {pad(maxHead + 1), errHeadSize},
		"as many as may be":    {many(maxFields), nil},
		"one more field":       {many(maxFields + 1), errHeadSize},
		"a very long name":     {getHead + strings.Repeat("x", 60000) + ": y\r\n\r\n", nil},
		"a very long method":   {strings.Repeat("G", 60000) + " http://a/ HTTP/1.0\r\n\r\n", nil},
		"a target of 60000":    {"GET http://a/" + strings.Repeat("x", 60000) + " HTTP/1.0\r\n\r\n", nil},
		"many empty elements":  {getHead + "Connection:" + strings.Repeat(",", 60000) + "\r\n\r\n", nil},
		"many Vias in a field": {getHead + "Via: " + strings.Repeat("1.1 x,", 9000) + "\r\n\r\n", nil},
	} {
		if _, err := parseRequest([]byte(test.head)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// TestForwardedHead: what is for this hop stays here, the rest goes on as it
// was written.
func TestForwardedHead(t *testing.T) {
	r, err := parseRequest([]byte("POST http://Example.com:80/p HTTP/1.1\r\nhost: liar\r\nX-Odd-CASE: 1\r\n" +
		"Connection: keep-alive, X-Hop , close\r\nx-hop: gone\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n" +
		"Proxy-Authorization: Basic eDp5\r\nProxy-Authenticate: x\r\nTE: gzip, trailers\r\nUpgrade: foo\r\nHTTP2-Settings: x\r\n" +
		"Via: 1.0 before\r\nTrailer: Sum\r\nAuthorization: Basic mine\r\nTransfer-Encoding: CHUNKED\r\nExpect: 100-continue\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "POST /p HTTP/1.1\r\nHost: Example.com:80\r\nX-Odd-CASE: 1\r\nVia: 1.0 before\r\nTrailer: Sum\r\n" +
		"Authorization: Basic mine\r\nExpect: 100-continue\r\nVia: 1.1 me\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n"
	if got := string(r.appendForward(nil, "me")); got != want {
		t.Errorf("forwarded\n%s\nwant\n%s", got, want)
	}
	if !r.closes() || r.upgrade() != "" {
		t.Errorf("closes %v, upgrade %q", r.closes(), r.upgrade())
	}
}

func TestUpgrade(t *testing.T) {
	for fields, want := range map[string]string{
		"Connection: Upgrade\r\nUpgrade: websocket\r\n":                         "websocket",
		"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n":             "websocket",
		"Upgrade: websocket\r\n":                                                "",
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n":               "",
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, H2C\r\n":    "",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nX: y\r\n": "",
	} {
		r, err := parseRequest([]byte(getHead + fields + "\r\n"))
		if err != nil || r.upgrade() != want {
			t.Errorf("%q: %q, %v; want %q", fields, r.upgrade(), err, want)
		}
	}
}

func TestVia(t *testing.T) {
	for value, want := range map[string]bool{
		"1.1 me":              true,
		"1.0 fred, 1.1 ME":    true,
		"HTTP/1.1 me (hello)": true,
		"1.1 you":             false,
		"1.1 menot, 1.1 x me": false,
		"me":                  false,
	} {
		r := httpRequest{fields: fields{{"X", "y"}, {"via", value}}}
		if got := r.passedBy("me"); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestParseResponse(t *testing.T) {
	for head, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n":                                 "HTTP/1.1 200 OK\r\nVia: 1.1 me\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.0 200\nA : b\n c\nContent-Length: 3, 3\n\n":                            "HTTP/1.1 200 \r\nA: b c\r\nVia: 1.0 me\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 204 \r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n":     "HTTP/1.1 204 \r\nVia: 1.0 me\r\n\r\n",
		"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nConnection: A\r\na: 1\r\n\r\n": "HTTP/1.1 407 x\r\nVia: 1.1 me\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n":            "",
		"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n":                                "",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n":                           "",
		"HTTP/1.1 200 O\x00K\r\n\r\n":                                                  "",
		"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n":                                          "",
		"HTTP/1.1 200 OK\r\nA\r\n\r\n":                                                 "",
		"HTTP/1.1 20 OK\r\n\r\n":                                                       "",
		"HTTP/1.1 +20 OK\r\n\r\n":                                                      "",
		"HTTP/2 200 OK\r\n\r\n":                                                        "",
		"ICY 200 OK\r\n\r\n":                                                           "",
		"HTTP/1.1 200 OK\rX: y\r\n\r\n":                                                "",
	} {
		r, err := parseResponse([]byte(head))
		if err != nil {
			if want != "" {
				t.Errorf("%q: %v", head, err)
			}
			continue
		}
		if got := string(r.appendHead(nil, "me", ending{})); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
}

func TestChunks(t *testing.T) {
	for stream, want := range map[string]string{
		"0\r\n\r\n":                                               "",
		"3\r\nabc\r\n0\r\n\r\n":                                   "abc",
		"00A\r\n0123456789\r\n0\r\n\r\n":                          "0123456789",
		"a;x=y;z=\"q\"\r\n0123456789\r\n0\r\n\r\n":                "0123456789",
		"1\r\na\r\n2;\r\nbc\r\n0;x\r\nSum: 1\r\nOther: 2\r\n\r\n": "abc",
	} {
		got, rest, err := unchunk(&chunkedBody{}, stream+"GET", 1<<20)
		if err != nil || got != want || rest != "GET" {
			t.Errorf("%q: %q, %v, and %q is left", stream, got, err, rest)
		}
	}
	for name, stream := range map[string]string{
		"no size":                 "\r\nabc\r\n0\r\n\r\n",
		"bare LF behind the size": "3\nabc\r\n0\r\n\r\n",
		"bare CR behind the size": "3\rabc\r\n0\r\n\r\n",
		"bare LF behind the data": "3\r\nabc\n0\r\n\r\n",
		"data too long":           "3\r\nabcd\r\n0\r\n\r\n",
		"space before the size":   " 3\r\nabc\r\n0\r\n\r\n",
		"space behind the size":   "3 \r\nabc\r\n0\r\n\r\n",
		"a sign":                  "+3\r\nabc\r\n0\r\n\r\n",
		"0x":                      "0x3\r\nabc\r\n0\r\n\r\n",
		"underscore":              "1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
		"too large":               "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"only an extension":       ";x\r\nabc\r\n0\r\n\r\n",
		"control in an extension": "3;\x00\r\nabc\r\n0\r\n\r\n",
		"LF in an extension":      "3;x\nabc\r\n0\r\n\r\n",
		"endless extension":       "3;" + strings.Repeat("x", maxChunkLine) + "\r\nabc\r\n0\r\n\r\n",
		"endless zeros":           strings.Repeat("0", maxChunkDigits+1),
		"bare LF at the end":      "0\r\n\n",
		"bare LF in a trailer":    "0\r\nA: b\n\r\n",
		"folded trailer":          "0\r\nA: b\r\n c\r\n\r\n",
		"trailer without a name":  "0\r\n: b\r\n\r\n",
		"endless trailer":         "0\r\nA: " + strings.Repeat("x", maxTrailer),
		"endless trailers":        "0\r\n" + strings.Repeat("A: b\r\n", maxFields+1) + "\r\n",
	} {
		if got, rest, err := unchunk(&chunkedBody{}, stream, 1<<20); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: taken for %q, and %q is left, %v", name, got, rest, err)
		}
	}
}

// unchunk reads stream in pieces of a size, as it might arrive.
func unchunk(b body, stream string, piece int) (content, rest string, err error) {
	var buf []byte
	for !b.over() {
		part, took, err := b.next(buf)
		if err != nil {
			return content, "", err
		}
		content += string(part)
		buf = buf[took:]
		if took > 0 || b.over() {
			continue
		}
		if stream == "" {
			return content, "", b.end()
		}
		n := min(piece, len(stream))
		buf, stream = append(buf, stream[:n]...), stream[n:]
	}
	return content, string(buf) + stream, nil
}

// FuzzChunks: however a stream is cut, it says the same, and it takes no byte
// of what follows.
func FuzzChunks(f *testing.F) {
	f.Add("3\r\nabc\r\n0\r\n\r\nrest", 1)
	f.Add("a;x=y\r\n0123456789\r\n0\r\nSum: 1\r\n\r\n", 3)
	for _, stream := range []string{
		"0\r\n\n", "0\r\nX: y\n\r\n", "0\r\nX y\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\n", "g\r\n", "\r\n", ";x\r\n", "3;\x00\r\n",
		"1234567890abcdef\r\n", "1;" + strings.Repeat("x", maxChunkLine) + "\r\n", "5\r\nab",
	} {
		f.Add(stream, 2)
	}
	f.Fuzz(func(t *testing.T, stream string, piece int) {
		if len(stream) > 4<<10 {
			return // the bounds have their own test, and this one takes the square of the length
		}
		piece = max(1, min(piece, 4<<10))
		whole, rest, err := unchunk(&chunkedBody{}, stream, len(stream)+1)
		cut, cutRest, cutErr := unchunk(&chunkedBody{}, stream, piece)
		if (err == nil) != (cutErr == nil) || err == nil && (whole != cut || rest != cutRest) {
			t.Fatalf("whole: %q, %q, %v; in pieces of %d: %q, %q, %v", whole, rest, err, piece, cut, cutRest, cutErr)
		}
		if err == nil && !strings.HasSuffix(stream, rest) {
			t.Fatalf("%q is left of %q", rest, stream)
		}
	})
}

// FuzzWholeHead: in whatever pieces a head comes, it ends at the same place, or is
// refused.
func FuzzWholeHead(f *testing.F) {
	for _, stream := range []string{
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01", "CONNECT a:1 HTTP/1.1\n\nx", "CONNECT a:1 HTTP/1.1\r\nX: \x01\r\n\r\n",
		"GET /\x00", getHead + "\r\n" + getHead, "\r\n\r\n",
	} {
		f.Add([]byte(stream), uint16(9))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		seen := min(int(cut), len(stream))
		first, failed := wholeHead(stream[:seen], 0)
		whole, err := wholeHead(stream, 0)
		switch {
		case failed != nil:
			if _, bad := parseRequest(stream[:whole]); bad == nil {
				t.Fatalf("%q: refused at once (%v), and taken whole", stream, failed)
			}
			return
		case first == 0:
			first, failed = wholeHead(stream, seen)
		}
		if first != whole || (failed == nil) != (err == nil) {
			t.Fatalf("%q: %d, %v in two pieces (%d); %d, %v in one", stream, first, failed, seen, whole, err)
		}
	})
}

// FuzzParseRequest: what is taken for a request is forwarded as a head that
// every strict reader reads as the same request.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(getHead + "\r\n"))
	f.Add([]byte("CONNECT [::1]:443 HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST http://a:1?x HTTP/1.1\r\nHost: a\r\nConnection: x, te\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"))
	for _, head := range badRequests {
		f.Add([]byte(head))
	}
	for _, head := range []string{
		"OPTIONS http://a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
		"TRACE http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\nVia: 1.1 b, 1.0 me (x)\r\n\r\n",
		"GET http://a:/ HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
		"GET http://[::1]:8/ HTTP/1.1\r\nHost: \r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET http://[::1]x/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n",
		getHead + "\r\nrest\r\n\r\n",
		getHead + strings.Repeat("X: y\r\n", maxFields) + "\r\n",
		getHead + "X: " + strings.Repeat("y", maxHead) + "\r\n\r\n",
		getHead + "X: y",
		getHead + "\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		r, err := parseRequest(head)
		if err != nil {
			return
		}
		if end := headEnd(head, 0); end != len(head) {
			t.Fatalf("the head's end is at %d of %d", end, len(head))
		}
		if r.method == connectMethod {
			return
		}
		out := r.appendForward(nil, "me")
		if headEnd(out, 0) != len(out) || bytes.Contains(out, []byte("\r\r")) {
			t.Fatalf("forwarded as %q", out)
		}
		// Written for a proxy again, it must be the same request.
		again := strings.Replace(string(out), " "+r.path+" ", fmt.Sprintf(" http://%s%s ", r.authority, strings.TrimPrefix(r.path, "*")), 1)
		second, err := parseRequest([]byte(again))
		if err != nil && !errors.Is(err, errHeadSize) {
			t.Fatalf("%q is forwarded as %q: %v", head, out, err)
		}
		if err == nil && (second.target != r.target || second.length != r.length || second.chunked != r.chunked || second.path != r.path) {
			t.Fatalf("%q is forwarded as %q", head, out)
		}
	})
}

// FuzzParseResponse: what is passed on is a head that a strict reader reads.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 200\nA : b\n c\nTransfer-Encoding: chunked\n\n"))
	for _, head := range []string{
		"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n",
		"HTTP/1.1 204 None\r\nTrailer: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.1 200 O\x01K\r\n\r\n",
		"HTTP/1.1 099 Low\r\n\r\n",
		"HTTP/2 200\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxFields+1) + "\r\n",
		"\n\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if headEnd(head, 0) != len(head) {
			return // is never asked for
		}
		r, err := parseResponse(head)
		if err != nil {
			return
		}
		out := r.appendHead(nil, "me", ending{chunks: r.chunked})
		_, rest, err := cutLine(string(out))
		if err != nil || headEnd(out, 0) != len(out) {
			t.Fatalf("%q is passed on as %q: %v", head, out, err)
		}
		if _, err := parseFields(rest); err != nil && !errors.Is(err, errHeadSize) {
			t.Fatalf("%q is passed on as %q: %v", head, out, err)
		}
	})
}
