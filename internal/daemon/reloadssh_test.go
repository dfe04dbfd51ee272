//go:build unix

package daemon

import (
	"context"
	"errors"
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
	dial := func() (*ssh.Client, error) { return s.signsInBy("bob", sign) }
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

// signsInBy is a client of ssh with a key.
func (s *served) signsInBy(user string, key ssh.Signer) (*ssh.Client, error) {
	config := proxytest.SSHConfig(user, "")
	config.Auth = []ssh.AuthMethod{ssh.PublicKeys(key)}
	conn, channels, requests, err := ssh.NewClientConn(proxytest.Dial(s, s.at("lan")), "", config)
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// TestKeysInTheLedger: who is given a key there signs in with it, and is thrown out when
// it is gone.
func TestKeysInTheLedger(t *testing.T) {
	s := serveIn(t, `
listeners: {name: lan, listen: 127.0.0.1:0, protocols: [socks5, ssh]}
ssh: {host_key: key}
users: {ledger: true}
rules: {allow: keys, proof: key, to: loopback}
ledger: sqlite:used.db
`)
	sign, err := openHostKey(filepath.Join(t.TempDir(), "mine"))
	if err != nil {
		t.Fatal(err)
	}
	key := string(ssh.MarshalAuthorizedKey(sign.PublicKey()))
	u, ctx := Users{Settings: s.file()}, t.Context()
	if err := u.AddKey(ctx, "alice", key); !errors.Is(err, ErrNoUser) {
		t.Errorf("a key of nobody: %v", err)
	}
	if err := u.Add(ctx, "alice", "wonderland"); err != nil {
		t.Fatal(err)
	}
	if err := u.AddKey(ctx, "alice", "nonsense"); err == nil {
		t.Error("nonsense is a key")
	}
	if err := u.AddKey(ctx, "alice", key); err != nil {
		t.Fatal(err)
	}
	keys, err := u.Keys(ctx, "alice")
	if err != nil || len(keys) != 1 || keys[0].Fingerprint != ssh.FingerprintSHA256(sign.PublicKey()) {
		t.Errorf("%+v, %v", keys, err)
	}
	var c *ssh.Client
	proxytest.Eventually(t, "alice signs in with her key", func() bool {
		c, err = s.signsInBy("alice", sign)
		return err == nil
	})
	defer c.Close()
	far, err := c.Dial("tcp", proxytest.Echo(t, "127.0.0.1").String())
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Say(t, far, []byte("hello"))
	proxytest.Hear(t, far, "hello")
	if err := u.RemoveKey(ctx, "alice", keys[0].Fingerprint); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // until the server has ended it
	s.logs("reason=revoked", 1)
	if _, err := s.signsInBy("alice", sign); err == nil {
		t.Error("alice signs in with a key that is gone")
	}
	if err := u.RemoveKey(ctx, "alice", keys[0].Fingerprint); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
}
