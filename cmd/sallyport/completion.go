package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// completion adds what shells need for the tab key.
func completion(root *cobra.Command) {
	root.CompletionOptions.DisableDefaultCmd = true
	shells := map[string]func(*cobra.Command) error{
		"bash":       func(cmd *cobra.Command) error { return root.GenBashCompletionV2(cmd.OutOrStdout(), true) },
		"zsh":        func(cmd *cobra.Command) error { return root.GenZshCompletion(cmd.OutOrStdout()) },
		"fish":       func(cmd *cobra.Command) error { return root.GenFishCompletion(cmd.OutOrStdout(), true) },
		"powershell": func(cmd *cobra.Command) error { return root.GenPowerShellCompletionWithDesc(cmd.OutOrStdout()) },
	}
	names := []string{"bash", "zsh", "fish", "powershell"}
	root.AddCommand(&cobra.Command{
		Use:   "completion SHELL",
		Short: "What a shell needs to complete commands: " + strings.Join(names, ", "),
		Long: "Print what a shell needs to complete sallyport's commands and flags by the tab key.\n\n" +
			"  bash         sallyport completion bash > /etc/bash_completion.d/sallyport\n" +
			"  zsh          sallyport completion zsh > \"${fpath[1]}/_sallyport\"\n" +
			"  fish         sallyport completion fish > ~/.config/fish/completions/sallyport.fish\n" +
			"  powershell   sallyport completion powershell | Out-String | Invoke-Expression",
		ValidArgs: names,
		Args:      args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			write, ok := shells[given[0]]
			if !ok {
				return usageError{fmt.Errorf("%q is none of %s", given[0], strings.Join(names, ", "))}
			}
			return write(cmd)
		},
	})
}
