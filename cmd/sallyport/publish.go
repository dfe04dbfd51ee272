package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sallyport/sallyport/client"
)

// publishFlags are the words of the command line.
type publishFlags struct {
	server, proxy, passwordFile, knownHosts, fingerprint string

	identities []string
}

func newPublish() *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish NAME=HOST:PORT ...",
		Short: "Offer a service that this machine can reach as a virtual port of a server",
		Long: "Offer services that this machine can reach as virtual ports of a server, until TERM\n" +
			"or INT arrives: what `ssh -N -R NAME:PORT:HOST:PORT` does, but that a connection which\n" +
			"ends is made again, and a reset arrives as a reset. NAME:PORT in the place of NAME\n" +
			"offers it under another port than that of the service, and udp/HOST:PORT is a service\n" +
			"of datagrams.\n\n" +
			"The server is ssh://[user@]host[:port], and 1080 the port that is not written. Who\n" +
			"signs in shows a key of --identity or of the ssh agent, else of ~/.ssh, or the password\n" +
			"in --password-file. The server is known by --fingerprint (what `sallyport hostkey`\n" +
			"prints there), or else by the known_hosts file of ssh.\n\n" +
			"  sallyport publish intranet=localhost:80 --server ssh://bob@gw.example.com:1080",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, services []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			p, err := f.publisher(ctx, services)
			if err != nil {
				return err
			}
			p.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if err := p.Run(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.server, "server", "", "the server's `URL`: ssh://[user@]host[:port]")
	flags.StringVar(&f.proxy, "proxy", "", "reach it through the proxy of this `URL`, or several with commas between")
	flags.StringArrayVarP(&f.identities, "identity", "i", nil, "sign in with the private key in this `FILE`; may be repeated")
	flags.StringVar(&f.passwordFile, "password-file", "", "sign in with the password in this `FILE`, one line")
	flags.StringVar(&f.knownHosts, "known-hosts", "", "the `FILE` with the keys of known servers; default: ~/.ssh/known_hosts")
	flags.StringVar(&f.fingerprint, "fingerprint", "", "the server's key has this `FINGERPRINT`: SHA256:...")
	return cmd
}

// publisher takes the flags for what they mean. What it asks for as it signs in, it asks
// until ctx ends.
func (f *publishFlags) publisher(ctx context.Context, services []string) (*client.Publisher, error) {
	p := &client.Publisher{}
	for _, text := range services {
		s, err := client.ParseService(text)
		if err != nil {
			return nil, usageError{err}
		}
		p.Services = append(p.Services, s)
	}
	var err error
	if p.Server, p.User, err = parseServer(f.server); err != nil {
		return nil, usageError{err}
	}
	if f.proxy != "" {
		d, err := dialer(f.proxy)
		if err != nil {
			return nil, err
		}
		p.Dial = d.DialContext
	}
	if p.HostKey, err = f.hostKey(); err != nil {
		return nil, err
	}
	p.Auth, err = f.auth(ctx)
	return p, err
}

// parseServer takes the URL of a server apart.
func parseServer(text string) (address, name string, err error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return "", "", errors.New("which server? --server ssh://user@host:1080")
	case err != nil, u.Scheme != "ssh", u.Hostname() == "", strings.Trim(u.Path, "/") != "":
		return "", "", errors.New("--server: expected ssh://[user@]host[:port]") // without it: it may hold a password
	}
	if _, secret := u.User.Password(); secret {
		return "", "", errors.New("--server: a password does not belong on a command line, where others can read it; --password-file names a file")
	}
	port := u.Port()
	if port == "" {
		port = "1080"
	}
	if name = u.User.Username(); name == "" {
		me, err := user.Current()
		if err != nil {
			return "", "", fmt.Errorf("--server: say as whom, ssh://user@host: %w", err)
		}
		name = me.Username
	}
	return net.JoinHostPort(u.Hostname(), port), name, nil
}

// hostKey returns what tells the right server from others.
func (f *publishFlags) hostKey() (ssh.HostKeyCallback, error) {
	if f.fingerprint != "" {
		return func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if got := ssh.FingerprintSHA256(key); got != f.fingerprint {
				return fmt.Errorf("another server answers: its key has the fingerprint %s", got)
			}
			return nil
		}, nil
	}
	file := f.knownHosts
	if file == "" {
		file = inSSHFolder("known_hosts")
	}
	known, err := knownhosts.New(file)
	if err != nil {
		return nil, fmt.Errorf("no server is known: %w; --fingerprint says which one is meant", err)
	}
	return func(host string, at net.Addr, key ssh.PublicKey) error {
		err := known(host, at, key)
		if unknown, ok := errors.AsType[*knownhosts.KeyError](err); ok && len(unknown.Want) == 0 {
			return fmt.Errorf("the server is not in %s; if its fingerprint is right, say --fingerprint %s", file, ssh.FingerprintSHA256(key))
		}
		return err
	}, nil
}

// auth returns what there is to sign in with.
func (f *publishFlags) auth(ctx context.Context) ([]ssh.AuthMethod, error) {
	var methods []ssh.AuthMethod
	keys, err := f.keys()
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		methods = append(methods, ssh.PublicKeys(keys...))
	}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" && len(f.identities) == 0 {
		methods = append(methods, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return agentKeys(ctx, socket) }))
	}
	if f.passwordFile != "" {
		text, err := os.ReadFile(f.passwordFile)
		if err != nil {
			return nil, err
		}
		methods = append(methods, ssh.Password(strings.TrimRight(string(text), "\r\n")))
	}
	return methods, nil
}

// keys reads the private keys that are named, or else the usual ones.
func (f *publishFlags) keys() ([]ssh.Signer, error) {
	if len(f.identities) > 0 {
		var all []ssh.Signer
		for _, file := range f.identities {
			key, err := readPrivateKey(file)
			if err != nil {
				return nil, err
			}
			all = append(all, key)
		}
		return all, nil
	}
	var all []ssh.Signer
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		if key, err := readPrivateKey(inSSHFolder(name)); err == nil {
			all = append(all, key)
		}
	}
	return all, nil
}

func readPrivateKey(file string) (ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, fmt.Errorf("the key in %s has a passphrase: give it to an ssh agent", file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key", file) // without err: it could quote it
	}
	return key, nil
}

// inSSHFolder is where ssh has a file of the user's.
func inSSHFolder(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return name
	}
	return filepath.Join(home, ".ssh", name)
}
