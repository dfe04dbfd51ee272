package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newUpgrade() *cobra.Command {
	var remote daemon.Remote
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have the installed program take the running server's place, without downtime",
		Long: "Have the program that is installed where the running server's was take its place,\n" +
			"as USR2 does: it gets the listening sockets, reads the settings, and serves. The\n" +
			"server of before then takes no new clients and ends with its last session, or\n" +
			"after timeouts.upgrade. Where the new one does not come to serve, nothing happens,\n" +
			"and why is said here.\n\n" +
			"The server is reached by its admin socket: the usual one, or what --config or\n" +
			"--socket names.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRemote(remote); err != nil {
				return err
			}
			done, err := remote.Upgrade(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "process %d serves; process %d has %d sessions left, and ends with the last\n", done.PID, done.Before, done.Sessions)
			return nil
		},
	}
	remoteFlags(cmd, &remote)
	return cmd
}
