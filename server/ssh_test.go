//go:build unix

package server

import (
	"crypto/ed25519"
	"net/netip"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// sshListener speaks everything, SSH too.
func sshListener(tb testing.TB) Listener {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return Listener{Protocols: []Protocol{SOCKS4, SOCKS4a, SOCKS5, HTTP, SSH}, HostKey: signer}
}

func TestInboundSSH(t *testing.T) {
	for _, c := range []struct{ name, user, password string }{{"nobody", "", ""}, {"password", "fred", "secret"}} {
		t.Run(c.name, func(t *testing.T) {
			proxytest.Inbound(t, proxytest.SSH(), func(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
				tb.Helper()
				s := &Server{Policy: allowing(allow)}
				if c.user != "" {
					s.Authenticator = door{login: LoginOptional}
				}
				r := onLoopback(tb, s, sshListener(tb))
				return func() proxytest.Stream {
					return proxytest.OverSSH(proxytest.Dial(tb, r.address), proxytest.SSHConfig(c.user, c.password))
				}
			})
		})
	}
}
