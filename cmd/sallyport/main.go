// Command sallyport is a proxy server for the edge of a network, and the
// clients that go with it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
)

// Exit codes. 78 is EX_CONFIG of sysexits.h: a service manager need not try again.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitSettings = 78
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main with its surroundings as arguments.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	called, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*daemon.SettingsError](err); ok {
		fmt.Fprintln(errs, err)
		return exitSettings
	}
	if errors.Is(err, errDiffers) {
		return exitFailed
	}
	how, isCommand := errors.AsType[ended](err)
	if isCommand && how.cause == nil {
		return how.code
	}
	fmt.Fprintln(errs, "sallyport:", err)
	if isCommand {
		return how.code
	}
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(errs, "See '%s --help'.\n", called.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "A proxy server for the edge of a network",
		Long: "Sallyport is a proxy server for the edge of a network: SOCKS 4, 4a and 5, HTTP and\n" +
			"SSH on one port, with rules that say who may go where.\n\n" +
			"Without a command it serves, as 'sallyport serve' does.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentPreRunE = named
	serve := newServe()
	root.Args, root.RunE = serve.Args, serve.RunE
	root.Flags().AddFlagSet(serve.Flags())
	root.AddCommand(
		serve, newCheck(), newExplain(), newReload(), newUpgrade(), newInit(), newService(),
		newUser(), newHostKey(), newUsage(), newLimit(), newTop(), newKill(),
		newConnect(), newListen(), newPublish(), newRun(),
		newSchema(), newVersion(),
	)
	completion(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	return root
}

// named refuses the flags that name a file, or a place like one, and are given and empty: a
// variable of the shell's that is not set is no wish for what stands there by default.
func named(cmd *cobra.Command, _ []string) error {
	for _, flag := range []string{"config", "socket", "file", "store", "output", "password-file", "known-hosts"} {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Changed && f.Value.String() == "" {
			return usageError{fmt.Errorf("--%s needs the name of a file", flag)}
		}
	}
	return nil
}

// args makes a usage error of arguments that check does not take.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if check(cmd, given) == nil {
			return nil
		}
		return usageError{misused(cmd, given)}
	}
}

// misused says what is wrong with the arguments.
func misused(cmd *cobra.Command, given []string) error {
	cmd.SuggestionsMinimumDistance = 2 // letters
	switch {
	case cmd.Flags().Lookup("config") != nil && len(given) == 1 && isSettingsName(given[0]):
		return fmt.Errorf("the settings are named with --config: %s --config %s", cmd.CommandPath(), given[0])
	case !cmd.HasSubCommands() || len(given) == 0:
		return fmt.Errorf("the arguments are not those of the command; usage: %s", strings.TrimSuffix(cmd.UseLine(), " [flags]"))
	}
	text := fmt.Sprintf("unknown command %q for %q", given[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(given[0]); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return errors.New(text)
}

// isSettingsName reports whether somebody may mean a settings file by the word.
func isSettingsName(word string) bool {
	return slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(word))
}
