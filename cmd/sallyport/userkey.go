package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newUserKey(users *daemon.Users) *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use:   "key NAME [PUBLIC-KEY-FILE]",
		Short: "Give a user a public key to sign in with over ssh; without a file, print the user's",
		Long: "Give a user a public key to sign in with over ssh: the content of a file such as\n" +
			"~/.ssh/id_ed25519.pub (\"-\": standard input). Without a file the keys that the user\n" +
			"has are printed, by their fingerprints. With --remove the key is taken away; then a\n" +
			"fingerprint will do in the place of a file. Keys are kept beside the users file, in\n" +
			"FILE.keys, or in the ledger that has the users; those of a user who is removed go, too.",
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			switch {
			case len(given) == 1 && remove:
				return usageError{errors.New("which key? name its file, or its fingerprint")}
			case len(given) == 1:
				return listKeys(cmd.Context(), users, name, cmd.OutOrStdout())
			case remove:
				fingerprint, err := fingerprintOf(cmd.InOrStdin(), given[1])
				if err != nil {
					return err
				}
				return about(name, users, users.RemoveKey(cmd.Context(), name, fingerprint))
			}
			key, err := readKeyFile(cmd.InOrStdin(), given[1])
			if err != nil {
				return err
			}
			return about(name, users, users.AddKey(cmd.Context(), name, key))
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "take the key away")
	return cmd
}

// listKeys prints the keys of a user.
func listKeys(ctx context.Context, users *daemon.Users, name string, out io.Writer) error {
	there, err := users.Has(ctx, name)
	if err == nil && !there {
		err = daemon.ErrNoUser
	}
	if err != nil {
		return about(name, users, err)
	}
	keys, err := users.Keys(ctx, name)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintln(&b, strings.TrimSpace(k.Fingerprint+" "+k.Type+" "+k.Comment))
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// fingerprintOf returns the fingerprint of the key in a file, or what is one.
func fingerprintOf(in io.Reader, given string) (string, error) {
	if strings.HasPrefix(given, "SHA256:") {
		return given, nil
	}
	key, err := readKeyFile(in, given)
	if err != nil {
		return "", err
	}
	return daemon.KeyFingerprint(key)
}

// readKeyFile returns the one line of a file.
func readKeyFile(in io.Reader, name string) (string, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	const most = 64 << 10 // bytes; far over what a key has
	text, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(text))
	if strings.Contains(key, "PRIVATE KEY") {
		return "", fmt.Errorf("%s is a private key, which is nobody's business: the public one is in %s.pub", name, name)
	}
	if strings.ContainsAny(key, "\r\n") {
		return "", fmt.Errorf("%s holds more than one line", name)
	}
	return key, nil
}
