package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/client"
)

func newListen() *cobra.Command {
	var proxy string
	cmd := &cobra.Command{
		Use:   "listen [HOST [PORT]]",
		Short: "Wait for one connection on a proxy's port (BIND), and join it to standard input and output",
		Long: "Ask a proxy to wait for a connection from HOST (BIND), print the address that\n" +
			"HOST is to connect to on standard error, and join standard input and output to\n" +
			"the connection that comes.\n\n" +
			"PORT is that of the primary connection, which most proxies want to be open at\n" +
			"the same time (see 'sallyport connect'). Without HOST anybody may connect, if\n" +
			"the proxy's rules say so.\n\n" +
			"The proxy, or the last of a chain, must be for SOCKS: socks4://, socks4a://,\n" +
			"socks5:// or socks5h://, as for 'sallyport connect'.",
		Args: args(cobra.RangeArgs(0, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := dialer(proxy)
			if err != nil {
				return err
			}
			peer := append(append([]string{}, given...), []string{"0.0.0.0", "0"}[len(given):]...)
			c, err := listenFor(cmd.Context(), d, net.JoinHostPort(peer[0], peer[1]), func(at net.Addr) {
				fmt.Fprintln(cmd.ErrOrStderr(), "listening on", at)
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "connected from", c.RemoteAddr())
			return join(c, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	proxyFlag(cmd, &proxy)
	return cmd
}

// listenFor asks the proxy for a BIND and returns the one connection it brings.
func listenFor(ctx context.Context, d *client.Dialer, peer string, say func(net.Addr)) (net.Conn, error) {
	ln, err := d.Listen(ctx, "tcp", peer)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	say(ln.Addr())
	return ln.Accept()
}
