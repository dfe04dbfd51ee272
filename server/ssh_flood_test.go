//go:build unix

package server

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// floods are what only makes work.
func floods() map[string]func(*ssh.Client) error {
	request := func(kind string, payload []byte) func(*ssh.Client) error {
		return func(c *ssh.Client) error {
			_, _, err := c.SendRequest(kind, true, payload)
			return err
		}
	}
	open := func(kind string, payload []byte) func(*ssh.Client) error {
		return func(c *ssh.Client) error {
			channel, requests, err := c.OpenChannel(kind, payload)
			if err == nil {
				go ssh.DiscardRequests(requests)
				_ = channel.Close() // fails only at the end
			}
			if _, refused := errors.AsType[*ssh.OpenChannelError](err); refused {
				return nil
			}
			return err
		}
	}
	intranet := ssh.Marshal(sshOffer{"intranet", 80})
	return map[string]func(*ssh.Client) error{
		"requests that nobody knows":      request("nonsense", nil),
		"requests for ports that are not": request("tcpip-forward", []byte("nonsense")),
		"offers that are taken back": func(c *ssh.Client) error {
			return errors.Join(request("tcpip-forward", intranet)(c), request("cancel-tcpip-forward", intranet)(c))
		},
		"channels that nobody knows":     open("x11", nil),
		"channels to what is no target":  open("direct-tcpip", []byte("nonsense")),
		"channels to what is refused":    open("direct-tcpip", ssh.Marshal(sshForward{Host: targetAt.Addr().String(), Port: 81})),
		"offers of datagrams, refused":   open("datagrams@sallyport.github.io", []byte("nonsense")),
		"offers of datagrams, withdrawn": open("datagrams@sallyport.github.io", intranet),
		"requests of a session": func(c *ssh.Client) error {
			channel, _, err := c.OpenChannel("session", nil)
			for i := 0; i < 100 && err == nil; i++ {
				_, err = channel.SendRequest("env", true, nil)
			}
			return err
		},
	}
}

// TestFloodOverSSH ends the connection.
func TestFloodOverSSH(t *testing.T) {
	for name, once := range floods() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { isSentAway(t, once) })
		})
	}
}

// isSentAway fails the test unless a client that does that again and again loses its
// connection, and nothing of it stays.
func isSentAway(t *testing.T, once func(*ssh.Client) error) {
	t.Helper()
	r := newIntranet(t)
	client := signIn(t, r.client())
	var err error
	rounds := 0
	for ; rounds < 2*wasteBurst && err == nil; rounds++ {
		err = once(client)
	}
	if err == nil || client.Wait() == nil {
		t.Fatalf("after %d rounds the connection is still there", rounds)
	}
	if rounds > wasteBurst+10 { // what is refused in a goroutine is counted a moment later
		t.Errorf("it took %d rounds", rounds)
	}
	if e := <-r.ends; e.Protocol != SSH || e.Identity.Name != "fred" {
		t.Errorf("the first record says %+v", e.Record)
	}
	synctest.Wait()
	if got := len(r.server.Sessions()); got > 0 {
		t.Errorf("%d sessions are open", got)
	}
}

// rekeying is a client that exchanges keys after so many bytes.
func rekeying(tb testing.TB, c net.Conn, every uint64) *ssh.Client {
	tb.Helper()
	config := proxytest.SSHConfig("fred", "secret")
	config.RekeyThreshold = every
	conn, channels, requests, err := ssh.NewClientConn(c, "", config)
	if err != nil {
		tb.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	tb.Cleanup(func() { client.Close() })
	return client
}

// TestRekeyFlood: who does nothing but exchange keys is sent away soon; who does it all
// the time while much is moved, or now and then, is not.
func TestRekeyFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		target := r.network.MustListen(targetAt.String())
		flood := rekeying(t, r.client(), 256)
		rounds := 0
		for err := error(nil); err == nil && rounds < 10_000; rounds++ {
			_, _, err = flood.SendRequest("keepalive@openssh.com", true, make([]byte, 200))
		}
		if rounds > 2000 { // several go by while keys are exchanged, more on a busy machine
			t.Errorf("%d times", rounds)
		}
		if e := r.next(BadRequest); e.Protocol != SSH {
			t.Errorf("the record says %+v", e.Record)
		}

		much := rekeying(t, r.client(), 256<<10)
		c, err := much.Dial("tcp", targetAt.String())
		if err != nil {
			t.Fatal(err)
		}
		far := r.next4(target)
		go func() { _, _ = c.Write(make([]byte, 16<<20)) }() // what goes wrong the other side sees
		if _, err := io.CopyN(io.Discard, far, 16<<20); err != nil {
			t.Errorf("while much is moved: %v", err)
		}
		patient := rekeying(t, r.client(), 256)
		for range 100 {
			time.Sleep(3 * time.Second)
			if _, _, err := patient.SendRequest("keepalive@openssh.com", true, make([]byte, 200)); err != nil {
				t.Fatalf("now and then: %v", err)
			}
		}
	})
}

// TestSignsOfLifeAreFree: as many as a client likes, each answered, and nothing stays of
// them.
func TestSignsOfLifeAreFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		client := signIn(t, r.client())
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 10 * wasteBurst {
			if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before {
			t.Errorf("%d goroutines before, %d after", before, now)
		}
	})
}
