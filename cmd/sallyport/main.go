// Command sallyport is a proxy server for the edge of a network, and the
// clients that go with it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	err := root.ExecuteContext(context.Background())
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
		fmt.Fprintln(errs, "See 'sallyport --help'.")
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
		Long: "Sallyport is a proxy server for the edge of a network: SOCKS 4 and 4a as their\n" +
			"authors describe them, with rules that say who may go where.\n\n" +
			"Without a command it serves, as 'sallyport serve' does.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
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

// args makes what cobra says of the arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usageError{err}
		}
		return nil
	}
}
