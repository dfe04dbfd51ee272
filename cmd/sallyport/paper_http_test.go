//go:build linux

package main_test

// HTTP by hand: what RFC 9110 and RFC 9112 say, and what smugglers make of it.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// page reads an answer with a body that its length or its chunks end.
func (c *paperConn) page(t *testing.T) (status int, body string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestPaperForwardCut sends a request in two pieces, cut at every byte.
func TestPaperForwardCut(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	o := paperListen(t, nil, "127.0.0.1:0")
	server := &http.Server{ReadHeaderTimeout: paperPatience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %v", r.Method, r.URL, b, err)
	})}
	go server.Serve(o.ln)
	t.Cleanup(func() { server.Close() })
	for name, c := range map[string]struct{ fields, body, want string }{
		"GET":             {"", "", "GET /a?b  <nil>"},
		"POST, a length":  {"Content-Length: 5\r\n", "words", "POST /a?b words <nil>"},
		"POST, in chunks": {"Transfer-Encoding: chunked\r\n", "3\r\nwor\r\n2;x=y\r\nds\r\n0\r\nX: y\r\n\r\n", "POST /a?b words <nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method, _, _ := strings.Cut(name, ",")
			request := fmt.Sprintf("%s http://%s/a?b HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", method, o.addr, o.addr, c.fields, c.body)
			for i := 1; i < len(request); i++ {
				client := s.dial(t, "")
				client.says(request[:i])
				client.says(request[i:])
				if status, page := client.page(t); status != http.StatusOK || page != c.want {
					t.Fatalf("cut at %d: %d, %q", i, status, page)
				}
				client.leaves()
			}
		})
	}
}

// paperSmuggled are requests that two readers could read in two ways, or that no
// proxy should take. TARGET stands for the target.
var paperSmuggled = map[string]string{
	"length and chunks":            "Content-Length: 6|Transfer-Encoding: chunked",
	"chunks and length":            "Transfer-Encoding: chunked|Content-Length: 6",
	"two lengths":                  "Content-Length: 6|Content-Length: 7",
	"the same length twice":        "Content-Length: 6|Content-Length: 6",
	"a list of lengths":            "Content-Length: 6, 6",
	"+ before a length":            "Content-Length: +6",
	"- before a length":            "Content-Length: -6",
	"a length in hex":              "Content-Length: 0x6",
	"a length with a point":        "Content-Length: 6.0",
	"a length with an underscore":  "Content-Length: 1_0",
	"a length in wide digits":      "Content-Length: \xef\xbc\x96",
	"no length":                    "Content-Length:",
	"a length beyond 63 bits":      "Content-Length: 18446744073709551622",
	"a length with a comment":      "Content-Length: 6 (six)",
	"chunks, otherwise":            "Transfer-Encoding: chunked-ish",
	"chunks behind gzip":           "Transfer-Encoding: gzip, chunked",
	"chunks not last":              "Transfer-Encoding: chunked, gzip",
	"chunks twice":                 "Transfer-Encoding: chunked, chunked",
	"chunks on two lines":          "Transfer-Encoding: chunked|Transfer-Encoding: identity",
	"identity":                     "Transfer-Encoding: identity",
	"chunks in quotes":             "Transfer-Encoding: \"chunked\"",
	"chunks behind a comma":        "Transfer-Encoding: , chunked|Content-Length: 6",
	"chunks with a parameter":      "Transfer-Encoding: chunked;x=y",
	"chunks behind a control":      "Transfer-Encoding: \x0bchunked",
	"chunks before a NUL":          "Transfer-Encoding: chunked\x00",
	"chunks with a Kelvin sign":    "Transfer-Encoding: chun\xe2\x84\xaaed",
	"chunks folded":                "Transfer-Encoding:| chunked",
	"chunks folded by a tab":       "Transfer-Encoding:|\tchunked",
	"space before a colon":         "Content-Length : 6",
	"tab before a colon":           "Transfer-Encoding\t: chunked",
	"space before a name":          "X: y| Content-Length: 6",
	"NUL in a name":                "Content-Length\x00: 6",
	"a name that is no token":      "Content[Length]: 6",
	"a name beyond ASCII":          "Content-L\xc3\xa9ngth: 6",
	"no name":                      ": 6",
	"no colon":                     "Content-Length 6",
	"CR in a value":                "X: y\rContent-Length: 6",
	"LF as a line's end":           "X: y\nContent-Length: 6",
	"CR as a line's end":           "X: y\r\rContent-Length: 6",
	"NUL in a value":               "X: y\x00",
	"BEL in a value":               "X: y\x07",
	"a second host":                "Host: other.example",
	"the same host twice":          "Host: TARGET",
	"a second host, folded":        "X: y|\tHost: other.example",
	"a length in a 1.0 request":    "1.0|Transfer-Encoding: chunked",
	"a second host, other letters": "hOST: other.example",
}

// paperSmuggledHeads are the same, whole: here the request line is odd, or Host.
var paperSmuggledHeads = map[string]string{
	"no host":                "GET http://TARGET/ HTTP/1.1\r\n\r\n",
	"a host with a user":     "GET http://TARGET/ HTTP/1.1\r\nHost: a@TARGET\r\n\r\n",
	"two hosts in one":       "GET http://TARGET/ HTTP/1.1\r\nHost: TARGET, other.example\r\n\r\n",
	"bare LFs":               "GET http://TARGET/ HTTP/1.1\nHost: TARGET\n\n",
	"LF at the head's end":   "GET http://TARGET/ HTTP/1.1\r\nHost: TARGET\r\n\n",
	"a tab for a space":      "GET\thttp://TARGET/ HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"two spaces":             "GET http://TARGET/  HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"a space in the target":  "GET http://TARGET/ HTTP/1.1 x HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"CR in the request line": "GET http://TARGET/\r HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"NUL in the target":      "GET http://TARGET/\x00 HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"a fragment":             "GET http://TARGET/#x HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"a user in the target":   "GET http://other.example@TARGET/ HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"a backslash":            "GET http://TARGET\\@other.example/ HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"the target's path only": "GET / HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"no version":             "GET http://TARGET/\r\nHost: TARGET\r\n\r\n",
	"version 1.01":           "GET http://TARGET/ HTTP/1.01\r\nHost: TARGET\r\n\r\n",
	"version 3":              "GET http://TARGET/ HTTP/3.0\r\nHost: TARGET\r\n\r\n",
	"CONNECT with a length":  "CONNECT TARGET HTTP/1.1\r\nHost: TARGET\r\nContent-Length: 6\r\n\r\n",
	"CONNECT with chunks":    "CONNECT TARGET HTTP/1.1\r\nHost: TARGET\r\nTransfer-Encoding: chunked\r\n\r\n",
	"CONNECT with a path":    "CONNECT TARGET/ HTTP/1.1\r\nHost: TARGET\r\n\r\n",
	"CONNECT to no port":     "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: TARGET\r\n\r\n",
}

// paperShapes returns all of them as requests to the target, with another one
// hidden behind each.
func paperShapes(to string) map[string]string {
	shapes := map[string]string{}
	for name, fields := range paperSmuggled {
		version := "1.1"
		if rest, ok := strings.CutPrefix(fields, "1.0|"); ok {
			version, fields = "1.0", rest
		}
		shapes[name] = "POST http://TARGET/ HTTP/" + version + "\r\nHost: TARGET\r\n" + strings.ReplaceAll(fields, "|", "\r\n") + "\r\n\r\n"
	}
	maps.Copy(shapes, paperSmuggledHeads)
	for name, head := range shapes {
		shapes[name] = strings.ReplaceAll(head+"0\r\n\r\nGET http://TARGET/smuggled HTTP/1.1\r\nHost: TARGET\r\n\r\n", "TARGET", to)
	}
	return shapes
}

// TestPaperSmuggling: 400, and not one byte of it goes to the target, nor of
// the request hidden in it, whether it comes first or behind a good request.
func TestPaperSmuggling(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	x := paperListen(t, nil, "127.0.0.1:0")
	for name, shape := range paperShapes(x.addr.String()) {
		t.Run(name, func(t *testing.T) {
			client := s.dial(t, "")
			client.says(shape)
			client.isTold400()
			client.leaves()
			s.ended(t, client, "bad-request")
		})
	}
	if x.untouched(t); t.Failed() {
		return
	}
	for name, shape := range paperShapes(x.addr.String()) {
		passed := t.Run("behind a good request: "+name, func(t *testing.T) {
			client := s.dial(t, "")
			client.says(fmt.Sprintf("GET http://%s/good HTTP/1.1\r\nHost: x\r\n\r\n%s", x.addr, shape))
			far := x.accept(t)
			if r, err := http.ReadRequest(bufio.NewReader(far)); err != nil || r.URL.Path != "/good" {
				t.Fatalf("the target got %v, %v", r, err)
			}
			far.says("HTTP/1.1 204 No Content\r\n\r\n")
			if line, err := bufio.NewReader(io.LimitReader(client, 12)).ReadString(0); line != "HTTP/1.1 204" || err != io.EOF {
				t.Fatalf("answered %q, %v", line, err)
			}
			for tail := ""; !strings.HasSuffix(tail, "\r\n\r\n"); {
				tail += string(client.reads(1))
			}
			client.isTold400()
			far.isClosed()
		})
		if !passed {
			return // the target's connections are not those that the others expect any more
		}
	}
	x.untouched(t)
}

// isTold400 checks that nothing follows but one answer, of 400, and the end.
func (c *paperConn) isTold400() {
	c.t.Helper()
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || strings.Count(string(answer), "HTTP/1.1 ") != 1 {
		c.t.Fatalf("answered %q, %v; want one 400", answer, err)
	}
}

// TestPaperBadChunks: what was sent well arrives, and behind it a reset and
// never an end, so that the target does not take a part for the whole.
func TestPaperBadChunks(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	for name, bad := range map[string]string{
		"LF for CR LF":              "3\nbad\r\n0\r\n\r\n",
		"a space behind the size":   "3 \r\nbad\r\n0\r\n\r\n",
		"0x":                        "0x3\r\nbad\r\n0\r\n\r\n",
		"a sign":                    "+3\r\nbad\r\n0\r\n\r\n",
		"no size":                   "\r\nbad\r\n0\r\n\r\n",
		"a size beyond 64 bits":     "10000000000000003\r\nbad\r\n0\r\n\r\n",
		"more than the size":        "3\r\nbadly\r\n0\r\n\r\n",
		"LF in an extension":        "3;x\ny\r\nbad\r\n0\r\n\r\n",
		"LF behind the last chunk":  "0\n\r\n",
		"LF behind the trailer":     "0\r\n\n",
		"a trailer that is no line": "0\r\nbad\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := paperListen(t, nil, "127.0.0.1:0")
			client := s.dial(t, "")
			client.says(fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n%s", x.addr, bad))
			far := x.accept(t)
			client.isTold400()
			got, err := io.ReadAll(far)
			if !errors.Is(err, syscall.ECONNRESET) || strings.Contains(string(got), "bad") && !strings.Contains(bad, "badly") {
				t.Errorf("the target got %q, %v; want a reset", got, err)
			}
		})
	}
}
