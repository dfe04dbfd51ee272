package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newHostKey() *cobra.Command {
	var src daemon.Source
	cmd := &cobra.Command{
		Use:   "hostkey",
		Short: "Print the host key that clients of ssh know the server by",
		Long: "Print the host key that clients of ssh know the server by: its fingerprint, and\n" +
			"the public key as it stands in a known_hosts file behind the name of the host. It\n" +
			"is made at the first start, or now.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := daemon.ShowHostKey(src)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n%s\n", key.Fingerprint, key.File, key.Public)
			return err
		},
	}
	cmd.Flags().StringVarP(&src.File, "config", "c", "", "the settings `FILE`")
	return cmd
}
