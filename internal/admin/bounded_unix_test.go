//go:build unix

package admin

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestWhoIsKnownStays: the connection of somebody who has signed in makes room for nobody,
// with TLS or without; where all are such, whoever comes waits until one has left.
func TestWhoIsKnownStays(t *testing.T) {
	certified := httptest.NewTLSServer(http.NotFoundHandler())
	certified.Close()
	for _, terms := range []*tls.Config{nil, {Certificates: certified.TLS.Certificates}} {
		synctest.Test(t, func(t *testing.T) { whoIsKnownStays(t, terms) })
	}
}

func whoIsKnownStays(t *testing.T, terms *tls.Config) {
	secure := terms != nil
	socket, end := serves(t, terms, newSite(t).panel().Page(secure))
	defer end()
	administrator := signedIn(t, socket, secure)
	for i := range 2 * mostConns {
		dials(t, socket, fmt.Sprintf("192.0.2.%d:4000", i%250))
		synctest.Wait()
	}
	if n := socket.Waiting(); n > 0 {
		t.Errorf("TLS %v: %d connections wait", secure, n)
	}
	administrator.asks(t)
	all := []*asker{administrator}
	for len(all) < mostConns {
		all = append(all, signedIn(t, socket, secure))
	}
	late := dials(t, socket, "198.51.100.1:4000")
	later := dials(t, socket, "198.51.100.1:4000")
	synctest.Wait()
	for _, one := range all {
		one.asks(t)
	}
	if socket.Waiting() != 1 || late.Peer().Closed() {
		t.Errorf("TLS %v: %d wait behind the one who waits first", secure, socket.Waiting())
	}
	all[7].Close()
	synctest.Wait()
	if socket.Waiting() != 0 || !late.Peer().Closed() || later.Peer().Closed() {
		t.Errorf("TLS %v: when one has left, the strangers do not come in", secure)
	}
}

// asker is a connection of somebody who asks again and again.
type asker struct {
	net.Conn
	answers *bufio.Reader
}

// signedIn is one who signs in with each request.
func signedIn(t *testing.T, socket *proxytest.Listener, secure bool) *asker {
	t.Helper()
	var c net.Conn = dials(t, socket, "192.0.2.255:4000")
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	a := &asker{c, bufio.NewReader(c)}
	a.asks(t)
	return a
}

func (a *asker) asks(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(a, "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer root:secret\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(a.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("the answer is %s, %v", answer.Status, err)
	}
}
