package limits_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// overSSH are the ways of a session that go by a channel of SSH, in either direction:
// each returns who asks, and who is reached. A session that waits is begun before.
func overSSH() map[string]func(r *rig, c *ssh.Client) (client, far io.ReadWriter, err error) {
	return map[string]func(r *rig, c *ssh.Client) (client, far io.ReadWriter, err error){
		"direct-tcpip": func(r *rig, c *ssh.Client) (client, far io.ReadWriter, err error) {
			if client, err = c.Dial("tcp", targetAt.String()); err != nil {
				return nil, nil, err
			}
			return client, r.far(), nil
		},
		"a visitor": func(r *rig, c *ssh.Client) (client, far io.ReadWriter, err error) {
			visitors := c.HandleChannelOpen("forwarded-tcpip")
			if visitors != nil { // the first time
				ok, _, err := c.SendRequest("tcpip-forward", true, ssh.Marshal(struct {
					Host string
					Port uint32
				}{"intranet", 80}))
				if !ok || err != nil {
					r.Fatalf("the offer: %v, %v", ok, err)
				}
			}
			visitor := r.asks(slices.Concat(proxytest.Greeting5(socks.NoAuth), []byte("\x05\x01\x00\x03\x08intranet\x00\x50")))
			accepted := make(chan ssh.Channel, 1)
			go func() {
				if one, more := <-visitors; more {
					channel, requests, err := one.Accept()
					if err == nil {
						go ssh.DiscardRequests(requests)
						accepted <- channel
					}
				}
			}()
			granted, err := proxytest.SOCKS5("", "").Answer(visitor)
			if err != nil {
				r.Fatal(err)
			}
			if !granted {
				return nil, nil, errors.New("the virtual port was refused (quota)")
			}
			return visitor, <-accepted, nil
		},
	}
}

// inSSH is in with a server that speaks SSH, and a client of it.
func inSSH(t *testing.T, all map[string]limits.Limit, test func(r *rig, c *ssh.Client)) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRigOf(t, all, server.Listener{Name: "door", Protocols: []server.Protocol{server.SOCKS5, server.SSH}, HostKey: key})
		test(r, r.ssh())
	})
}

// ssh is a client of SSH.
func (r *rig) ssh() *ssh.Client {
	r.Helper()
	conn, channels, requests, err := ssh.NewClientConn(r.asks(nil), "", proxytest.SSHConfig("bob", ""))
	if err != nil {
		r.Fatal(err)
	}
	c := ssh.NewClient(conn, channels, requests)
	r.Cleanup(func() { c.Close() })
	return c
}

// TestRatesOverSSH: they hold in both directions, and are changed while bytes run.
func TestRatesOverSSH(t *testing.T) {
	const size = 1 << 20
	for name, open := range overSSH() {
		for _, way := range []string{"up", "down"} {
			t.Run(name+", "+way, func(t *testing.T) {
				rate := limits.Limit{Per: limits.Source, Up: 800_000, Down: 800_000}
				inSSH(t, map[string]limits.Limit{"rate": rate}, func(r *rig, c *ssh.Client) {
					from, to, err := open(r, c)
					if err != nil {
						t.Fatal(err)
					}
					if way == "down" {
						from, to = to, from
					}
					go func() { _, _ = from.Write(make([]byte, size)) }() // what went wrong the other side sees
					wantIn(t, to, size/2, time.Now(), 5240*time.Millisecond)
					rate.Up, rate.Down = 8_000_000, 8_000_000
					r.table.Set(map[string]limits.Limit{"rate": rate})
					wantIn(t, to, size/2, time.Now(), 500*time.Millisecond)
				})
			})
		}
	}
}

// TestQuotasOverSSH: what was moved is what the quota allows, to the byte; then all that
// count towards it end, and nobody else is let in until it begins anew.
func TestQuotasOverSSH(t *testing.T) {
	const quota = 100_000
	daily := map[string]limits.Limit{"quota": {Per: limits.Source, Quota: quota, Every: limits.Every{Unit: limits.Day}}}
	for name, open := range overSSH() {
		t.Run(name, func(t *testing.T) {
			inSSH(t, daily, func(r *rig, c *ssh.Client) {
				r.usesUp(c, open, quota)
			})
		})
	}
}

// usesUp begins a session and has it use up a quota, beside one that waits.
func (r *rig) usesUp(c *ssh.Client, open func(*rig, *ssh.Client) (client, far io.ReadWriter, err error), quota int64) {
	r.Helper()
	waits, _, err := overSSH()["direct-tcpip"](r, c)
	if err != nil {
		r.Fatal(err)
	}
	client, far, err := open(r, c)
	if err != nil {
		r.Fatal(err)
	}
	go func() { _, _ = far.Write(make([]byte, 1<<20)) }() // it is cut
	var came bytes.Buffer
	_, _ = io.Copy(&came, client) // SSH has no word for a reset
	r.wantEnd(server.Quota)
	r.wantEnd(server.Quota) // of the one that waits
	if n, _ := waits.Read(make([]byte, 1)); n > 0 {
		r.Error("something came to who waits")
	}
	if moved := r.moved.Load(); moved < quota || moved > quota+1 || int64(came.Len()) > moved {
		r.Errorf("%d bytes were moved and %d came, the quota is %d", moved, came.Len(), quota)
	}
	if _, err := c.Dial("tcp", targetAt.String()); err == nil || !strings.Contains(err.Error(), "(quota)") {
		r.Errorf("who comes then: %v", err)
	}
	r.wantEnd(server.Quota)
	time.Sleep(24 * time.Hour)
	if _, _, err := overSSH()["direct-tcpip"](r, r.ssh()); err != nil {
		r.Errorf("the next day: %v", err)
	}
}
