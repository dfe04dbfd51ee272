// Package daemon makes a running server out of the settings.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/sallyport/sallyport/server"
)

// Daemon is a server with its sockets open. Make one with [Open], then call
// Run; until Run is called, clients wait in the sockets' queues.
type Daemon struct {
	server    *server.Server
	listeners []server.Listener
	sockets   []net.Listener
	drain     time.Duration
	log       *slog.Logger
}

// Open reads the settings and opens every listening socket; the log goes to w.
// Bad settings are a [*SettingsError]. On an error nothing stays open.
func Open(ctx context.Context, src Source, w io.Writer) (*Daemon, error) {
	s, err := src.load()
	if err != nil {
		return nil, err
	}
	log := newLogger(w, s.Log)
	d := &Daemon{server: buildServer(s, log), drain: s.Timeouts.Drain, log: log}
	var lc net.ListenConfig
	for _, l := range s.Listeners {
		socket, err := lc.Listen(ctx, "tcp", l.Listen)
		if err != nil {
			d.closeSockets()
			return nil, fmt.Errorf("the listener %q cannot open its address: %w", l.Name, err)
		}
		d.sockets = append(d.sockets, socket)
		d.listeners = append(d.listeners, buildListener(l))
	}
	return d, nil
}

func (d *Daemon) closeSockets() {
	for _, s := range d.sockets {
		s.Close()
	}
}

// Greet writes where the daemon listens and how to try it.
func (d *Daemon) Greet(w io.Writer, version string) error {
	var b strings.Builder
	for i, s := range d.sockets {
		fmt.Fprintf(&b, "sallyport %s: listening on %s (%s)\n", version, s.Addr(), protocols(d.listeners[i]))
	}
	first := d.sockets[0].Addr().String()
	if host, port, err := net.SplitHostPort(first); err == nil && net.ParseIP(host).IsUnspecified() {
		first = net.JoinHostPort("localhost", port)
	}
	fmt.Fprintf(&b, "try it: curl --proxy socks4a://%s http://example.com/\n", first)
	_, err := io.WriteString(w, b.String())
	return err
}

func protocols(l server.Listener) string {
	var spoken []string
	for _, p := range l.Protocols {
		spoken = append(spoken, string(p))
	}
	return strings.Join(spoken, ", ")
}

// Run serves until ctx ends, then drains: it takes no new clients and lets the
// sessions end by themselves, until the drain limit has passed or hurry ends.
// It returns nil after that, or an error when a listening socket fails. It
// returns when everything it started has ended.
func (d *Daemon) Run(ctx, hurry context.Context) error {
	serve, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	failed := make(chan error, len(d.sockets)) // room for all: nobody waits to say how it ended
	for i, socket := range d.sockets {
		go func() { failed <- d.server.Serve(serve, socket, d.listeners[i]) }()
	}
	var err error
	ended := 0
	select {
	case <-ctx.Done():
		d.log.Info("stopping: no new clients, open sessions may end", "limit", d.drain)
	case err = <-failed:
		ended++
		d.log.Error("stopping: a listening socket failed", "error", err)
	}
	d.shutdown(hurry)
	for ; ended < len(d.sockets); ended++ {
		if later := <-failed; err == nil && !errors.Is(later, server.ErrServerClosed) {
			err = later
		}
	}
	return err
}

func (d *Daemon) shutdown(hurry context.Context) {
	drain, cancel := context.WithTimeout(hurry, d.drain)
	defer cancel()
	if err := d.server.Shutdown(drain); err != nil {
		d.log.Warn("sessions were cut: they did not end in time")
	}
	d.log.Info("stopped")
}
