package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentPatience is for how long an ssh agent may take, which may ask its user.
const agentPatience = 30 * time.Second

// agentKeys returns the keys that an ssh agent has. It is reached anew for each signature:
// nobody tells when signing in is over. Nobody waits for it any more when ctx has ended.
func agentKeys(ctx context.Context, socket string) (keys []ssh.Signer, err error) {
	ask := func(use func([]ssh.Signer) error) error { return askAgent(ctx, socket, use) }
	err = ask(func(all []ssh.Signer) error {
		for _, one := range all {
			keys = append(keys, agentKey{ask, one.PublicKey()})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the ssh agent does not name its keys: %w", err)
	}
	return keys, nil
}

// askAgent calls use with the keys that an agent has, which are good until it returns.
func askAgent(ctx context.Context, socket string, use func([]ssh.Signer) error) error {
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	all, err := agent.NewClient(c).Signers()
	if err != nil {
		return err
	}
	return use(all)
}

// agentKey is a key that an agent signs with.
type agentKey struct {
	ask    func(use func([]ssh.Signer) error) error
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
	err = k.ask(func(all []ssh.Signer) error {
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
