package server

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Bounds of exchanges of keys on one connection. A client may ask for one whenever it
// likes (RFC 4253, section 9), and each costs as much as many kilobytes: so it has to be
// earned, by time or by what was moved.
const (
	rekeyBurst = 20.0
	rekeyRate  = 1.0      // a second
	rekeyBytes = 64 << 10 // moved, for one more
)

// rekeys counts the exchanges of keys of a connection.
type rekeys struct {
	conn *sshConn

	mu    sync.Mutex
	left  float64
	at    time.Time // when that was so
	moved int64     // and how many bytes the connection had moved by then
}

// allow counts one more, and ends the connection where there are too many.
func (r *rekeys) allow() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, moved := time.Now(), r.conn.wire.moved.Load()
	earned := now.Sub(r.at).Seconds()*rekeyRate + float64(moved-r.moved)/rekeyBytes
	r.left, r.at, r.moved = min(rekeyBurst, r.left+earned), now, moved
	if r.left < 1 {
		err := fmt.Errorf("%w: keys are exchanged too often over SSH", BadRequest)
		r.conn.end(err)
		return err
	}
	r.left--
	return nil
}

// counted returns the server's key for a connection of which the exchanges are counted:
// each of them is signed. It can do what key can.
func (r *rekeys) counted(key ssh.Signer) ssh.Signer {
	c := countedKey{key, r}
	switch k := key.(type) {
	case ssh.MultiAlgorithmSigner:
		return multiCountedKey{algorithmCountedKey{c, k}, k}
	case ssh.AlgorithmSigner:
		return algorithmCountedKey{c, k}
	}
	return c
}

type countedKey struct {
	ssh.Signer
	rekeys *rekeys
}

// Sign implements [ssh.Signer].
func (k countedKey) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	if err := k.rekeys.allow(); err != nil {
		return nil, err
	}
	return k.Signer.Sign(rand, data)
}

type algorithmCountedKey struct {
	countedKey
	algorithms ssh.AlgorithmSigner
}

// SignWithAlgorithm implements [ssh.AlgorithmSigner].
func (k algorithmCountedKey) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if err := k.rekeys.allow(); err != nil {
		return nil, err
	}
	return k.algorithms.SignWithAlgorithm(rand, data, algorithm)
}

type multiCountedKey struct {
	algorithmCountedKey
	multi ssh.MultiAlgorithmSigner
}

// Algorithms implements [ssh.MultiAlgorithmSigner].
func (k multiCountedKey) Algorithms() []string { return k.multi.Algorithms() }
