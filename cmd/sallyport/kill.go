package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newKill() *cobra.Command {
	var remote daemon.Remote
	cmd := &cobra.Command{
		Use:   "kill SESSION ...",
		Short: "End sessions of the running server",
		Long: "End sessions of the running server, by the numbers that `sallyport top` shows and\n" +
			"that are the id of the log. Their reason is `ended`. A client may come again: what is\n" +
			"to stay shut belongs into the rules, and users are disabled by `sallyport user disable`.",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := checkRemote(cmd, remote); err != nil {
				return err
			}
			var ids []uint64
			for _, text := range given {
				id, err := strconv.ParseUint(text, 10, 64)
				if err != nil {
					return usageError{fmt.Errorf("%q is no number of a session", text)}
				}
				ids = append(ids, id)
			}
			watch, err := remote.Watch()
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := watch.EndSession(cmd.Context(), id); err != nil {
					return fmt.Errorf("session %d: %w", id, err)
				}
			}
			return nil
		},
	}
	remoteFlags(cmd, &remote)
	return cmd
}
