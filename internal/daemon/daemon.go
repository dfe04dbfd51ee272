// Package daemon makes a running server out of the settings.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
)

// Daemon is a server with its sockets open. Make one with [Open], then call
// Run or Close; until Run is called, clients wait in the sockets' queues.
type Daemon struct {
	server    *server.Server
	listeners []server.Listener
	sockets   []net.Listener
	drain     time.Duration
	log       *slog.Logger
	endLog    func()
}

// Open reads the settings and opens every listening socket; the log goes to w.
// Bad settings are a [*SettingsError]. On an error nothing stays open.
func Open(ctx context.Context, src Source, w io.Writer) (*Daemon, error) {
	s, err := src.load()
	if err != nil {
		return nil, err
	}
	log, endLog := newLogger(w, s.Log)
	warnOfLimits(s, log)
	d := &Daemon{drain: s.Timeouts.Drain, log: log, endLog: endLog}
	if err := d.open(ctx, s); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context, s *config.Settings) (err error) {
	if d.server, err = buildServer(s, d.log); err != nil {
		return err
	}
	for _, l := range s.Listeners {
		listener, err := buildListener(l, d.log)
		if err != nil {
			return fmt.Errorf("the listener %q: %w", l.Name, err)
		}
		var lc net.ListenConfig
		socket, err := lc.Listen(ctx, networkOf(l.Listen), l.Listen)
		if err != nil {
			return fmt.Errorf("the listener %q cannot open its address: %w", l.Name, err)
		}
		d.sockets = append(d.sockets, socket)
		d.listeners = append(d.listeners, listener)
	}
	return nil
}

// networkOf keeps a listener that is written as an IPv4 address to IPv4: for
// Go, 0.0.0.0 would mean every IPv6 address too.
func networkOf(listen string) string {
	if at, err := netip.ParseAddrPort(listen); err == nil && at.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// Close closes the sockets of a daemon that is not to be run.
func (d *Daemon) Close() {
	for _, s := range d.sockets {
		s.Close()
	}
	d.endLog()
}

// Greet writes where the daemon listens and how to try it. That nobody can read
// it is no reason not to serve.
func (d *Daemon) Greet(w io.Writer, version string) {
	var b strings.Builder
	for i, s := range d.sockets {
		fmt.Fprintf(&b, "sallyport %s: listening on %s (%s)\n", version, s.Addr(), protocols(d.listeners[i]))
	}
	first := d.sockets[0].Addr().String()
	if host, port, err := net.SplitHostPort(first); err == nil && net.ParseIP(host).IsUnspecified() {
		first = net.JoinHostPort("localhost", port)
	}
	fmt.Fprintf(&b, "try it: curl --proxy %s://%s http://example.com/\n", scheme(d.listeners[0]), first)
	if _, err := io.WriteString(w, b.String()); err != nil {
		d.log.Warn("cannot say where it listens", "error", err)
	}
}

// scheme is the one of a proxy's URL by which curl gets through the listener.
func scheme(l server.Listener) string {
	speaks := func(p server.Protocol) bool { return slices.Contains(l.Protocols, p) }
	switch {
	case speaks(server.HTTP) && l.TLSOnly:
		return "https"
	case speaks(server.SOCKS4a):
		return "socks4a"
	case speaks(server.SOCKS5):
		return "socks5h"
	case speaks(server.HTTP):
		return "http"
	}
	return "socks4"
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
	defer d.endLog()
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

// Hangup is what HUP does: settings cannot be read anew yet, and the sessions of
// a server whose terminal has gone must not end for it.
func (d *Daemon) Hangup() {
	d.log.Warn("HUP: reading the settings anew is not in this version yet; restart to do so")
}

func (d *Daemon) shutdown(hurry context.Context) {
	drain, cancel := context.WithTimeout(hurry, d.drain)
	defer cancel()
	if err := d.server.Shutdown(drain); err != nil {
		d.log.Warn("sessions were cut: they did not end in time")
	}
	d.log.Info("stopped")
}
