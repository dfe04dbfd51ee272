//go:build unix

package server

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

func TestInboundHTTPOverTLS(t *testing.T) {
	ca := newAuthority(t)
	terms := ca.server(t)
	proxytest.Inbound(t, proxytest.HTTP(""), func(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
		tb.Helper()
		r := onLoopback(tb, &Server{Policy: allowing(allow)}, Listener{TLS: terms})
		return func() proxytest.Stream { return dialTLS(tb, r.address, ca.client()) }
	})
}

// TestForwardOverTLS: the certificate says who asks, in each request of a
// connection; a truncated answer ends without the word that TLS has for an end.
func TestForwardOverTLS(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything), Authenticator: newGatekeeper(LoginRequired)}, Listener{TLS: ca.server(t)})
	terms := ca.client()
	terms.Certificates = []tls.Certificate{ca.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "alice"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})}
	target, c := proxytest.NewTarget(t, "127.0.0.1"), dialTLS(t, r.address, terms)
	in := bufio.NewReader(c)
	var far *farSide
	for i, answer := range []string{"Content-Length: 2\r\n\r\nok", "\r\nok"} {
		proxytest.Say(t, c, fmt.Appendf(nil, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr()))
		if far == nil {
			far = nextFar(t, target)
		}
		far.head()
		far.say("HTTP/1.1 200 OK\r\n%s", answer)
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		proxytest.Hear(t, response.Body, "ok")
		if i == 0 {
			r.nextOf("alice", Closed)
			continue
		}
		proxytest.Reset(far.TCPConn)
		if _, err := io.ReadAll(response.Body); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
		response.Body.Close()
		r.nextOf("alice", TargetReset)
	}
}

// nextOf is next, with the client's certificate.
func (r *rig) nextOf(name string, want Reason) {
	r.Helper()
	if e := r.next(want); e.Identity != (Identity{Name: name, Proof: Certificate}) || !e.TLS {
		r.Errorf("recorded %v, TLS %v", e.Identity, e.TLS)
	}
}
