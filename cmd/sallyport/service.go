package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/service"
)

func newService() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Run as a service of the operating system",
		Long: "Have the operating system run the server from boot on: systemd, OpenRC or SysV's\n" +
			"init on Linux, launchd on macOS, Windows.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var config string
	install := serviceAction("install", "Have the service started at each boot", &config, installService)
	install.Flags().StringVarP(&config, "config", "c", service.DefaultConfig(), "the settings `FILE`")
	cmd.AddCommand(install,
		serviceAction("uninstall", "Stop the service and forget it; settings and ledger stay", &config, uninstallService),
		serviceAction("start", "Start the service", &config, startService),
		serviceAction("stop", "Stop the service; open sessions get timeouts.drain", &config, stopService),
		serviceAction("restart", "Stop the service and start it ('sallyport upgrade' cuts nobody off)", &config, restartService),
		serviceAction("status", "Say whether the service runs; the exit code is 1 if it does not", &config, serviceStatus))
	return cmd
}

// serviceAction is a command that does one thing to the service.
func serviceAction(name, short string, config *string, do func(context.Context, *service.Control, string, io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name != "status" && runtime.GOOS != "windows" && os.Geteuid() != 0 {
				return errors.New("only root may do that")
			}
			program, err := daemon.Program()
			if err != nil {
				return err
			}
			file := service.DefaultConfig()
			if *config != "" {
				if file, err = filepath.Abs(*config); err != nil {
					return err
				}
			}
			c, err := service.New(service.Plan{Program: program, Config: file})
			if err != nil {
				return err
			}
			return do(cmd.Context(), c, file, cmd.OutOrStdout())
		},
	}
}

func installService(ctx context.Context, c *service.Control, file string, out io.Writer) error {
	if err := daemon.Check(file); err != nil {
		return fmt.Errorf("%w\n(`sallyport init --output %s` writes settings to begin with)", err, file)
	}
	if err := c.Install(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "installed (%s) with the settings %s; it starts at the next boot, and now with `sallyport service start`\n", c.Manager(), file)
	return nil
}

func uninstallService(_ context.Context, c *service.Control, _ string, _ io.Writer) error {
	return c.Uninstall()
}

func startService(_ context.Context, c *service.Control, _ string, _ io.Writer) error {
	return c.Start()
}

func stopService(_ context.Context, c *service.Control, _ string, _ io.Writer) error { return c.Stop() }

func restartService(_ context.Context, c *service.Control, _ string, _ io.Writer) error {
	return c.Restart()
}

func serviceStatus(_ context.Context, c *service.Control, _ string, out io.Writer) error {
	running, err := c.Running()
	switch {
	case err != nil:
		return err
	case !running:
		return errors.New("the service does not run")
	}
	fmt.Fprintln(out, "the service runs")
	return nil
}
