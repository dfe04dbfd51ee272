package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

// remoteFlags have a command say where the server is.
func remoteFlags(cmd *cobra.Command, to *daemon.Remote) {
	cmd.Flags().StringVarP(&to.File, "config", "c", "", "the settings `FILE` of the server, which may name its admin socket and its ledger")
	cmd.Flags().StringVar(&to.Socket, "socket", "", "the server's admin socket `PATH`")
}

// checkRemote looks at what they say.
func checkRemote(r daemon.Remote) error {
	if r.File != "" && r.Socket != "" {
		return usageError{errors.New("--config and --socket exclude each other: either says where the server is")}
	}
	return nil
}
