package main

import (
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the settings file, for editors",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return daemon.WriteSchema(cmd.OutOrStdout())
		},
	}
}
