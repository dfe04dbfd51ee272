package main

import (
	"errors"
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
			if err := checkRemote(remote); err != nil {
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
			watch, err := remote.Watch(cmd.Context())
			if err != nil {
				return err
			}
			var faults []error
			for _, id := range ids { // one that has ended by itself meanwhile keeps none of the others
				err := watch.EndSession(cmd.Context(), id)
				if errors.Is(err, daemon.ErrNobody) {
					return err
				}
				if err != nil {
					faults = append(faults, fmt.Errorf("session %d: %w", id, err))
				}
			}
			return errors.Join(faults...)
		},
	}
	remoteFlags(cmd, &remote)
	return cmd
}
