package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/net/proxy"

	"github.com/sallyport/sallyport/client"
)

// Where other packages ask for a dialer, ours fit.
var (
	_ proxy.ContextDialer  = (*client.Dialer)(nil)
	_ proxy.Dialer         = (*client.Dialer)(nil)
	_ proxy.ContextDialer  = (*client.Environment)(nil)
	_ client.ContextDialer = (*client.Dialer)(nil)
	_                      = http.Transport{DialContext: (*client.Dialer)(nil).DialContext}
	_                      = http.Transport{DialContext: (*client.Environment)(nil).DialContext}
)

// connectTo is the request for a target, in one write.
func connectTo(target, fields string) []byte {
	return []byte("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + fields + "\r\n")
}

// says answers a request for 192.0.2.7:80.
func says(response string) script {
	return turns(turn{connectTo("192.0.2.7:80", ""), []byte(response)})
}

func TestRequestsHTTP(t *testing.T) {
	for _, c := range []struct{ url, address, target, fields string }{
		{"http://gw", "192.0.2.7:443", "192.0.2.7:443", ""},
		{"http://gw", "[2001:db8::1]:80", "[2001:db8::1]:80", ""},
		{"http://gw", "WWW.Example.com.:https", "www.example.com:443", ""},
		{"http://alice:secret@gw", "192.0.2.7:80", "192.0.2.7:80", "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n"},
		{"http://alice@gw", "192.0.2.7:80", "192.0.2.7:80", "Proxy-Authorization: Basic YWxpY2U6\r\n"},
		{"http://al%C3%AFce:a%3Ab%20c@gw", "192.0.2.7:80", "192.0.2.7:80", "Proxy-Authorization: Basic YWzDr2NlOmE6YiBj\r\n"},
	} {
		t.Run(c.url+" "+c.address, func(t *testing.T) {
			p := play(t, turns(turn{connectTo(c.target, c.fields), []byte("HTTP/1.1 200 OK\r\n\r\n")}))
			conn, err := dialerFor(t, c.url, p).Dial("tcp", c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if conn.RemoteAddr().String() != c.target {
				t.Errorf("RemoteAddr %v, want %s", conn.RemoteAddr(), c.target)
			}
		})
	}
}

// What grants a request, however it is spelled and wherever it is cut, with the
// target's first bytes right behind.
func TestGrantsHTTP(t *testing.T) {
	const tail = "\r\n\r\n220 ready"
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.0 200 Connection established\r\nVia: 1.1 gw\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200\r\n\r\n",
		"HTTP/1.1 200\n\n",
		"HTTP/1.1 204 \nA: b\n\r\n",
		"HTTP/1.1 299 \xff\r\nnot a field\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 60<<10) + "\r\n\r\n",
	} {
		checkHears(t, dialerFor(t, "http://gw", play(t, says(head+tail))), tail)
		if len(head) > 1000 {
			continue
		}
		for n := 1; n < len(head); n++ {
			p := play(t, func(t *testing.T, c net.Conn) {
				takeTurns(t, c, []turn{{connectTo("192.0.2.7:80", ""), []byte(head[:n])}})
				if _, err := io.WriteString(c, head[n:]+tail); err != nil {
					t.Errorf("%q: %v", head, err)
				}
				waitForClose(t, c)
			})
			checkHears(t, dialerFor(t, "http://gw", p), tail)
		}
	}
}

func TestCutAnywhereHTTP(t *testing.T) {
	const head = "HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n"
	for n := range len(head) {
		p := play(t, func(t *testing.T, c net.Conn) {
			takeTurns(t, c, []turn{{connectTo("192.0.2.7:80", ""), []byte(head[:n])}})
		})
		if _, err := dialerFor(t, "http://gw", p).Dial("tcp", "192.0.2.7:80"); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d: %v", n, err)
		}
	}
}

func TestRefusalsHTTP(t *testing.T) {
	for _, c := range []struct {
		status int
		fields string
		is     error
		says   string
	}{
		{403, "", client.ErrNotAllowed, "reply 403, forbidden"},
		{403, "Sallyport-Reason: denied\r\nSallyport-Rule: no mail from \"here\"\r\n", client.ErrNotAllowed, `reply 403, forbidden, reason "denied", rule "no mail from \"here\""`},
		{403, "Sallyport-Rule: \"no \\\"mail\\\"\\n\"\r\n", client.ErrNotAllowed, `rule "no \"mail\"\n"`},
		{403, "sallyport-reason: other-user\r\n", client.ErrOtherUser, `reason "other-user"`},
		{407, "Proxy-Authenticate: Basic realm=x\r\nContent-Length: 5\r\n", client.ErrLogin, "reply 407, login required"},
		{401, "", client.ErrLogin, "reply 401, login required"}, // tinyproxy, to a wrong password
		{403, "Sallyport-Reason: schedule\r\n", client.ErrNotAllowed, `reply 403, forbidden, reason "schedule"`},
		{407, "Sallyport-Reason: denied\r\n", client.ErrLogin, `reply 407, login required, reason "denied"`},
		{502, "Sallyport-Reason: refused\r\n", client.ErrRefused, `reply 502, bad gateway, reason "refused"`},
		{502, "Sallyport-Reason: no-name\r\n", client.ErrUnreachable, `reason "no-name"`},
		{502, "Sallyport-Reason: something-new\r\n", client.ErrRejected, `reason "something-new"`},
		{502, "Sallyport-Reason: refused\r\nbroken\r\n", client.ErrRejected, "reply 502, bad gateway"},
		{502, "Sallyport-Rule: \x1b[31mred\r\n", client.ErrRejected, "reply 502, bad gateway"}, // no control bytes
		{501, "", client.ErrUnsupported, "reply 501, not supported"},
		{504, "", client.ErrTimeout, "reply 504, time ran out"},
		{400, "", client.ErrRejected, "reply 400, bad request"},
		{429, "", client.ErrRejected, "reply 429, too many requests"},
		{500, "", client.ErrRejected, "reply 500, fault of the proxy"},
		{503, "", client.ErrRejected, "reply 503, unavailable"},
		{302, "Location: http://elsewhere/\r\n", client.ErrRejected, "reply 302, HTTP status"},
		{101, "", client.ErrRejected, "reply 101, HTTP status"},
	} {
		response := fmt.Sprintf("HTTP/1.1 %d Words\r\n%s\r\nbody", c.status, c.fields)
		p := play(t, func(t *testing.T, conn net.Conn) {
			takeTurns(t, conn, []turn{{want: connectTo("192.0.2.7:80", "Proxy-Authorization: Basic YTpzZWNyZXQ=\r\n")}})
			io.WriteString(conn, response) // the client need not read the body
		})
		_, err := dialerFor(t, "http://a:secret@gw", p).Dial("tcp", "192.0.2.7:80")
		refusal, ok := errors.AsType[*client.ReplyError](err)
		if !ok || refusal.Code != client.Status(c.status) || !errors.Is(err, c.is) || !errors.Is(err, client.ErrRejected) {
			t.Errorf("%d %s: %v, want %v", c.status, c.fields, err, c.is)
			continue
		}
		text := err.Error()
		if refusal.Rule == "" && !strings.HasSuffix(text, c.says) || !strings.Contains(text, c.says) || strings.Contains(text, "secret") {
			t.Errorf("%d: %q does not say %q, or too much", c.status, text, c.says)
		}
	}
}

func TestLongReasonIsCut(t *testing.T) {
	p := play(t, says("HTTP/1.1 403 \r\nSallyport-Reason: "+strings.Repeat("r", 60000)+"\r\n\r\n"))
	_, err := dialerFor(t, "http://gw", p).Dial("tcp", "192.0.2.7:80")
	if refusal, ok := errors.AsType[*client.ReplyError](err); !ok || len(refusal.Reason) != 255 {
		t.Errorf("got %d bytes of error", len(fmt.Sprint(err)))
	}
}

// The first byte that is wrong ends it: whoever sent it may wait for more.
func TestNotHTTP(t *testing.T) {
	for response, hint := range map[string]string{
		"\x05":               "SOCKS 5",
		"\x00":               "SOCKS 4",
		"\x15":               "TLS",
		"HTTX":               "HTTP/1",
		"HTTP/2":             "HTTP/1",
		"HTTP/1.x":           "HTTP/1",
		"HTTP/1.1200":        "HTTP/1",
		"HTTP/1.1 2x":        "HTTP/1",
		"HTTP/1.1 2000 \r\n": "HTTP/1",
	} {
		p := play(t, func(t *testing.T, c net.Conn) {
			takeTurns(t, c, []turn{{want: connectTo("192.0.2.7:80", "")}})
			io.WriteString(c, response)
			io.Copy(io.Discard, c)
		})
		_, err := dialerFor(t, "http://gw", p).Dial("tcp", "192.0.2.7:80")
		if err == nil || !strings.Contains(err.Error(), "the reply begins") || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, want a hint at %s", response, err, hint)
		}
	}
}

func TestHeadIsBounded(t *testing.T) {
	const limit = 64 << 10
	for name, endless := range map[string]string{
		"one field":   "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", limit),
		"many fields": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", limit/4),
		"interim":     strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9),
		"two heads":   "HTTP/1.1 100 Continue\r\nA: " + strings.Repeat("a", limit-100) + "\r\n\r\nHTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 100) + "\r\n\r\n",
	} {
		served := &byteConn{in: strings.NewReader(endless)}
		_, err := dialerFor(t, "http://gw", served).Dial("tcp", "192.0.2.7:80")
		if err == nil || !strings.Contains(err.Error(), "too many") && !strings.Contains(err.Error(), "more than 65536 bytes") {
			t.Errorf("%s: %v", name, err)
		}
		if served.read > limit {
			t.Errorf("%s: %d bytes were read", name, served.read)
		}
	}
}

// byteConn is a connection to a proxy that says what is known beforehand, and
// the dialer for it.
type byteConn struct {
	net.Conn // nil: what is not overridden is not called
	in       io.Reader
	read     int
}

func (c *byteConn) DialContext(context.Context, string, string) (net.Conn, error) { return c, nil }

func (c *byteConn) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.read += n
	return n, err
}

func (c *byteConn) Write(b []byte) (int, error)   { return len(b), nil }
func (c *byteConn) SetDeadline(t time.Time) error { return nil }
func (c *byteConn) Close() error                  { return nil }

// FuzzHead holds for any response: no panic, the same outcome whatever the
// pieces, no more read than the bound, and of a granted one the head alone.
func FuzzHead(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\n\r\ntail", "HTTP/1.0 403 \r\nSallyport-Rule: x\r\n\r\n", "HTTP/1.1 200\n\n\n",
		"HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 \n\r\n\r", "HTTP/1.1 200 \r\r\n\n\r\nx", "HTTP/1.1 2\n\n", "\x05",
		"HTTP/1.1 403 No\r\nSallyport-Reason: denied\r\nSallyport-Rule: \"a \\\"b\\\"\"\r\n\r\n", "HTTP/1.1 403 No\r\nno field\r\n\r\n",
		"HTTP/1.1 2000\r\n\r\n", "HTTP/2 200\r\n\r\n", strings.Repeat("HTTP/1.1 103 \r\n\r\n", 9), "HTTP/1.1 200 " + strings.Repeat("x", 64<<10),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		whole := readHead(t, bytes.NewReader(response), response)
		for _, pieces := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
			if taken := readHead(t, pieces(bytes.NewReader(response)), response); taken != whole {
				t.Fatalf("%q: %d bytes taken in pieces, %d at once", response, taken, whole)
			}
		}
	})
}

// readHead dials through a proxy that says response, which comes from in. It
// returns how many bytes of it the head has, 0 if the request is not granted.
func readHead(t *testing.T, in io.Reader, response []byte) int {
	t.Helper()
	served := &byteConn{in: in}
	conn, err := dialerFor(t, "http://gw", served).Dial("tcp", "192.0.2.7:80")
	switch {
	case served.read > 64<<10:
		t.Fatalf("%d bytes were read", served.read)
	case (conn == nil) == (err == nil):
		t.Fatalf("connection %v and error %v", conn, err)
	case err != nil:
		return 0
	}
	head := response[:served.read]
	if !bytes.HasSuffix(head, []byte("\n\n")) && !bytes.HasSuffix(head, []byte("\n\r\n")) {
		t.Fatalf("read %q of %q", head, response)
	}
	if rest, err := io.ReadAll(conn); err != nil || !bytes.Equal(rest, response[len(head):]) {
		t.Fatalf("behind %q comes %q, %v", head, rest, err)
	}
	return len(head)
}

func TestOnlyConnectHTTP(t *testing.T) {
	d := dialerFor(t, "http://gw", play(t)) // which is not asked
	if _, err := d.Listen(t.Context(), "tcp", "192.0.2.7:21"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Listen: %v", err)
	}
	if _, err := d.ListenPacket(t.Context(), "udp", ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ListenPacket: %v", err)
	}
}

// startTLSProxy is an HTTPS proxy that connects to what is asked for, and the
// configuration with which it is trusted. It wants the login.
func startTLSProxy(t *testing.T, login string) (addr string, trusting *tls.Config) {
	t.Helper()
	var relays sync.WaitGroup
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != login {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		relays.Add(1)
		defer relays.Done()
		out, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer out.Close()
		in, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer in.Close()
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		relays.Go(func() {
			io.Copy(out, buffered)
			out.(*net.TCPConn).CloseWrite()
		})
		io.Copy(in, out)
	}))
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0)
	proxy.StartTLS()
	t.Cleanup(func() {
		proxy.Close()
		relays.Wait()
	})
	roots := x509.NewCertPool()
	roots.AddCert(proxy.Certificate())
	return proxy.Listener.Addr().String(), &tls.Config{RootCAs: roots}
}

func TestHTTPS(t *testing.T) {
	server := startServer(reverse)
	defer server.Close()
	addr, trusting := startTLSProxy(t, "Basic YWxpY2U6c2VjcmV0")
	d, err := client.New("https://alice:secret@"+addr, client.WithTLSConfig(trusting))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkReverses(t, conn)
	if trusting.ServerName != "" || trusting.NextProtos != nil {
		t.Error("the caller's configuration has been changed")
	}

	d, err = client.New("https://alice:wrong@"+addr, client.WithTLSConfig(trusting))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Dial("tcp", server.Addr()); !errors.Is(err, client.ErrLogin) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestHTTPSUntrusted(t *testing.T) {
	addr, trusting := startTLSProxy(t, "")
	wrongName := trusting.Clone()
	wrongName.ServerName = "gw.test"
	for _, config := range []*tls.Config{nil, wrongName} {
		d, err := client.New("https://"+addr, client.WithTLSConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Dial("tcp", "192.0.2.7:80")
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || !strings.Contains(err.Error(), "reaching the proxy: TLS: ") {
			t.Errorf("got %v", err)
		}
	}
}

// A proxy that never answers the ClientHello is left when the context ends.
func TestHTTPSCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	p := play(t, func(t *testing.T, c net.Conn) {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		cancel(errGaveUp)
		io.Copy(io.Discard, c)
	})
	_, err := dialerFor(t, "https://gw", p).DialContext(ctx, "tcp", "192.0.2.7:80")
	checkCause(t, err)
}
