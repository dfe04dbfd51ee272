//go:build linux

package main_test

import (
	"fmt"
	"net"
	"testing"
)

// curlProxy is a proxy as curl is told of it.
type curlProxy struct {
	scheme   string
	login    string // SOCKS 4 has none: what is written there is the userid
	user     string // whom the log names
	host     string // of the target, as the client knows it
	protocol string // as the log has it
}

func curlProxies() []curlProxy {
	var proxies []curlProxy
	for _, p := range []curlProxy{
		{scheme: "socks4", host: officeOutside, protocol: "socks4"},
		{scheme: "socks4a", host: officeName, protocol: "socks4a"},
		{scheme: "socks5", host: officeOutside, protocol: "socks5"},
		{scheme: "socks5h", host: officeName, protocol: "socks5"},
		{scheme: "http", host: officeName, protocol: "http"},
		{scheme: "https", host: officeName, protocol: "http"},
	} {
		anybody := p
		if p.login, p.user = officeLogin+"@", officeUser; p.protocol == "socks4" || p.protocol == "socks4a" {
			p.login, p.user = "carol@", "carol"
		}
		proxies = append(proxies, anybody, p)
	}
	return proxies
}

// TestCurl fetches from and puts to a web server, plain, over TLS and over
// HTTP/2, through every kind of proxy, with and without a login.
func TestCurl(t *testing.T) {
	paperSlow(t)
	for _, p := range curlProxies() {
		t.Run(p.scheme+"://"+p.login, func(t *testing.T) {
			t.Parallel()
			o, certificate := newOfficeTLS(t, p.user == officeUser)
			page, received := paperBytes(megabyte), make(chan []byte, 1)
			o.serveHTTP(t, page, received)
			o.serveHTTPS(t, page, received)
			sent := paperBytes(megabyte + 1)
			file := writeFile(t, "sent", sent)
			for _, target := range []struct{ version, scheme, port, says string }{
				{"--http1.1", "http", "80", "1.1"},
				{"--http1.1", "https", "443", "1.1"},
				{"--http2", "https", "443", "2"},
			} {
				curl := []string{
					"curl", "--silent", "--show-error", "--fail", "--insecure", "--noproxy", "", target.version,
					"--proxy-cacert", certificate, "--proxy", p.scheme + "://" + p.login + officeProxy,
				}
				url := target.scheme + "://" + p.host + "/"
				got := o.run(t, nil, nil, append(curl, "--write-out", "%{http_version}", url)...)
				sameBytes(t, "GET", got, append(page[:len(page):len(page)], target.says...))
				o.run(t, nil, nil, append(curl, "--upload-file", file, url)...)
				sameBytes(t, "PUT", <-received, sent)
				o.session(t, paperSession{
					Command: "connect", Protocol: p.protocol, User: p.user,
					Target: net.JoinHostPort(p.host, target.port), Address: net.JoinHostPort(officeOutside, target.port),
				})
			}
		})
	}
}

// newOfficeTLS is newOfficeFor on whose port TLS is spoken too. It returns the
// file with the certificate as well.
func newOfficeTLS(t *testing.T, login bool) (o *office, certificate string) {
	t.Helper()
	certificate = writeFile(t, "proxy.pem", newCertificate(t))
	settings := officeRules
	if login {
		settings = fmt.Sprintf(officeStaff, paper5Users(t, officeLogin))
	}
	tls := fmt.Sprintf("listeners: {listen: %s, tls: {certificate: %q, key: %[2]q}}\n", officeProxy, certificate)
	return newOffice(t, tls+settings), certificate
}
