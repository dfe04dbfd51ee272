package main

import (
	"errors"

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
			for _, flag := range []string{"config", "socket"} {
				if f := cmd.Flags().Lookup(flag); f.Changed && f.Value.String() == "" {
					return usageError{errors.New("--" + flag + " needs the name of a file")}
				}
			}
			if remote.File != "" && remote.Socket != "" {
				return usageError{errors.New("--config and --socket exclude each other: either says where the server is")}
			}
			return remote.Reload(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&remote.File, "config", "c", "", "the settings `FILE` of the server, which may name its admin socket")
	cmd.Flags().StringVar(&remote.Socket, "socket", "", "the server's admin socket `PATH`")
	return cmd
}
