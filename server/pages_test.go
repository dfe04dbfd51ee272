//go:build unix

package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// askedPages is a Server with one page, which says what it was asked.
func askedPages() *Server {
	return &Server{Policy: deciding(anything), Pages: func(r PageRequest) (Page, bool) {
		text := fmt.Sprintf("%s of %q at %s by %s, TLS %v, from %v to %v\n", r.Path, r.Host, r.Listener, "a client", r.TLS, r.Client.Addr(), r.Local.Addr())
		return Page{"text/x-page", []byte(text)}, r.Path == "/page"
	}}
}

// TestPages: a GET of the server itself is answered by its pages, and counted; what
// follows on the connection is what it always is.
func TestPages(t *testing.T) {
	r := onLoopback(t, askedPages(), Listener{Name: "lan"})
	const is, where = `/page of %q at lan by a client, TLS false, from 127.0.0.1 to 127.0.0.1` + "\n", "GET /page%s HTTP/1.%d\r\n%s\r\n"
	w := r.web()
	for host, field := range map[string]string{"gw:1080": "Host: gw:1080\r\n", "[::1]": "host: [::1]\r\n", "": "Host:\r\n"} {
		w.say(where, "?x=/y", 1, field)
		answer := w.hears(http.StatusOK, fmt.Sprintf(is, host))
		if answer.Header.Get("Content-Type") != "text/x-page" || answer.Header.Get("Cache-Control") != "no-cache" || answer.Close {
			t.Errorf("answered with %v", answer.Header)
		}
		if e := r.next(Closed); e.Down() < 100 || e.err.Error() != "closed: the page /page" || e.Protocol != HTTP || e.Rule != "" {
			t.Errorf("recorded %d bytes, %v, %q", e.Down(), e.err, e.Protocol)
		}
	}
	w.say("HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n")
	if answer := w.head("HEAD"); answer.ContentLength < 50 {
		t.Errorf("of HEAD the length is %d", answer.ContentLength)
	}
	r.next(Closed)
	w.say(where, "", 0, "")
	if answer := w.hears(http.StatusOK, fmt.Sprintf(is, "")); !answer.Close {
		t.Error("a connection of HTTP/1.0 stays")
	}
	r.next(Closed)

	w = r.web()
	w.say(where, "", 1, "Host: a\r\nContent-Length: 2\r\n")
	w.say("ab")
	if answer := w.hears(http.StatusOK, fmt.Sprintf(is, "a")); !answer.Close {
		t.Error("behind a body another request is read")
	}
	r.next(Closed)
}

// TestNoPages: what is no page is refused as ever.
func TestNoPages(t *testing.T) {
	r := onLoopback(t, askedPages(), Listener{})
	none := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	for _, head := range []string{
		"GET /other HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET //page HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /page#x HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /page HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
		"GET /page HTTP/1.1\r\n\r\n",
		"GET /page HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET https://a/page HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		w, at := r.web(), none.web()
		w.say("%s", head)
		at.say("%s", head)
		var got, want bytes.Buffer
		for _, one := range []struct {
			w  *web
			to *bytes.Buffer
		}{{w, &got}, {at, &want}} {
			answer := one.w.head("GET")
			_ = answer.Write(one.to)
		}
		if !strings.HasPrefix(got.String(), "HTTP/1.1 400") || got.String() != want.String() {
			t.Errorf("%q is answered %q; by a server without pages %q", head, &got, &want)
		}
		r.next(BadRequest)
		none.next(BadRequest)
	}
}

// TestPagesOverTLS: by HTTP/1.1 and HTTP/2, where a request for the server itself
// looks like one for a proxy.
func TestPagesOverTLS(t *testing.T) {
	ca := newAuthority(t)
	both := ca.server(t)
	both.NextProtos = []string{"h2", "http/1.1"}
	r := onLoopback(t, askedPages(), Listener{Name: "lan", TLS: both})
	for version, two := range map[int]bool{1: false, 2: true} {
		terms := ca.client()
		protocols := &http.Protocols{}
		protocols.SetHTTP1(!two)
		protocols.SetHTTP2(two)
		transport := &http.Transport{TLSClientConfig: terms, Protocols: protocols}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.address+"/page", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatalf("HTTP/%d: %v", version, err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.ProtoMajor != version || response.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), fmt.Sprintf("/page of %q at lan by a client, TLS true", r.address)) {
			t.Errorf("HTTP/%d: %s, %q, %v", version, response.Status, body, err)
		}
		if e := r.next(Closed); !e.TLS || e.HTTP2 != two {
			t.Errorf("recorded TLS %v, HTTP/2 %v", e.TLS, e.HTTP2)
		}
		transport.CloseIdleConnections()
	}
}

// FuzzParsePage: what is taken for a request to the server itself is one to no other,
// and its path is one.
func FuzzParsePage(f *testing.F) {
	for _, head := range []string{
		"GET /proxy.pac HTTP/1.1\r\nHost: gw:1080\r\n\r\n",
		"HEAD /wpad.dat?x HTTP/1.0\r\n\r\n",
		"GET https://gw/proxy.pac HTTP/1.1\r\nHost: gw\r\n\r\n",
		"GET https:///proxy.pac HTTP/1.1\r\nHost: gw\r\n\r\n",
		"GET http://gw/proxy.pac HTTP/1.1\r\nHost: gw\r\n\r\n",
		"GET /a#b HTTP/1.1\r\nHost: gw\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		r, err := parsePage(head)
		if err != nil {
			return
		}
		if _, err := parseRequest(head); err == nil {
			t.Fatalf("%q is a request to a proxy, too", head)
		}
		if !strings.HasPrefix(r.path, "/") || strings.ContainsAny(r.path, "?# \r\n\x00") || strings.ContainsAny(r.authority, " \r\n\x00/") {
			t.Fatalf("%q is for the path %q of %q", head, r.path, r.authority)
		}
	})
}
