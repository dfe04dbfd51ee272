package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/service"
)

func newServe() *cobra.Command {
	var src daemon.Source
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve (the default command)",
		Long: "Serve until TERM or INT arrives; then take no new clients and let the open\n" +
			"sessions end, for at most timeouts.drain. A second TERM or INT ends at once.\n" +
			"HUP reads the settings anew, as 'sallyport reload' does. USR1 begins the access\n" +
			"log's file anew. USR2 has a new process take over, as 'sallyport upgrade' does.\n" +
			"QUIT writes to the log what every goroutine is doing.\n\n" +
			"Without --config it listens on 127.0.0.1:1080 and lets this machine go anywhere.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if service.Managed() {
				return service.Run(cmd.Context(), func(ctx context.Context, log io.Writer) error {
					return serve(ctx, src, io.Discard, log)
				})
			}
			return serve(cmd.Context(), src, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&src.File, "config", "c", "", "the settings `FILE`")
	cmd.Flags().StringVar(&src.Listen, "listen", "", "listen on `ADDR` (host:port) instead of what the settings say")
	cmd.Flags().StringVar(&src.Admin, "admin", "", "the `ADDR` (host:port) of the dashboard, instead of what the settings say; off: no dashboard, and no socket for `sallyport reload`")
	src.Version = version
	return cmd
}

// serve runs a daemon until a signal ends it.
func serve(ctx context.Context, src daemon.Source, out, log io.Writer) error {
	// Whatever reads the log may end and be started again: a write to nobody is
	// a line lost, and no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	useAllProcessors()
	if runtime.GOMAXPROCS(0) < 2 { // an event loop that waits has the one, and all else would have to wait with it
		runtime.GOMAXPROCS(2)
	}
	early := make(chan os.Signal, 8)
	signal.Notify(early, held()...)
	defer signal.Stop(early)
	d, err := daemon.Open(ctx, src, log)
	if err != nil {
		return err
	}
	ctx, hurry, release := onSignals(ctx, requests(d), early)
	defer release()
	d.Greet(out, version) // only now: whoever reads it may send a signal at once
	return d.Run(ctx, hurry)
}

// onSignals returns a context that the first TERM or INT ends, and one that the
// second ends. The other signals call what requests has for them. That may take its
// time, and no other signal waits for it; one that comes again meanwhile calls it once more
// afterwards. Those that have come early, before there was anything to call, are taken over.
func onSignals(parent context.Context, requests map[os.Signal]func(), early chan os.Signal) (stop, hurry context.Context, release func()) {
	stop, cancelStop := context.WithCancel(parent)
	hurry, cancelHurry := context.WithCancel(parent)
	ends := make(chan os.Signal, 4)
	signal.Notify(ends, syscall.SIGTERM, os.Interrupt)
	all := []chan os.Signal{ends}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		next := []context.CancelFunc{cancelStop, cancelHurry}
		for range ends {
			if len(next) > 0 {
				next[0]()
				next = next[1:]
			}
		}
	})
	hears := map[os.Signal]chan os.Signal{}
	for s, request := range requests {
		comes := make(chan os.Signal, 1)
		signal.Notify(comes, s)
		all, hears[s] = append(all, comes), comes
		waiting.Go(func() {
			for range comes {
				request()
			}
		})
	}
	signal.Stop(early)
	for len(early) > 0 {
		s := <-early
		select {
		case hears[s] <- s:
		default: // it has come again since, or nobody is to hear it
		}
	}
	return stop, hurry, func() {
		for _, signals := range all {
			signal.Stop(signals)
			close(signals)
		}
		waiting.Wait()
		cancelStop()
		cancelHurry()
	}
}
