//go:build unix

package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{pool: x509.NewCertPool()}
	pair := a.sign(tb, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	return a
}

// sign returns a new certificate for the template; without an authority yet it
// signs itself.
func (a *authority) sign(tb testing.TB, template *x509.Certificate) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotAfter = time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) server(tb testing.TB) *tls.Config {
	tb.Helper()
	pair := a.sign(tb, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: a.pool, ClientAuth: tls.VerifyClientCertIfGiven}
}

func (a *authority) client() *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: "127.0.0.1"}
}

// secured is a client's TLS connection that can reset what is beneath it.
type secured struct {
	*tls.Conn
	plain proxytest.Stream
	abort bool
}

func (s *secured) SetLinger(seconds int) error {
	s.abort = seconds == 0
	return s.plain.SetLinger(seconds)
}

// Close says so to the other end, unless it is to be a reset.
func (s *secured) Close() error {
	if s.abort {
		return s.plain.Close()
	}
	return s.Conn.Close()
}

func dialTLS(tb testing.TB, address string, c *tls.Config) *secured {
	tb.Helper()
	return secure(proxytest.Dial(tb, address), c)
}

func secure(plain proxytest.Stream, c *tls.Config) *secured {
	return &secured{Conn: tls.Client(plain, c), plain: plain}
}

// TestInboundOverTLS: what holds for a protocol holds for it over TLS.
func TestInboundOverTLS(t *testing.T) {
	ca := newAuthority(t)
	terms := ca.server(t)
	start := func(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
		tb.Helper()
		r := onLoopback(tb, &Server{Policy: allowing(allow), Authenticator: door{login: LoginOptional}}, Listener{TLS: terms})
		return func() proxytest.Stream { return dialTLS(tb, r.address, ca.client()) }
	}
	for _, p := range []proxytest.Protocol{proxytest.SOCKS4a("bob"), proxytest.SOCKS5("fred", "secret")} {
		t.Run(p.Name, func(t *testing.T) { proxytest.Inbound(t, p, start) })
	}
}

func TestPlainAndTLSOnOnePort(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
	request := proxytest.Connect4(proxytest.Echo(t, "127.0.0.1"), "bob")
	for _, c := range []net.Conn{proxytest.Dial(t, r.address), dialTLS(t, r.address, ca.client())} {
		_, secure := c.(*secured)
		proxytest.Say(t, c, request)
		proxytest.Granted4(t, c)
		talk(t, c)
		c.Close()
		if e := r.next(Closed); e.TLS != secure {
			t.Errorf("recorded TLS %v, want %v", e.TLS, secure)
		}
	}
}

func TestTLSOnly(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t), TLSOnly: true})
	request := proxytest.Connect4(proxytest.Echo(t, "127.0.0.1"), "bob")
	plain := proxytest.Dial(t, r.address)
	proxytest.Say(t, plain, request)
	if rest, _ := proxytest.End(plain); len(rest) > 0 {
		t.Errorf("a plain client was told % x", rest)
	}
	r.next(Garbage)
	c := dialTLS(t, r.address, ca.client())
	proxytest.Say(t, c, request)
	proxytest.Granted4(t, c)
}

// TestWithoutTLS: a listener that has no certificate takes a TLS client for garbage.
func TestWithoutTLS(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	if err := dialTLS(t, r.address, &tls.Config{ServerName: "127.0.0.1"}).Handshake(); err == nil {
		t.Error("there was a TLS handshake")
	}
	r.next(Garbage)
}

// TestClientCertificate: it is an identity, whatever is claimed beside it, and
// takes the place of a password that would be needed.
func TestClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	r := onLoopback(t, &Server{Policy: deciding(anything), Authenticator: door{login: LoginRequired}}, Listener{TLS: ca.server(t)})
	echo := proxytest.Echo(t, "127.0.0.1")
	for name, template := range map[string]*x509.Certificate{
		"alice":         {Subject: pkix.Name{CommonName: "alice"}},
		"a@example.org": {EmailAddresses: []string{"a@example.org"}},
		"host.example":  {DNSNames: []string{"host.example"}},
	} {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		terms := ca.client()
		terms.Certificates = []tls.Certificate{ca.sign(t, template)}

		c := dialTLS(t, r.address, terms)
		proxytest.Say(t, c, proxytest.Connect4(echo, "bob"))
		proxytest.Granted4(t, c)
		c.Close()
		if e := r.next(Closed); e.Identity != (Identity{Name: name, Proof: Certificate}) {
			t.Errorf("SOCKS 4: recorded %v, want %q", e.Identity, name)
		}

		c = dialTLS(t, r.address, terms)
		proxytest.Say(t, c, append(proxytest.Greeting5(socks.NoAuth), proxytest.Ask5(socks.Connect, echo)...))
		proxytest.Hear(t, c, string(socks.Choice5{Method: socks.NoAuth}.Append(nil)))
		proxytest.Granted5(t, c)
		c.Close()
		if e := r.next(Closed); e.Identity != (Identity{Name: name, Proof: Certificate}) {
			t.Errorf("SOCKS 5: recorded %v, want %q", e.Identity, name)
		}
	}

	stranger := newAuthority(t)
	terms := ca.client()
	terms.Certificates = []tls.Certificate{stranger.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}})}
	terms.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &terms.Certificates[0], nil }
	c := dialTLS(t, r.address, terms)
	_, _ = c.Write(proxytest.Connect4(echo, "alice")) // it may be refused already
	if rest, err := proxytest.End(c); err == nil || len(rest) > 0 {
		t.Errorf("a certificate of somebody else's was taken: % x", rest)
	}
	r.next(BadRequest)
}
