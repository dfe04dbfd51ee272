package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentPatience is for how long an ssh agent may take, which may ask its user.
const agentPatience = 30 * time.Second

// agentKeys returns the keys that an ssh agent has. It is reached anew for each signature:
// nobody tells when signing in is over.
func agentKeys(socket string) (keys []ssh.Signer, err error) {
	err = askAgent(socket, func(all []ssh.Signer) error {
		for _, one := range all {
			keys = append(keys, agentKey{socket, one.PublicKey()})
		}
		return nil
	})
	return keys, err
}

// askAgent calls ask with the keys that an agent has, which are good until it returns.
func askAgent(socket string, ask func([]ssh.Signer) error) error {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(agentPatience)); err != nil {
		return err
	}
	all, err := agent.NewClient(c).Signers()
	if err != nil {
		return err
	}
	return ask(all)
}

// agentKey is a key that an agent signs with.
type agentKey struct {
	socket string
	public ssh.PublicKey
}

// PublicKey implements [ssh.Signer].
func (k agentKey) PublicKey() ssh.PublicKey { return k.public }

// Sign implements [ssh.Signer].
func (k agentKey) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(random, data, "")
}

// SignWithAlgorithm implements [ssh.AlgorithmSigner].
func (k agentKey) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (signature *ssh.Signature, err error) {
	err = askAgent(k.socket, func(all []ssh.Signer) error {
		for _, one := range all {
			if by, ok := one.(ssh.AlgorithmSigner); ok && bytes.Equal(one.PublicKey().Marshal(), k.public.Marshal()) {
				signature, err = by.SignWithAlgorithm(random, data, algorithm)
				return err
			}
		}
		return errors.New("the ssh agent does not have the key any more")
	})
	return signature, err
}
