//go:build unix

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// servesAgent is an ssh agent on a socket with these private keys. end waits until nobody
// is connected to it any more.
func servesAgent(t *testing.T, private ...any) (socket string, keys agent.Agent, end func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // short enough for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, keys = filepath.Join(dir, "s"), agent.NewKeyring()
	for _, key := range private {
		if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			served.Go(func() {
				defer c.Close()
				_ = agent.ServeAgent(keys, c) // its end is that of the connection
			})
		}
	})
	return socket, keys, func() {
		ln.Close()
		served.Wait()
	}
}

// signsInTo signs in to a server of SSH that lets these keys in; the answer is how that went.
func signsInTo(t *testing.T, auth []ssh.AuthMethod, allowed ...ssh.PublicKey) error {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	c := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		for _, one := range allowed {
			if string(one.Marshal()) == string(key.Marshal()) {
				return &ssh.Permissions{}, nil
			}
		}
		return nil, errors.New("another key")
	}}
	c.AddHostKey(host)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near := proxytest.Dial(t, ln.Addr().String())
	served := make(chan struct{})
	go func() {
		defer close(served)
		far, err := ln.Accept()
		if err != nil {
			return
		}
		defer far.Close()
		conn, channels, requests, err := ssh.NewServerConn(far, c)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for range channels {
		}
		conn.Close()
	}()
	conn, channels, requests, err := ssh.NewClientConn(near, "gw:1080", &ssh.ClientConfig{User: "bob", Auth: auth, HostKeyCallback: ssh.FixedHostKey(host.PublicKey())})
	if err == nil {
		err = ssh.NewClient(conn, channels, requests).Close()
	}
	near.Close()
	<-served
	return err
}

// TestSignsInByAgent: a key that an ssh agent keeps signs in, as often as it is to, and the
// agent is left alone in between.
func TestSignsInByAgent(t *testing.T) {
	_, short, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	socket, keys, end := servesAgent(t, short, long)
	t.Setenv("SSH_AUTH_SOCK", socket)
	t.Setenv("HOME", t.TempDir())
	auth, err := (&publishFlags{}).auth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var public []ssh.PublicKey
	for _, private := range []any{short, long} {
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		public = append(public, signer.PublicKey())
		for range 2 {
			if err := signsInTo(t, auth, signer.PublicKey()); err != nil {
				t.Errorf("by %s: %v", signer.PublicKey().Type(), err)
			}
		}
	}
	known, err := agentKeys(t.Context(), socket)
	if err != nil || len(known) != 2 {
		t.Fatalf("%d keys, %v", len(known), err)
	}
	if err := keys.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := known[0].Sign(rand.Reader, []byte("hello")); err == nil {
		t.Error("a key that the agent has no more signs")
	}
	if err := signsInTo(t, auth, public...); err == nil {
		t.Error("without a key one signs in")
	}
	end() // nobody is connected any more
	if _, err := agentKeys(t.Context(), socket); err == nil {
		t.Error("an agent that is gone has keys")
	}
}

// TestAgentThatHangs: an ssh agent that does not answer keeps nobody who is to stop.
func TestAgentThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err := agentKeys(ctx, path)
		ended <- err
	}()
	silent, err := socket.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := io.ReadFull(silent, make([]byte, 5)); err != nil { // it is asked
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err == nil {
		t.Error("an agent that says nothing has keys")
	}
}
