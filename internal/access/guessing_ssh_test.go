package access

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
)

// TestTenThousandGuessesOverSSH: as over any other protocol, they cost few hashes,
// and the user herself signs in from elsewhere meanwhile.
func TestTenThousandGuessesOverSSH(t *testing.T) {
	if testing.Short() {
		t.Skip("not under -short")
	}
	const guesses, perConnection, atOnce = 10_000, 5, 50
	hostKey := newHostKey(t)
	synctest.Test(t, func(t *testing.T) {
		p, hashed, _ := newTestPasswords(10 * time.Millisecond)
		p.log = slog.New(slog.DiscardHandler)
		p.policy = NewPolicy([]Rule{{Proofs: []server.Proof{server.Password}}}, Options{})
		d := serveSSH(t, p, hostKey)
		var left, right atomic.Int64
		left.Store(guesses)
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(func() { d.guess(&left, &right, perConnection) })
		}
		for range 20 {
			time.Sleep(5 * time.Second)
			began := time.Now()
			if err := d.signIn(home, "right"); err != nil || time.Since(began) > time.Second {
				t.Errorf("the user herself: %v, and it took %v", err, time.Since(began))
			}
		}
		wg.Wait()
		if right.Load() > 0 {
			t.Errorf("%d guessed right", right.Load())
		}
		if most := int64(guesses / 10); hashed.all > most { // all others were refused without a look
			t.Errorf("%d hashes, want at most %d", hashed.all, most)
		}
		d.end()
	})
}

func newHostKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sshDoor is a server in memory that alice signs in to.
type sshDoor struct {
	in   *proxytest.Listener
	end  func()
	port atomic.Uint32
}

func serveSSH(t *testing.T, a server.Authenticator, key ssh.Signer) *sshDoor {
	t.Helper()
	network := proxytest.NewNetwork(netip.MustParseAddr("127.0.0.1"), 64<<10)
	d := &sshDoor{in: network.MustListen("127.0.0.1:1080")}
	s := &server.Server{Authenticator: a, Outbound: network}
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(t.Context(), d.in, server.Listener{Protocols: []server.Protocol{server.SSH}, HostKey: key})
	}()
	d.end = func() {
		s.Close()
		<-served
	}
	return d
}

// guess goes on as long as guesses are left, and counts those that are right.
func (d *sshDoor) guess(left, right *atomic.Int64, perConnection int) {
	for left.Load() > 0 {
		var tries []string
		for range perConnection {
			tries = append(tries, fmt.Sprint("guess", left.Add(-1)))
		}
		if d.signIn(attacker, tries...) == nil {
			right.Add(1)
		}
	}
}

// signIn tries passwords, one after the other, on one connection.
func (d *sshDoor) signIn(from netip.Addr, passwords ...string) error {
	c, err := d.in.Dial(netip.AddrPortFrom(from, uint16(1+d.port.Add(1))))
	if err != nil {
		return err
	}
	defer c.Close()
	config, n := proxytest.SSHConfig("alice", ""), 0
	config.Auth = []ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
		n++
		return passwords[n-1], nil
	}), len(passwords))}
	conn, _, _, err := ssh.NewClientConn(c, "", config)
	if err != nil {
		return err
	}
	return conn.Close()
}
