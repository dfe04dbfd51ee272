//go:build linux

package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// chromiumPage is rendered by a script that fetches a second page: the words
// that the test looks for are nowhere in its text.
const chromiumPage = `<!DOCTYPE html><title>waiting</title><p id="p">waiting</p>
<script>
fetch("/more").then(r => r.text()).then(t => document.getElementById("p").textContent = "rendered: " + t.toUpperCase())
</script>`

// TestChromium renders a page through each kind of proxy that a browser knows.
func TestChromium(t *testing.T) {
	paperSlow(t)
	for _, test := range []struct {
		scheme, host, protocol string
		http                   int // the version, where the log names it
	}{
		{"socks4", officeOutside, "socks4", 0},
		{"socks5", officeName, "socks5", 0},
		{"http", officeName, "http", 0},
		{"https", officeName, "http", 2},
	} {
		t.Run(test.scheme, func(t *testing.T) {
			certificate := writeFile(t, "proxy.pem", newCertificate(t))
			o := newOffice(t, fmt.Sprintf("listeners: {listen: %s, tls: {certificate: %q, key: %q}}\n", officeProxy, certificate, certificate)+officeRules)
			serveChromiumPage(t, o.outside, officeOutside)
			dom := o.browse(t, "--proxy-server="+test.scheme+"://"+officeProxy, "http://"+test.host+"/")
			if !bytes.Contains(dom, []byte("rendered: FETCHED")) {
				t.Errorf("the page became: %s", paperCut(dom))
			}
			o.session(t, paperSession{Command: "connect", Protocol: test.protocol, Target: test.host + ":80", HTTP: test.http, Reason: "closed"})
		})
	}
}

// TestChromiumPAC: the browser goes where the file sends it that the proxy made of its
// settings, by the proxy or directly.
func TestChromiumPAC(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, "listeners: {listen: "+officeProxy+"}\npac: {direct: 10.1.0.2/32}\n"+officeRules)
	serveChromiumPage(t, o.outside, officeOutside)
	serveChromiumPage(t, o.inside, officeInside)
	for host, from := range map[string]string{officeName: officeWallOut, officeInside: officeInside} {
		dom := o.browse(t, "--proxy-pac-url=http://"+officeProxy+"/proxy.pac", "http://"+host+"/")
		if !bytes.Contains(dom, []byte("rendered: FETCHED BY "+from)) {
			t.Errorf("of %s the page became: %s", host, paperCut(dom))
		}
	}
	o.session(t, paperSession{Command: "connect", Protocol: "http", Target: officeName + ":80", Reason: "closed"})
}

// serveChromiumPage serves the page at port 80 of an address, until the test ends.
func serveChromiumPage(t *testing.T, n *paperNet, at string) {
	t.Helper()
	pages := http.NewServeMux()
	pages.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(chromiumPage)) // the browser tells
	})
	pages.HandleFunc("/more", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("fetched by " + r.RemoteAddr)) })
	server := &http.Server{ReadHeaderTimeout: paperPatience, Handler: pages}
	ln := n.listen(t, at+":80")
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
}

// browse has Chromium inside show a page, by the proxy that the flag names, and returns
// what it has become. On a busy machine it now and then prints nothing, not even the
// page of an error, which says nothing of the proxy: it is asked once more then.
func (o *office) browse(t *testing.T, proxy, page string) []byte {
	t.Helper()
	show := func() []byte {
		return o.run(t, nil, []string{"HOME=" + t.TempDir()}, "chromium",
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync",
			"--ignore-certificate-errors", "--user-data-dir="+t.TempDir(),
			proxy, "--virtual-time-budget=10000", "--dump-dom", page)
	}
	if dom := show(); len(dom) > 0 {
		return dom
	}
	return show()
}

// newCertificate returns a certificate for the proxy, signed by itself, and its key.
func newCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the proxy"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(officeWall)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})...)
}
