package main

import (
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newReload() *cobra.Command {
	var remote daemon.Remote
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the running server read its settings anew",
		Long: "Have the running server read its settings anew, as HUP does, and say how that\n" +
			"went: with faults in them it keeps those before, and they are shown here as\n" +
			"'sallyport check' shows them.\n\n" +
			"The server is reached by its admin socket: the usual one, or what --config or\n" +
			"--socket names.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRemote(remote); err != nil {
				return err
			}
			return remote.Reload(cmd.Context())
		},
	}
	remoteFlags(cmd, &remote)
	return cmd
}
