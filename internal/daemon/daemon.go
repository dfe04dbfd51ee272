// Package daemon makes a running server out of the settings.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/handover"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/server"
)

// Daemon is a server with its sockets open. Make one with [Open], then call
// Run or Close; until Run is called, clients wait in the sockets' queues.
//
// What the settings say is in force as a whole: Reload makes another inForce and
// puts it in the place of the one before.
type Daemon struct {
	source  Source
	file    string // the settings file, from the root; empty: none
	server  *server.Server
	ruling  ruling
	limits  limits.Table // by their names, across reloads
	log     *slog.Logger
	logging logging // that has log; its queue is closed last
	access  accessLog
	control *adminSocket   // nil: there is none
	page    *page          // the dashboard; nil: there is none
	ledger  *ledger.Ledger // nil: there is none
	live    *live.View
	started time.Time
	life    life

	begun     chan struct{} // closed when Run serves
	reloading sync.Mutex    // held through a reload, and taken before mu

	mu      sync.Mutex
	inForce *inForce // changed by who holds reloading, too
	run     *running // nil before Run, and again once it takes no new clients
	last    *admin.Reload
}

// inForce is what the settings of one reading have made.
type inForce struct {
	settings *config.Settings
	rules    *rules
	doors    []*door
	access   *accessFile // nil: there is none
}

// Open reads the settings and opens every listening socket; the log goes to w.
// Bad settings are a [*SettingsError]. On an error nothing stays open.
func Open(ctx context.Context, src Source, w io.Writer) (*Daemon, error) {
	s, err := src.load()
	if err != nil {
		return nil, err
	}
	in := handover.Inherit()
	d := &Daemon{source: src, file: src.fromRoot(), started: time.Now(), live: live.New(), life: newLife(in), begun: make(chan struct{})}
	d.logging = newLogger(journal(w, in.Log()), s.Log)
	d.log = d.logging.Logger
	err = d.open(ctx, s, in)
	closeRest(in, d.log)
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context, s *config.Settings, in *handover.Inherited) error {
	p, err := openServed(ctx, s, nil, d.log)
	if err != nil {
		return err
	}
	r, err := buildRules(s, nil, p, &d.limits, d.log)
	if err != nil {
		return &SettingsError{err}
	}
	d.limits.Set(buildLimits(s))
	d.live.CountUsers(s.Admin.MetricsUsers)
	d.ruling.now.Store(r)
	d.server = &server.Server{
		Policy:        &d.ruling,
		Authenticator: &d.ruling,
		Recorder:      recorders{d.live, &d.access, d.logging.sessions},
		Log:           d.log,
		Timeouts:      buildTimeouts(s.Timeouts),
		Pages:         d.pages,
	}
	key, err := hostKeyOf(s)
	if err != nil {
		return err
	}
	doors, err := openDoors(ctx, d.server, s.Listeners, r.maps, nil, in, d.log)
	if err != nil {
		return err
	}
	giveHostKey(doors, key)
	for _, one := range doors {
		one.place.Change(one.listener)
	}
	d.inForce = &inForce{s, r, doors, nil}
	if d.inForce.access, err = openAccess(s.Log, d.log); err != nil {
		return err
	}
	d.access.set(d.inForce.access, s.Log)
	if d.control, err = openControl(ctx, s.Admin, admin.DefaultSocket(), in, d.log); err != nil {
		return err
	}
	if d.page, err = openPage(ctx, s.Admin, in, d.log); err != nil {
		return err
	}
	// Last, when clients can come already: they wait in the sockets' queues.
	if d.ledger, err = openLedger(ctx, s.Ledger, ledger.DefaultPath(), &d.limits, d.log); err != nil {
		return err
	}
	if d.ledger == nil {
		if hasQuotas(s) {
			d.log.Warn("what is used of quotas is not kept: they begin anew when the server does; a ledger keeps it")
		}
		return nil
	}
	d.server.Recorder = recorders{d.live, &d.access, d.logging.sessions, d.ledger}
	return nil
}

// Close closes the sockets of a daemon that is not to be run.
func (d *Daemon) Close() {
	if d.inForce != nil {
		closeDoors(d.inForce.doors)
	}
	if d.control != nil {
		_ = d.control.Close() // it is given up
	}
	if d.page != nil {
		d.page.Close()
	}
	if d.ledger != nil {
		d.ledger.Close()
	}
	d.life.before.Close()
	d.endLogs()
}

// endLogs writes what is left of the logs. The last of all may be of the log itself.
func (d *Daemon) endLogs() {
	d.access.set(nil, config.Log{}).close()
	d.logging.queue.close()
}

// Greet writes where the daemon listens and how to try it. That nobody can read
// it is no reason not to serve.
func (d *Daemon) Greet(w io.Writer, version string) {
	d.mu.Lock()
	doors := d.inForce.doors
	d.mu.Unlock()
	var b strings.Builder
	for _, door := range doors {
		fmt.Fprintf(&b, "sallyport %s: listening on %s (%s)\n", version, door.address(), strings.Join(protocolNames(door.listener), ", "))
	}
	for _, door := range doors {
		if key := door.listener.HostKey; key != nil {
			fmt.Fprintf(&b, "sallyport %s: the host key for ssh is %s\n", version, ssh.FingerprintSHA256(key.PublicKey()))
			break
		}
	}
	if d.page != nil {
		fmt.Fprintf(&b, "dashboard: %s\n", d.page.url())
		d.page.keeper.greet(&b, isTerminal(w))
	}
	if i := slices.IndexFunc(doors, func(d *door) bool { return d.listener.Mapping == nil }); i >= 0 {
		doors[i].tryIt(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		d.log.Warn("cannot say where it listens", "error", err)
	}
}

// address is where a door listens, for people.
func (d *door) address() string {
	at := d.socket.Addr()
	switch at.Network() {
	case "udp":
		return "udp/" + at.String()
	case "unix":
		return "unix:" + at.String()
	}
	return at.String()
}

// tryIt tells of a way to use a door.
func (d *door) tryIt(b *strings.Builder) {
	at := d.socket.Addr()
	if at.Network() != "tcp" {
		return // curl has no URL for a unix socket
	}
	if slices.Equal(d.listener.Protocols, []server.Protocol{server.SSH}) {
		if host, port, err := net.SplitHostPort(reachable(at.String())); err == nil {
			fmt.Fprintf(b, "try it: ssh -N -D 1081 -p %s %s\n", port, host)
		}
		return
	}
	fmt.Fprintf(b, "try it: curl --proxy %s://%s http://example.com/\n", scheme(d.listener), reachable(at.String()))
}

// reachable is an address by which this machine gets to where one listens.
func reachable(at string) string {
	if host, port, err := net.SplitHostPort(at); err == nil && net.ParseIP(host).IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return at
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
