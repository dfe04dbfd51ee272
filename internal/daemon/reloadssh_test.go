//go:build unix

package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestReloadsOfSSH: a listener that is to speak ssh does from the next client on,
// and a virtual port that is gone ends its offer.
func TestReloadsOfSSH(t *testing.T) {
	const without = "listeners: {name: lan, listen: 127.0.0.1:0}\nusers: {file: users}\nrules: {allow: here, from: loopback, to: any}\n"
	with := strings.Replace(without, "127.0.0.1:0", "127.0.0.1:0, protocols: [socks5, ssh]", 1) + "ssh: {host_key: key}\n"
	s := serveIn(t, without, "bob:$2y$04$QwK.BLnEkcjlnwN3jl7NouSvBEFx.2cB4c1G8lSsB3Ecmdj3R3cYq")
	sign, err := openHostKey(filepath.Join(t.TempDir(), "mine"))
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (*ssh.Client, error) {
		config := proxytest.SSHConfig("bob", "")
		config.Auth = []ssh.AuthMethod{ssh.PublicKeys(sign)}
		conn, channels, requests, err := ssh.NewClientConn(proxytest.Dial(t, s.at("lan")), "", config)
		if err != nil {
			return nil, err
		}
		return ssh.NewClient(conn, channels, requests), nil
	}
	if c, err := dial(); err == nil {
		t.Errorf("%v: ssh is spoken", c)
	}
	key := "bob:" + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sign.PublicKey()))) + "\n"
	if err := os.WriteFile(filepath.Join(s.dir, "users.keys"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reloads(with + "virtual_ports: {name: intranet, users: bob}\n")
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	offer := ssh.Marshal(struct {
		Host string
		Port uint32
	}{"intranet", 80})
	if ok, _, err := c.SendRequest("tcpip-forward", true, offer); !ok || err != nil {
		t.Fatalf("the offer: %v, %v", ok, err)
	}
	s.reloads(with)
	proxytest.Eventually(t, "the offer has ended", func() bool { return len(s.server.Sessions()) == 0 })
	if ok, _, err := c.SendRequest("tcpip-forward", true, offer); ok || err != nil {
		t.Errorf("the virtual port is gone: %v, %v", ok, err)
	}
	s.reloads(with + "virtual_ports: {name: intranet, users: bob}\n")
	if ok, _, err := c.SendRequest("tcpip-forward", true, offer); !ok || err != nil {
		t.Errorf("it is there again: %v, %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := s.Reload(ctx); err != nil || len(s.server.Sessions()) != 1 {
		t.Errorf("%v, %d sessions", err, len(s.server.Sessions()))
	}
}
