//go:build unix

package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// overHTTP2 starts a server, and returns a client connection to it that speaks
// HTTP/2: one of somebody else's make.
func overHTTP2(t *testing.T, s *Server) (*rig, *http.ClientConn) {
	t.Helper()
	ca := newAuthority(t)
	r := onLoopback(t, s, Listener{TLS: ca.server(t)})
	secure := dialTLS(t, r.address, ca.client())
	transport := &http.Transport{
		DisableCompression: true,
		Protocols:          new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return secure, nil
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true) // as far as it knows
	c, err := transport.NewClientConn(t.Context(), "http", r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return r, c
}

// roundTrip asks for a target's /, and reads the whole answer.
func roundTrip(t *testing.T, c *http.ClientConn, method, target string, body io.Reader, change func(*http.Request)) (answer, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+target+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(request)
	}
	response, err := c.RoundTrip(request)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s: after %d bytes: %v", method, len(text), err)
	}
	return answer{response}, string(text)
}

// TestForwardHTTP2: a request and its answer pass on through the code that
// HTTP/1.1 has, with their bodies, trailers and interim answers.
func TestForwardHTTP2(t *testing.T) {
	r, c := overHTTP2(t, &Server{Policy: deciding(anything)})
	web := webServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", strings.Join([]string{r.Proto, r.Method, r.Host, r.Header.Get("Via"), r.Header.Get("Te")}, "|"))
		w.Header().Set("Trailer", "X-Sum")
		got := sha256.New()
		n, _ := io.Copy(got, r.Body) // the sum tells
		fmt.Fprintf(w, "%d %x %s", n, got.Sum(nil), r.Trailer.Get("X-End"))
		w.Header().Set("X-Sum", "7")
	})
	at := web.Listener.Addr().String()

	response, _ := roundTrip(t, c, "GET", at, nil, nil)
	want := fmt.Sprintf("HTTP/1.1|GET|%s|2.0 %s|", at, &r.server.state.pseudonym)
	if got := response.Header.Get("X-Seen"); got != want || response.Proto != "HTTP/2.0" || !strings.HasPrefix(response.Header.Get("Via"), "1.1 sallyport-") {
		t.Errorf("the target saw %q, want %q; the client %v", got, want, response.Header)
	}
	if response.Trailer.Get("X-Sum") != "7" {
		t.Errorf("trailers: %v", response.Trailer)
	}
	if e := r.next(Closed); !e.HTTP2 || !e.TLS || e.Protocol != HTTP || e.Target.String() != at {
		t.Errorf("recorded %+v", e.Session)
	}

	bulk := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := fmt.Sprintf("%d %x", len(bulk), sha256.Sum256(bulk))
	if _, text := roundTrip(t, c, "POST", at, bytes.NewReader(bulk), nil); text != sum+" " {
		t.Errorf("a body of a length: %q", text)
	}
	var continued bool
	_, text := roundTrip(t, c, "PUT", at, io.NopCloser(bytes.NewReader(bulk)), func(r *http.Request) {
		r.Trailer = http.Header{"X-End": {"over"}}
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }}))
		r.Header.Set("Expect", "100-continue")
	})
	if text != sum+" over" || !continued {
		t.Errorf("a body of any length: %q, 100: %v", text, continued)
	}
	if response, text := roundTrip(t, c, "HEAD", at, nil, nil); text != "" || response.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %v %q", response, text)
	}
	for range 3 {
		r.next(Closed)
	}
}

// TestHTTP2Refusals: each has the page and the fields that it has in HTTP/1.1.
func TestHTTP2Refusals(t *testing.T) {
	policy := func(ctx context.Context, r *Request) (Grant, error) {
		if r.Target.Host() == "denied.example" {
			return Grant{Rule: "no way"}, Denied
		}
		return anything(ctx, r)
	}
	r, c := overHTTP2(t, &Server{Policy: deciding(policy), Authenticator: door{login: LoginOptional}})
	nowhere := proxytest.Nowhere(t)
	for _, test := range []struct {
		method, target, authorization string
		status                        int
		reason                        Reason
	}{
		{"GET", "denied.example", "Basic ZnJlZDpzZWNyZXQ=", 403, Denied},
		{"GET", "denied.example", "", 407, Denied},
		{"POST", nowhere.String(), "", 502, Refused},
		{"HEAD", nowhere.String(), "", 502, Refused},
		{"GET", "h:0", "", 400, BadRequest},
		{"GET", "h", "Basic x", 407, BadLogin},
	} {
		response, text := roundTrip(t, c, test.method, test.target, http.NoBody, func(r *http.Request) {
			if test.authorization != "" {
				r.Header.Set("Proxy-Authorization", test.authorization)
			}
		})
		if response.StatusCode != test.status || response.Header.Get("Sallyport-Reason") != string(test.reason) ||
			(test.reason == Denied) != (response.Header.Get("Sallyport-Rule") == `"no way"`) ||
			(test.status == 407) != (response.Header.Get("Proxy-Authenticate") != "") || (test.method == "HEAD") != (text == "") {
			t.Errorf("%+v: %v %q", test, response, text)
		}
		r.next(test.reason)
	}
}

// TestHTTP2Truncated: an answer that ends too early is a reset, however the
// target ended it, and the others of the connection go on.
func TestHTTP2Truncated(t *testing.T) {
	r, c := overHTTP2(t, &Server{Policy: deciding(anything)})
	for _, head := range []string{"Content-Length: 5\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
		target := proxytest.NewTarget(t, "127.0.0.1")
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+target.Addr().String()+"/", nil)
		answered := make(chan error, 1)
		go func() {
			response, err := c.RoundTrip(request)
			if err == nil {
				_, err = io.ReadAll(response.Body)
				response.Body.Close()
			}
			answered <- err
		}()
		far := nextFar(t, target)
		far.head()
		far.say("HTTP/1.1 200 OK\r\n%s", head)
		far.Close()
		var reset http2.StreamError
		if err := <-answered; !errors.As(err, &reset) || reset.Code != http2.ErrCodeInternal {
			t.Errorf("%q: %v", head, err)
		}
		r.next(TargetReset)
	}
}

// TestHTTP2KeepsTargets: a connection to a target serves one request after the
// other, of whichever stream.
func TestHTTP2KeepsTargets(t *testing.T) {
	r, c := overHTTP2(t, &Server{Policy: deciding(anything)})
	var from []string
	web := webServer(t, func(_ http.ResponseWriter, r *http.Request) { from = append(from, r.RemoteAddr) })
	for range 3 {
		roundTrip(t, c, "GET", web.Listener.Addr().String(), nil, nil)
		r.next(Closed)
	}
	if len(from) != 3 || from[0] != from[1] || from[1] != from[2] {
		t.Errorf("the target saw the connections %v", from)
	}
}

// TestHTTP2TunnelReset: what a target's reset becomes.
func TestHTTP2TunnelReset(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
	c, target := proxytest.OverHTTP2(dialTLS(t, r.address, ca.client())), proxytest.NewTarget(t, "127.0.0.1")
	t.Cleanup(func() { c.Close() })
	p := proxytest.HTTP2()
	proxytest.Say(t, c, p.Opening(target.Addr()))
	if granted, err := p.Answer(c); err != nil || !granted {
		t.Fatalf("%v %v", granted, err)
	}
	proxytest.Reset(target.Next(t))
	if _, err := proxytest.End(c); !errors.Is(err, proxytest.StreamReset(http2.ErrCodeConnect)) {
		t.Errorf("%v, want CONNECT_ERROR", err)
	}
	if e := r.next(TargetReset); e.Target.String() != target.Addr().String() || e.Address != netip.AddrPort(target.Addr()) {
		t.Errorf("recorded %+v", e.Session)
	}
}
