package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/client"
)

func newConnect() *cobra.Command {
	var proxy string
	cmd := &cobra.Command{
		Use:   "connect HOST PORT",
		Short: "Join standard input and output to a target through a proxy",
		Long: "Connect to HOST and PORT through a proxy and join standard input and output\n" +
			"to the connection. It ends when the target has closed its side.\n\n" +
			"The proxy is scheme://[user[:password]@]host[:port]. socks4 and socks5 look\n" +
			"names up here; socks4a, socks5h, http and https leave that to the proxy.\n" +
			"Several URLs with commas between are a chain, the last of which connects to\n" +
			"HOST. A password is safer in $ALL_PROXY than on the command line.\n\n" +
			"The certificate of an https proxy must be one that this system trusts. On Linux\n" +
			"and BSD $SSL_CERT_FILE names a file with other roots, such as the proxy's own.\n\n" +
			"ssh goes through a proxy with it:\n" +
			"  ssh -o ProxyCommand='sallyport connect --proxy socks5h://gw:1080 %h %p' HOST",
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, target []string) error {
			d, err := dialer(proxy)
			if err != nil {
				return err
			}
			if _, err := net.DefaultResolver.LookupPort(cmd.Context(), "tcp", target[1]); err != nil {
				return usageError{fmt.Errorf("%q is no port: write a number up to 65535, or the name of a service such as ssh", target[1])}
			}
			c, err := d.DialContext(cmd.Context(), "tcp", net.JoinHostPort(target[0], target[1]))
			if err != nil {
				return err
			}
			return join(c, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	proxyFlag(cmd, &proxy)
	return cmd
}

func proxyFlag(cmd *cobra.Command, proxy *string) {
	cmd.Flags().StringVar(proxy, "proxy", "", "the proxy's `URL`, or several with commas between; default: $ALL_PROXY")
}

// proxyOf is the proxy that the flag, or else the environment, names.
func proxyOf(flag string) (string, error) {
	for _, named := range []string{flag, os.Getenv("ALL_PROXY"), os.Getenv("all_proxy")} {
		if named != "" {
			return named, nil
		}
	}
	return "", usageError{errors.New("no proxy: name one with --proxy socks5h://host:1080, or in ALL_PROXY")}
}

// dialer makes the client for that.
func dialer(proxy string) (*client.Dialer, error) {
	proxy, err := proxyOf(proxy)
	if err != nil {
		return nil, err
	}
	d, err := client.New(proxy)
	if err != nil {
		return nil, usageError{err}
	}
	return d, nil
}

// join copies in to c and c to out, passing the ends on, and closes c. It
// returns when c has nothing more to say: input that nobody reads any more is
// not waited for.
func join(c net.Conn, in io.Reader, out io.Writer) error {
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, in)
		if half, ok := c.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	if _, err := io.Copy(out, c); err != nil {
		return err
	}
	select {
	case err := <-sent:
		return err
	default:
		return nil
	}
}
