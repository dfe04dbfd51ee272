//go:build unix

package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

func TestInboundHTTP(t *testing.T) {
	proxytest.Inbound(t, proxytest.HTTP(""), startPlain)
	t.Run("dribbling", func(t *testing.T) { proxytest.Inbound(t, proxytest.HTTP("X-Other: a\r\n"), startDribbling) })
}

// web is a client connection to the proxy that speaks HTTP.
type web struct {
	testing.TB
	*net.TCPConn
	in *bufio.Reader
}

func (r *rig) web() *web {
	r.Helper()
	c := proxytest.Dial(r, r.address)
	return &web{r, c, bufio.NewReader(c)}
}

func (w *web) say(format string, args ...any) {
	w.Helper()
	proxytest.Say(w, w.TCPConn, fmt.Appendf(nil, format, args...))
}

// answer is a response, whose body is closed when the test ends.
type answer struct{ *http.Response }

// head reads a response to a method, without its body.
func (w *web) head(method string) answer {
	w.Helper()
	response, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		w.Fatalf("no response: %v", err)
	}
	w.Cleanup(func() {
		w.Close() // first, as closing a body reads to its end
		response.Body.Close()
	})
	return answer{response}
}

// hears reads a response with its body.
func (w *web) hears(status int, body string) answer {
	w.Helper()
	response := w.head("GET")
	got, err := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != status || err != nil || body != "" && string(got) != body {
		w.Fatalf("%d %q, %v; want %d %q", response.StatusCode, got, err, status, body)
	}
	return response
}

// ends reads FIN.
func (w *web) ends() {
	w.Helper()
	if rest, err := io.ReadAll(w.in); err != nil || len(rest) > 0 {
		w.Fatalf("%q, %v; want FIN", rest, err)
	}
}

// farSide is the target's end of a forwarded request.
type farSide struct {
	testing.TB
	*net.TCPConn
	in *bufio.Reader
}

func nextFar(tb testing.TB, target *proxytest.Target) *farSide {
	tb.Helper()
	c := target.Next(tb)
	return &farSide{tb, c, bufio.NewReader(c)}
}

func (f *farSide) say(format string, args ...any) {
	f.Helper()
	proxytest.Say(f, f.TCPConn, fmt.Appendf(nil, format, args...))
}

// head reads a request's head as it came.
func (f *farSide) head() string {
	f.Helper()
	var all strings.Builder
	for {
		line, err := f.in.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			f.Fatalf("after %q: %v", all.String(), err)
		}
		if line == "\r\n" {
			return all.String()
		}
	}
}

func (f *farSide) hears(want string) {
	f.Helper()
	proxytest.Hear(f, f.in, want)
}

// throughHTTP is a net/http client of the proxy.
func throughHTTP(tb testing.TB, address string) *http.Client {
	tb.Helper()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: address}), DisableCompression: true}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func webServer(tb testing.TB, handler http.HandlerFunc) *httptest.Server {
	tb.Helper()
	s := httptest.NewServer(handler)
	tb.Cleanup(s.Close)
	return s
}

func TestForwardHead(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Name: "lan"})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("GET http://%s/a?b=c HTTP/1.1\r\nHost: liar\r\nX-Odd: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n\r\n", target.Addr())
	far := nextFar(t, target)
	want := fmt.Sprintf("GET /a?b=c HTTP/1.1\r\nHost: %s\r\nX-Odd: 1\r\nVia: 1.1 %s\r\n\r\n", target.Addr(), &r.server.state.pseudonym)
	if got := far.head(); got != want {
		t.Errorf("forwarded %q, want %q", got, want)
	}
	answer := "HTTP/1.1 200 Fine\r\nServer: x\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
	far.say("%s", answer)
	response := c.hears(200, "ok")
	if response.Header.Get("Keep-Alive") != "" || response.Header.Get("Server") != "x" || response.Close {
		t.Errorf("passed on %v, close %v", response.Header, response.Close)
	}
	e := r.next(Closed)
	if e.Protocol != HTTP || e.Address != target.Addr() || e.Target.String() != target.Addr().String() || e.Up() != int64(len(want)) || e.Down() == 0 {
		t.Errorf("recorded %+v, %d up, %d down", e.Session, e.Up(), e.Down())
	}
}

// TestNothingOfABadRequestIsForwarded: with what a smuggler would put behind it.
func TestNothingOfABadRequestIsForwarded(t *testing.T) {
	target := proxytest.NewTarget(t, "127.0.0.1")
	granted := func(ctx context.Context, r *Request) (Grant, error) {
		return Grant{}, errors.New("the policy was asked")
	}
	r := onLoopback(t, &Server{Policy: deciding(granted)}, Listener{})
	for name, head := range badRequests {
		c := r.web()
		c.say("%s4\r\nGET \r\n0\r\n\r\nGET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", head, target.Addr())
		response := c.head("GET")
		page, err := io.ReadAll(response.Body)
		if response.StatusCode != http.StatusBadRequest || err != nil || !response.Close || !strings.Contains(string(page), "<p>") ||
			response.Header.Get("Sallyport-Reason") != "bad-request" {
			t.Errorf("%s: %v, %v, %q", name, response, err, page)
		}
		c.ends()
		r.next(BadRequest)
	}
	target.Untouched(t)
}

// TestBadChunksAreNotForwarded: the target sees what was sent well and then a
// reset, never an end.
func TestBadChunksAreNotForwarded(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	for _, bad := range []string{"3\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n", "0\r\n\n", "0x3\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n"} {
		c := r.web()
		c.say("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n%s", target.Addr(), bad)
		c.hears(400, "")
		c.ends()
		if got, err := proxytest.End(nextFar(t, target)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: the target got %q, then %v; want a reset", bad, got, err)
		}
		r.next(BadRequest)
	}
}

func TestHeadTooLarge(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	for _, head := range []string{
		getHead + "X: " + strings.Repeat("x", 2*maxHead),
		getHead + strings.Repeat("X: y\r\n", maxFields) + "\r\n",
		"GET http://" + strings.Repeat("x", 2*maxHead),
	} {
		c := r.web()
		c.say("%s", head)
		c.hears(431, "")
		c.ends()
		r.next(BadRequest)
	}
}

// TestMisled: who asks for what a proxy has not is told what it has, and the log
// knows the protocol.
func TestMisled(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	for target, want := range map[string]string{
		"/":              "is a proxy and no web server",
		"ftp://x.test/":  "takes requests for http:// addresses, and CONNECT for all else",
		"https://x.test": "takes requests for http:// addresses, and CONNECT for all else",
		"http://a b/":    "in one way only",
	} {
		c := r.web()
		c.say("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		if page, err := io.ReadAll(c.head("GET").Body); err != nil || !strings.Contains(string(page), want) {
			t.Errorf("%s: %s, %v", target, page, err)
		}
		if e := r.next(BadRequest); e.Protocol != HTTP {
			t.Errorf("%s: recorded %+v", target, e.Session)
		}
	}
}

// TestSlowHead: the limit is for the whole head and counts from accept; for the
// next request it counts from its first byte; between them is the idle limit,
// and then nothing is said.
func TestSlowHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
		start, c := time.Now(), r.client()
		stop := trickle(c, getHead+strings.Repeat("x", 1000), time.Second)
		r.next(HandshakeSlow)
		stop()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("ended after %v, want 10 s", took)
		}
		if answer, _ := proxytest.End(c); !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
			t.Errorf("%q, want 408", answer)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: refusing(Denied)}, Listener{})
		c := r.asks([]byte(getHead + "\r\n"))
		r.next(Denied)
		start := time.Now()
		in := bufio.NewReader(c)
		page, err := http.ReadResponse(in, nil)
		if err != nil || page.Close {
			t.Fatalf("%v, %v; want a page on a connection that stays open", page, err)
		}
		_, _ = io.Copy(io.Discard, page.Body) // ends with its length
		page.Body.Close()
		proxytest.Ends(t, in)
		if took := time.Since(start); took != httpIdle {
			t.Errorf("closed after %v, want %v", took, httpIdle)
		}
	})
}

// TestRefusedConnectionsMakeRoom: a client to which nothing was ever granted holds
// its open connection as one that has not said its request yet, and no longer
// than those may when there are many.
func TestRefusedConnectionsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := func(ctx context.Context, r *Request) (Grant, error) {
			if r.Target.Name != "" {
				return Grant{}, Denied
			}
			return anything(ctx, r)
		}
		r := inMemory(t, &Server{Policy: deciding(policy), Limits: Limits{Handshakes: 2, HandshakesPerSource: 2}}, Listener{})
		target := r.network.MustListen(targetAt.String())
		ask := func(host string) *proxytest.Conn {
			return r.asks(fmt.Appendf(nil, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", host))
		}
		good := ask(targetAt.String())
		far := r.next4(target)
		proxytest.Say(t, far, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		r.next(Closed)
		var bad []*proxytest.Conn
		for range 3 {
			bad = append(bad, ask("denied.example"))
			r.next(Denied)
			synctest.Wait()
		}
		if page, err := io.ReadAll(bad[0]); err != nil || !bytes.HasPrefix(page, []byte("HTTP/1.1 403 ")) {
			t.Errorf("%q, %v; want a page and then FIN", page, err)
		}
		for _, c := range append(bad[1:], good) {
			proxytest.Say(t, c, []byte("GET http://denied.example/ HTTP/1.1\r\nHost: x\r\n\r\n"))
			r.next(Denied)
			c.Close()
		}
	})
}

// TestEmptyLineBeforeRequest: one is passed over, as RFC 9112, section 2.2, has
// it, and alone is no request.
func TestEmptyLineBeforeRequest(t *testing.T) {
	const request = "HEAD http://denied.example/ HTTP/1.1\r\nHost: x\r\n\r\n"
	for before, want := range map[string]Reason{"\r\n": Denied, "\r\n\r\n": BadRequest, "\n": BadRequest, "\r": BadRequest} {
		for at := range len(before) + 2 {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: refusing(Denied)}, Listener{})
				c := r.asks([]byte(request))
				r.next(Denied)
				for _, part := range []string{(before + request)[:at], (before + request)[at:]} {
					proxytest.Say(t, c, []byte(part))
					synctest.Wait()
				}
				r.next(want)
				c.Close()
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: refusing(Denied)}, Listener{})
		c := r.asks([]byte(request + "\r\n"))
		r.next(Denied)
		time.Sleep(httpIdle - time.Second)
		if n := len(r.ends); n > 0 {
			t.Errorf("%d sessions out of an empty line", n)
		}
		proxytest.Say(t, c, []byte(request))
		r.next(Denied)
		c.Close()
	})
}

// TestKeepAlive: one client connection, two targets in turn, pipelined at that;
// the connection to a target is used again, but not without a decision.
func TestKeepAlive(t *testing.T) {
	decisions := 0
	policy := func(ctx context.Context, r *Request) (Grant, error) {
		decisions++
		return anything(ctx, r)
	}
	r := onLoopback(t, &Server{Policy: deciding(policy)}, Listener{})
	one, two := proxytest.NewTarget(t, "127.0.0.1"), proxytest.NewTarget(t, "127.0.0.2")
	c := r.web()
	ask := func(target *proxytest.Target, path string) {
		c.say("GET http://%s/%s HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr(), path)
	}
	ask(one, "1")
	ask(one, "2")
	ask(two, "3")
	far := nextFar(t, one)
	for _, path := range []string{"1", "2"} {
		if head := far.head(); !strings.HasPrefix(head, "GET /"+path+" ") {
			t.Fatalf("%q", head)
		}
		far.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%s", path)
		c.hears(200, path)
	}
	other := nextFar(t, two)
	other.head()
	proxytest.Ends(t, far.in) // one connection is kept, and this is not it any more
	other.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n3\r\n0\r\n\r\n")
	c.hears(200, "3")
	if decisions != 3 {
		t.Errorf("%d decisions", decisions)
	}
	c.Close()
	proxytest.Ends(t, other.in)
	for range 3 {
		r.next(Closed)
	}
}

// TestDeadKeptConnection: a target that ends its kept connection, or says
// something unasked on it, is connected to anew, and no answer gets mixed up.
func TestDeadKeptConnection(t *testing.T) {
	for name, end := range map[string]func(*farSide){
		"FIN":     func(f *farSide) { f.Close() },
		"RST":     func(f *farSide) { proxytest.Reset(f.TCPConn) },
		"unasked": func(f *farSide) { f.say("HTTP/1.1 408 Too slow\r\nContent-Length: 0\r\n\r\n") },
		"at the next request": func(f *farSide) {
			go func() {
				f.head()
				f.Close()
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
			target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
			c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr())
			far := nextFar(t, target)
			far.head()
			far.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
			c.hears(200, "first")
			end(far)
			c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr())
			far = nextFar(t, target)
			far.head()
			far.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
			c.hears(200, "second")
		})
	}
}

// TestStreaming: what a target sends arrives as it is sent, with and without
// chunks, and so does what the client sends.
func TestStreaming(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	for _, framing := range []string{"Transfer-Encoding: chunked\r\n", "", "Content-Length: 1000\r\n"} {
		c := r.web()
		c.say("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", target.Addr())
		far := nextFar(t, target)
		far.head()
		far.say("HTTP/1.1 200 OK\r\n%s\r\n", framing)
		response := c.head("POST")
		for i := range 5 {
			c.say("4;x=y\r\nup %d\r\n", i)
			far.hears(fmt.Sprintf("4\r\nup %d\r\n", i))
			if response.TransferEncoding != nil {
				far.say("4\r\ndn %d\r\n", i)
			} else {
				far.say("dn %d", i)
			}
			proxytest.Hear(t, response.Body, fmt.Sprintf("dn %d", i))
		}
		c.Close()
		far.Close()
		response.Body.Close() // reads on: not while they are open
	}
}

func TestTrailers(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"2\r\nup\r\n0\r\nSum: 1\r\nContent-Length: 7\r\n\r\n", target.Addr())
	far := nextFar(t, target)
	if head := far.head(); !strings.Contains(head, "Trailer: Sum\r\n") || !strings.Contains(head, "Connection: TE\r\nTE: trailers\r\n") {
		t.Errorf("%q", head)
	}
	far.hears("2\r\nup\r\n0\r\nSum: 1\r\n\r\n")
	far.say("HTTP/1.1 200 OK\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\nSum: 2\r\nHost: evil\r\n\r\n")
	response := c.hears(200, "down")
	if len(response.Trailer) != 1 || response.Trailer.Get("Sum") != "2" {
		t.Errorf("trailers %v", response.Trailer)
	}
}

func TestExpectContinue(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	ask := func() (*web, *farSide) {
		c := r.web()
		c.say("PUT http://%s/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", target.Addr())
		far := nextFar(t, target)
		if head := far.head(); !strings.Contains(head, "Expect: 100-continue\r\n") {
			t.Errorf("%q", head)
		}
		return c, far
	}
	t.Run("continued", func(t *testing.T) {
		c, far := ask()
		far.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
		if first, second := c.head("PUT"), c.head("PUT"); first.StatusCode != http.StatusContinue || second.StatusCode != http.StatusEarlyHints || second.Header.Get("Link") == "" {
			t.Errorf("%v, %v", first, second)
		}
		c.say("body")
		far.hears("body")
		far.say("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		if c.hears(201, "").Close {
			t.Error("the connection closes")
		}
	})
	t.Run("sent at once", func(t *testing.T) {
		c, far := ask()
		c.say("body")
		far.hears("body")
		far.say("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		c.hears(201, "")
	})
	t.Run("refused", func(t *testing.T) {
		c, far := ask()
		far.say("HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
		if !c.hears(417, "no").Close {
			t.Error("what comes next could be the body or a request, and the connection stays open")
		}
		c.ends()
	})
}

func TestUpgradedConnection(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly", target.Addr())
	far := nextFar(t, target)
	if head := far.head(); !strings.Contains(head, "Connection: Upgrade\r\nUpgrade: websocket\r\n") || !strings.Contains(head, "Sec-WebSocket-Key: k\r\n") {
		t.Errorf("%q", head)
	}
	far.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	far.hears("early")
	if response := c.head("GET"); response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != "websocket" {
		t.Errorf("%v", response)
	}
	proxytest.Hear(t, c.in, "hello")
	c.say("\x81\x00ping")
	far.hears("\x81\x00ping")
	far.say("pong")
	proxytest.Hear(t, c.in, "pong")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	proxytest.Ends(t, far.in)
	proxytest.Reset(far.TCPConn)
	if _, err := proxytest.End(c.in); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	r.next(TargetReset)
}

func TestUnaskedUpgrade(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", target.Addr())
	far := nextFar(t, target)
	far.head()
	far.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
	c.hears(502, "")
	r.next(BadReply)
}

func TestOldClients(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("GET http://%s/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", target.Addr())
	far := nextFar(t, target)
	if head := far.head(); !strings.Contains(head, "Via: 1.0 ") || !strings.Contains(head, "Host: "+target.Addr().String()) {
		t.Errorf("%q", head)
	}
	far.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nSum: 1\r\n\r\n")
	response := c.head("GET")
	body, err := io.ReadAll(response.Body)
	if len(response.TransferEncoding) > 0 || string(body) != "abc" || err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("%v, %q, %v", response, body, err)
	}
	c.ends()
}

// TestBodilessAnswers: what follows HEAD, 204 and 304 is the next answer,
// whatever lengths they tell of.
func TestBodilessAnswers(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	var far *farSide
	for _, test := range []struct{ method, answer string }{
		{"HEAD", "200 OK\r\nContent-Length: 10\r\n"},
		{"HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n"},
		{"HEAD", "200 OK\r\n"},
		{"GET", "204 None\r\n"},
		{"GET", "304 Same\r\nContent-Length: 10\r\n"},
		{"GET", "304 Same\r\nTransfer-Encoding: chunked\r\n"},
	} {
		c.say("%s http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", test.method, target.Addr())
		if far == nil {
			far = nextFar(t, target)
		}
		far.head()
		far.say("HTTP/1.1 %s\r\n", test.answer)
		response := c.head(test.method)
		if rest, err := io.ReadAll(response.Body); len(rest) > 0 || err != nil || response.Close {
			t.Errorf("%s %q: %q, %v, close %v", test.method, test.answer, rest, err, response.Close)
		}
	}
}

// TestTruncatedAnswers arrive as what they are.
func TestTruncatedAnswers(t *testing.T) {
	for _, test := range []struct {
		name, version, answer string
		reset, wantReset      bool
	}{
		{"length, FIN", "1.1", "Content-Length: 10\r\n\r\nabc", false, false},
		{"length, RST", "1.1", "Content-Length: 10\r\n\r\nabc", true, true},
		{"chunks, FIN", "1.1", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false, false},
		{"chunks, RST", "1.1", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true, true},
		{"open end, RST", "1.1", "\r\nabc", true, true},
		{"chunks to an old client, FIN", "1.0", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false, true},
		{"bad chunks", "1.1", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
			target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
			c.say("GET http://%s/ HTTP/%s\r\nHost: x\r\n\r\n", target.Addr(), test.version)
			far := nextFar(t, target)
			far.head()
			far.say("HTTP/1.1 200 OK\r\n%s", test.answer)
			response := c.head("GET")
			var err error
			if test.wantReset && !test.reset {
				far.Close()
			} else {
				proxytest.Hear(t, response.Body, "abc")
				if test.reset {
					proxytest.Reset(far.TCPConn)
				} else {
					far.Close()
				}
			}
			_, err = io.ReadAll(response.Body)
			if test.wantReset != errors.Is(err, syscall.ECONNRESET) || err == nil {
				t.Errorf("%v; want a reset: %v", err, test.wantReset)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*farSide)
		want Reason
	}{
		"RST":         {func(f *farSide) { proxytest.Reset(f.TCPConn) }, TargetReset},
		"FIN":         {func(f *farSide) { f.Close() }, TargetReset},
		"half a head": {func(f *farSide) { f.say("HTTP/1.1 200 OK\r\nA: b"); f.Close() }, TargetReset},
		"no HTTP":     {func(f *farSide) { f.say("220 ftp ready\r\n\r\n") }, BadReply},
		"binary":      {func(f *farSide) { f.say("\x00\x01\x02") }, BadReply},
		"endless":     {func(f *farSide) { f.say("HTTP/1.1 200 OK\r\nA: %s", strings.Repeat("x", 2*maxHead)) }, BadReply},
	} {
		t.Run(name, func(t *testing.T) {
			r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
			target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
			c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr())
			far := nextFar(t, target)
			far.head()
			test.end(far)
			if response := c.hears(502, ""); response.Close || response.Header.Get("Sallyport-Reason") != string(test.want) {
				t.Errorf("%v", response)
			}
			r.next(test.want)
		})
	}
}

// TestClientLeaves: its target hears of it at once, and never takes half a
// request for a whole one.
func TestClientLeaves(t *testing.T) {
	for name, test := range map[string]struct {
		body  string
		leave func(*web)
		want  Reason
	}{
		"RST while it waits":       {"body", func(c *web) { proxytest.Reset(c.TCPConn) }, ClientReset},
		"FIN in the body":          {"bo", func(c *web) { c.Close() }, ClientGone},
		"half-close in the body":   {"bo", func(c *web) { _ = c.CloseWrite() }, ClientGone},
		"RST in the body":          {"bo", func(c *web) { proxytest.Reset(c.TCPConn) }, ClientReset},
		"FIN with nothing of body": {"", func(c *web) { c.Close() }, ClientGone},
	} {
		t.Run(name, func(t *testing.T) {
			r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
			target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
			c.say("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%s", target.Addr(), test.body)
			far := nextFar(t, target)
			far.head()
			far.hears(test.body)
			test.leave(c)
			if rest, err := proxytest.End(far.in); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%q, %v; want a reset", rest, err)
			}
			r.next(test.want)
		})
	}
}

// TestHalfClosedClient has said all and still listens.
func TestHalfClosedClient(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr())
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	far := nextFar(t, target)
	far.head()
	far.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	c.hears(200, "ok")
	c.ends()
}

// TestSilence: a request in which nothing moves ends at the limit of a relay.
func TestSilence(t *testing.T) {
	for name, test := range map[string]struct {
		finish bool
		limit  time.Duration
		want   Reason
	}{
		"idle":        {false, time.Hour, Idle},
		"half-closed": {true, time.Minute, HalfClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything), Timeouts: Timeouts{Idle: time.Hour, HalfClosed: time.Minute}}, Listener{})
				target := r.network.MustListen(targetAt.String())
				start, c := time.Now(), r.asks(fmt.Appendf(nil, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", targetAt))
				r.next4(target)
				if test.finish {
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				r.next(test.want)
				if took := time.Since(start); took != test.limit {
					t.Errorf("after %v, want %v", took, test.limit)
				}
				if answer, _ := io.ReadAll(io.LimitReader(c, 13)); string(answer) != "HTTP/1.1 504 " {
					t.Errorf("%q", answer)
				}
				c.Close()
			})
		})
	}
}

// TestFasterThanTheRequest: an answer may come before the request is whole, and
// the target may then close.
func TestFasterThanTheRequest(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n%s", target.Addr(), strings.Repeat("x", 1000))
	far := nextFar(t, target)
	far.head()
	far.hears(strings.Repeat("x", 1000))
	far.say("HTTP/1.1 413 Too much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	far.Close()
	c.hears(413, "no")
	c.ends()
	r.next(Closed)
}

// TestAnswerBeforeTheBody: a target may answer at once and read on. The body goes
// on for as long as the client sends some of it, and no longer.
func TestAnswerBeforeTheBody(t *testing.T) {
	for name, rounds := range map[string]int{"whole": 10, "given up": 5} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
				target := r.network.MustListen(targetAt.String())
				c := r.asks(fmt.Appendf(nil, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", targetAt))
				far := r.next4(target)
				proxytest.Say(t, far, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
				for range rounds {
					time.Sleep(time.Second)
					proxytest.Say(t, c, bytes.Repeat([]byte("#"), 100))
				}
				last := time.Now()
				r.next(Closed)
				if took := time.Since(last); (took > 0) != (rounds < 10) || took > 2*lingerTime {
					t.Errorf("it ended %v after the last of the body", took)
				}
				c.Close()
				if got, _ := io.ReadAll(far); bytes.Count(got, []byte("#")) != 100*rounds {
					t.Errorf("%q of the body, want %d bytes", got, 100*rounds)
				}
			})
		})
	}
}

// TestRefusals: what a person and a program are told, and that nothing that a
// rule is called breaks it.
func TestRefusals(t *testing.T) {
	nowhere := proxytest.Nowhere(t)
	for _, test := range []struct {
		reason error
		status int
		want   Reason
		after  string
	}{
		{Denied, 403, Denied, ""},
		{NoName, 502, NoName, ""},
		{Unreachable, 502, Unreachable, ""},
		{TimedOut, 504, TimedOut, ""},
		{Busy, 503, Busy, ""},
		{TooMany, 429, TooMany, "1"},
		{TooFast, 429, TooFast, "1"},
		{&LaterError{fmt.Errorf("%w: secret detail", TooFast), 90*time.Second + 1}, 429, TooFast, "91"},
		{&LaterError{BadLogin, 0}, 429, BadLogin, "1"},
		{Quota, 429, Quota, ""},
		{nil, 502, Refused, ""}, // nobody listens
	} {
		policy := deciding(func(context.Context, *Request) (Grant, error) {
			grant := Grant{Rule: "no \"mail\"\r\nX-Evil: <b>", Addrs: []netip.Addr{nowhere.Addr()}}
			if test.reason != nil {
				return grant, fmt.Errorf("%w: secret detail", test.reason)
			}
			return grant, nil
		})
		for method, target := range map[string]string{
			"GET": "http://" + nowhere.String(), "HEAD": "http://" + nowhere.String(), "CONNECT": nowhere.String(),
		} {
			t.Run(fmt.Sprintf("%s %v", method, test.reason), func(t *testing.T) {
				r := onLoopback(t, &Server{Policy: policy}, Listener{})
				c := r.web()
				c.say("%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, target)
				got := c.head(strings.Replace(method, "CONNECT", "GET", 1))
				isRefusal(t, got, method, test.status, test.want)
				if after := got.Header.Get("Retry-After"); after != test.after {
					t.Errorf("Retry-After is %q, want %q", after, test.after)
				}
				r.next(test.want)
			})
		}
	}
}

func isRefusal(t *testing.T, got answer, method string, status int, reason Reason) {
	t.Helper()
	page, err := io.ReadAll(got.Body)
	if got.StatusCode != status || err != nil || (len(page) == 0) != (method == "HEAD") {
		t.Errorf("%v, %q, %v", got, page, err)
	}
	if h := got.Header; h.Get("Sallyport-Reason") != string(reason) || h.Get("X-Evil") != "" ||
		h.Get("Sallyport-Rule") != `"no \"mail\"\r\nX-Evil: <b>"` || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", h)
	}
	if bytes.Contains(page, []byte("<b>")) || bytes.Contains(page, []byte("secret")) {
		t.Errorf("%s", page)
	}
	if got.Close != (method == "CONNECT") {
		t.Errorf("close is %v", got.Close)
	}
}

func TestMaxForwards(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	ask := func(method, hops string) {
		c.say("%s http://%s HTTP/1.1\r\nHost: x\r\nMax-Forwards: %s\r\n\r\n", method, target.Addr(), hops)
	}
	ask("OPTIONS", "0")
	c.hears(200, "")
	ask("TRACE", "0")
	c.hears(501, "")
	target.Untouched(t)
	for hops, want := range map[string]string{"3": "2", "65536": "65534", "99999999999999999999": "65534"} {
		c = r.web()
		ask("OPTIONS", hops)
		far := nextFar(t, target)
		if head := far.head(); !strings.HasPrefix(head, "OPTIONS * ") || !strings.Contains(head, "\r\nMax-Forwards: "+want+"\r\n") {
			t.Errorf("%s: %q", hops, head)
		}
	}
}

// TestExplanationsAreOurs: no target can make its answer look like a refusal of
// the proxy to a program.
func TestExplanationsAreOurs(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target, c := proxytest.NewTarget(t, "127.0.0.1"), r.web()
	c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr())
	far := nextFar(t, target)
	far.head()
	far.say("HTTP/1.1 403 No\r\nSallyport-Reason: denied\r\nsallyport-rule: x\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n")
	if h := c.hears(403, "").Header; h.Get("Sallyport-Reason") != "" || h.Get("Sallyport-Rule") != "" || h.Get("X-Other") == "" {
		t.Errorf("%v", h)
	}
}

func TestLoopByVia(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	for _, method := range []string{"GET http://%s/", "CONNECT %s"} {
		c := r.web()
		c.say(method+" HTTP/1.1\r\nHost: x\r\nVia: 1.1 other, 1.1 %s\r\n\r\n", target.Addr(), &r.server.state.pseudonym)
		c.hears(403, "")
		r.next(Loop)
	}
	target.Untouched(t)
}

// TestOtherProxyIsNoLoop: two servers of one process in a row.
func TestOtherProxyIsNoLoop(t *testing.T) {
	far := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	s := webServer(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["Via"]) })
	near := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	c := near.web()
	// To the first proxy, the second is a target like any other; CONNECT leads there.
	c.say("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nGET %s/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 %s\r\n\r\n", far.address, s.URL, &near.server.state.pseudonym)
	c.head("CONNECT")
	c.hears(200, "")
	c.Close()
}

func TestShutdownEndsIdleConnections(t *testing.T) {
	r := newRig(t, &Server{Policy: refusing(Denied)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.address = socket.Addr().String()
	r.serve(socket, Listener{})
	c := r.web()
	c.say("%s\r\n", getHead)
	c.hears(403, "")
	if err := r.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.ends()
}

// TestSlowReaderHoldsBackTheTarget: what is on its way stays a buffer's worth,
// whoever of the two does not read.
func TestSlowReaderHoldsBackTheTarget(t *testing.T) {
	const room, bound = 4 << 10, 3 * bodyRead
	flood := bytes.Repeat([]byte("x"), 1<<20)
	synctest.Test(t, func(t *testing.T) {
		r := inMemoryOf(t, room, &Server{Policy: deciding(anything)}, Listener{})
		target := r.network.MustListen(targetAt.String())
		c := r.asks(fmt.Appendf(nil, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", targetAt, len(flood)))
		far := r.next4(target)
		go func() { _, _ = c.Write(flood) }() // ends with its connection
		go func() { _, _ = fmt.Fprintf(far, "HTTP/1.1 200 OK\r\n\r\n%s", flood) }()
		synctest.Wait()
		// The client's bytes may also be read ahead while the target is connected to.
		if up, down := r.taken(c), r.network.Given()[0].Taken(); up < room || up > bound+aheadLimit || down < room || down > bound {
			t.Errorf("%d bytes of the client and %d of the target were read, though nobody takes them", up, down)
		}
		proxytest.Reset(c)
		far.Close()
		r.next(ClientReset)
	})
}

// TestBigBodies go both ways at once.
func TestBigBodies(t *testing.T) {
	const size = 32 << 20
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	s := webServer(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // what fails here fails below
		_, _ = io.Copy(w, r.Body)
	})
	client := throughHTTP(t, r.address)
	for _, length := range []int64{size, -1} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		request.ContentLength = length
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if n != size || err != nil {
			t.Errorf("length %d: %d bytes, %v", length, n, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestStandardClient: many requests of net/http's client, all on few connections.
func TestStandardClient(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	s := webServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
	})
	client := throughHTTP(t, r.address)
	for i := range 50 {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			path, body := fmt.Sprintf("/%d", i), strings.Repeat("b", i%3)
			request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(response.Body)
			response.Body.Close()
			if want := fmt.Sprintf("%s %s %s", method, path, body); string(got) != want || err != nil {
				t.Fatalf("%q, %v; want %q", got, err, want)
			}
			r.next(Closed)
		}
	}
}
