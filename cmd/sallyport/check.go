package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a settings file: silence, or every fault with its place",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, files []string) error {
			if files[0] == "" {
				return usageError{errors.New("the name of the settings file is empty")}
			}
			return daemon.Check(files[0])
		},
	}
}
