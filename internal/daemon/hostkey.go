package daemon

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/internal/regular"
	"github.com/sallyport/sallyport/server"
)

// HostKey is what clients of ssh know a server by.
type HostKey struct {
	File        string
	Fingerprint string // SHA256: and base64, as ssh shows it
	Public      string // as it stands in a known_hosts file, behind the name of the host
}

// ShowHostKey returns the host key of the server that the settings describe. One
// that is not there yet is made, as the server would.
func ShowHostKey(src Source) (HostKey, error) {
	s, err := src.load()
	if err != nil {
		return HostKey{}, err
	}
	path, err := hostKeyPath(s)
	if err != nil {
		return HostKey{}, err
	}
	key, err := openHostKey(path)
	if err != nil {
		return HostKey{}, err
	}
	public := ssh.MarshalAuthorizedKey(key.PublicKey())
	return HostKey{path, ssh.FingerprintSHA256(key.PublicKey()), string(public[:len(public)-1])}, nil
}

// hostKeyOf returns the host key where a listener speaks ssh, else nil.
func hostKeyOf(s *config.Settings) (ssh.Signer, error) {
	speaks := func(l config.Listener) bool { return slices.Contains(l.Protocols, string(server.SSH)) }
	if !slices.ContainsFunc(s.Listeners, speaks) {
		return nil, nil
	}
	path, err := hostKeyPath(s)
	if err != nil {
		return nil, err
	}
	return openHostKey(path)
}

func hostKeyPath(s *config.Settings) (string, error) {
	if s.SSH.HostKey != "" {
		return s.SSH.HostKey, nil
	}
	usual := ledger.DefaultPath()
	if usual == "" {
		return "", errors.New("this system has no folder for the host key: write `ssh: {host_key: FILE}`")
	}
	folder := filepath.Dir(usual)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("the folder of the host key: %w; `ssh: {host_key: FILE}` names another place", err)
	}
	return filepath.Join(folder, "host_key"), nil
}

// openHostKey reads a private key, or makes one.
func openHostKey(path string) (ssh.Signer, error) {
	key, err := readHostKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeHostKey(path); err == nil || errors.Is(err, fs.ErrExist) { // somebody else has made it just now
			key, err = readHostKey(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the host key %s: %w", path, err)
	}
	return key, nil
}

func readHostKey(path string) (ssh.Signer, error) {
	text, _, err := regular.Read(path, maxPEM, func(info fs.FileInfo) error {
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 { // the group is the service's, of what `service install` has found
			return fmt.Errorf("others than the owner and the group may read it; try: chmod 600 %s", path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, errors.New("it holds no private key that can be read without a passphrase") // without err: it could quote it
	}
	return key, nil
}

// makeHostKey writes a new key. It fails with fs.ErrExist where there is one, and
// leaves no part of one.
func makeHostKey(path string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "sallyport host key")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".host_key-*") // for its owner only
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // what stays of it is no key of anybody's
	_, err = f.Write(pem.EncodeToMemory(block))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// giveHostKey lets the doors that speak ssh show a key.
func giveHostKey(doors []*door, key ssh.Signer) {
	for _, d := range doors {
		d.listener.HostKey = key
	}
}
