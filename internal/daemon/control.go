package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/handover"
)

// adminSocket is the admin socket. Its name is the one by which it is handed over.
type adminSocket struct {
	*admin.Socket
	name string
}

// Names of the admin socket.
const (
	ownControl   = own + "admin"
	givenControl = "admin"
)

// openControl opens the admin socket, or takes it from what was handed over. One
// that the settings name must be had; without the usual one (empty: there is none)
// the server does as well: nil.
func openControl(ctx context.Context, a config.Admin, usual string, in *handover.Inherited, log *slog.Logger) (*adminSocket, error) {
	if a.Off {
		return nil, nil
	}
	if taken, err := takeControl(cmp.Or(a.Socket, usual), in); taken != nil || err != nil {
		return taken, err
	}
	if a.Socket != "" {
		l, err := admin.Listen(ctx, a.Socket, false)
		if err != nil {
			return nil, fmt.Errorf("the admin socket cannot be opened: %w", err)
		}
		return &adminSocket{l, ownControl}, nil
	}
	if usual == "" {
		log.Debug("no admin socket: XDG_RUNTIME_DIR is not set; `admin: {socket: PATH}` names one")
		return nil, nil
	}
	l, err := admin.Listen(ctx, usual, true)
	switch {
	case errors.Is(err, admin.ErrTaken):
		log.Info("no admin socket: another server has it; `admin: {socket: PATH}` gives this one its own", "socket", usual)
		return nil, nil
	case err != nil:
		log.Debug("no admin socket; `admin: {socket: PATH}` names one", "error", err)
		return nil, nil
	}
	return &adminSocket{l, ownControl}, nil
}

// takeControl returns the socket at path from those that were handed over; nil:
// there is none.
func takeControl(path string, in *handover.Inherited) (*adminSocket, error) {
	taken := in.Take(func(s handover.Socket) bool {
		at, ok := s.Addr().(*net.UnixAddr)
		return ok && at.Name == path
	})
	if !taken.IsOpen() {
		return nil, nil
	}
	s, err := admin.Adopt(taken.Listener)
	if err != nil {
		return nil, err
	}
	if isOwn(taken.Name) {
		return &adminSocket{s, ownControl}, nil // it is removed once this process serves (serveAdmin)
	}
	return &adminSocket{s, givenControl}, nil
}

// usualPage is where the dashboard is if nobody says otherwise.
const usualPage = "127.0.0.1:1088"

// handedPage is the name by which the dashboard's socket is handed over. No listener's
// is made such a name.
const handedPage = "(dashboard)"

// page is where the dashboard is served, and who may come to it.
type page struct {
	net.Listener
	socket net.Listener // what is beneath TLS
	keeper *administrators
	secure bool
}

// openPage opens the dashboard's address, or takes it from what was handed over. One
// that the settings name must be had; without the usual one the server does as well:
// nil.
func openPage(ctx context.Context, a config.Admin, in *handover.Inherited, log *slog.Logger) (*page, error) {
	if a.Off || a.Listen == "off" {
		return nil, nil
	}
	p, err := tryPage(ctx, a, in, log)
	switch {
	case err == nil:
		return p, nil
	case a.Listen == "" && a.File == "":
		log.Info("no dashboard; `admin: {listen: ADDRESS, file: FILE}` says where it is and who may sign in, `admin: {listen: off}` wants none", "error", err)
		return nil, nil
	}
	return nil, fmt.Errorf("the dashboard cannot be opened: %w", err)
}

func tryPage(ctx context.Context, a config.Admin, in *handover.Inherited, log *slog.Logger) (*page, error) {
	file := cmp.Or(a.File, usualAdministrators())
	if file == "" {
		return nil, errors.New("this system has no folder for the administrators' file")
	}
	at := cmp.Or(a.Listen, usualPage)
	terms, err := newTLS(a.TLS, false, log)
	if err != nil {
		return nil, err
	}
	l := in.Take(func(s handover.Socket) bool { return s.Name == handedPage && fits(s, at, true) }).Listener
	if l == nil {
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp"+networkOf(at), at); err != nil {
			return nil, err
		}
	}
	p := &page{Listener: admin.Bounded(l), socket: l, secure: terms != nil}
	if p.keeper, err = openAdministrators(file, a.Viewers, log); err != nil {
		l.Close()
		return nil, err
	}
	if p.secure {
		p.Listener = tls.NewListener(p.Listener, terms)
	}
	return p, nil
}

// url is what a browser finds the dashboard by.
func (p *page) url() string {
	scheme := "http"
	if p.secure {
		scheme = "https"
	}
	return scheme + "://" + reachable(p.Addr().String()) + "/"
}

// Status implements [admin.Daemon].
func (d *Daemon) Status() admin.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := admin.Status{Version: d.source.Version, Started: d.started, Settings: d.file, Sessions: len(d.server.Sessions()), Reload: d.last}
	for _, one := range d.inForce.doors {
		s.Listeners = append(s.Listeners, admin.Listener{
			Name: one.listener.Name, Address: one.address(), Protocols: protocolNames(one.listener),
		})
	}
	if d.ledger != nil {
		l := d.ledger.Status()
		s.Ledger = &admin.Ledger{Store: l.Place, Node: l.Node, Lost: l.Lost, Writes: l.Writes, Failed: l.Failed}
		if !l.Since.IsZero() {
			s.Ledger.Since = &l.Since
		}
	}
	return s
}
