package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/internal/proxytest"
)

const offersSettings = `
listeners: {name: lan, listen: '127.0.0.1:0', protocols: [socks5, ssh]}
users: {file: users}
ssh: {host_key: host_key}
virtual_ports: {name: intranet, users: bob}
rules: {allow: visitors, from: loopback, to: intranet}
admin: {socket: admin.sock}
ledger: off
`

// TestUpgradeWithOffers: what is offered by SSH is found again in the process that has
// taken over, and where that is told to end, nothing is left in the one before.
func TestUpgradeWithOffers(t *testing.T) {
	u := newUpgradable(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	u.writes("users", "bob:"+string(hash)+"\n")
	if err := os.Chmod(filepath.Join(u.dir, "users"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.starts(t, offersSettings)
	dialer, err := client.New("socks5h://" + u.address)
	if err != nil {
		t.Fatal(err)
	}
	visit := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := dialer.DialContext(ctx, "tcp", "intranet:80")
		if err != nil {
			return err
		}
		defer c.Close()
		return errors.Join(c.SetDeadline(time.Now().Add(20*time.Second)), session{c}.exchange([]byte("hello")))
	}
	p := client.Publisher{
		Server: u.address, User: "bob", Auth: []ssh.AuthMethod{ssh.Password("secret")}, HostKey: ssh.InsecureIgnoreHostKey(),
		Services: []client.Service{{Name: "intranet", Port: 80, Target: fmt.Sprintf("127.0.0.1:%d", proxytest.Echo(t, "127.0.0.1").Port())}},
	}
	ctx, stop := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	publishing.Go(func() {
		if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("publish: %v", err)
		}
	})
	defer publishing.Wait()
	defer stop()
	for n := range 3 {
		proxytest.Eventually(t, fmt.Sprintf("a visitor is served after %d upgrades", n), func() bool { return visit() == nil })
		u.upgrades(n%2 == 0)
		before := u.processes()
		proxytest.Eventually(t, "the process before ends", func() bool { return u.ended(before[len(before)-2]) })
	}
	stop()
	u.stops()
}
