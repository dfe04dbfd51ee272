package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/config"
)

// Remote is where a command finds the running server, which it asks by the API.
type Remote struct {
	File   string // the server's settings file, which may name a socket; empty: none
	Socket string // in the place of what the file says
}

// errNoSocket is why no server can be asked.
var errNoSocket = errors.New("it is not known where the server's admin socket is")

// errOtherServer is why the server that answers is not asked.
var errOtherServer = errors.New("another server than that of these settings answers")

// noSocket says so, and what to do about it. unread is why the settings do not tell.
func (r Remote) noSocket(unread error) error {
	switch {
	case unread != nil:
		return errors.Join(unread, fmt.Errorf("so %w: --socket PATH names it", errNoSocket))
	case r.File != "":
		return fmt.Errorf("%w: the settings do not name it, as `admin: {socket: PATH}` would", errNoSocket)
	}
	return fmt.Errorf("%w: name it with --socket, or with --config the settings that do (`admin: {socket: PATH}`)", errNoSocket)
}

// NewRate is what a limit is to have until the next reload.
type NewRate = admin.Rate

// socket returns where the server is, and why the file could not tell.
func (r Remote) socket() (string, error) {
	if r.Socket != "" {
		return r.Socket, nil
	}
	if r.File == "" {
		return admin.DefaultSocket(), nil
	}
	s, err := config.Load(r.File, config.Override{})
	switch {
	case err != nil:
		return admin.DefaultSocket(), &SettingsError{err} // the server may be there, and says the same
	case s.Admin.Off:
		return "", nil
	case s.Admin.Socket != "":
		return s.Admin.Socket, nil
	}
	return admin.DefaultSocket(), nil
}

// meant returns an error where the settings file is said, the socket is the usual one, and who
// serves there was started with another file: one server of a machine has that socket,
// whichever came first. Where nobody answers there is none.
func (r Remote) meant(ctx context.Context, socket string) error {
	if r.File == "" || socket != admin.DefaultSocket() {
		return nil
	}
	s, err := admin.Client{Socket: socket}.Status(ctx)
	if err != nil || isSameFile(r.File, s.Settings) {
		return nil // who asks further hears why nobody answers
	}
	with := "without a settings file"
	if s.Settings != "" {
		with = "with " + s.Settings
	}
	return fmt.Errorf("%w: the one at %s was started %s, and not with %s. "+
		"`admin: {socket: PATH}` in the settings gives their server a socket of its own, and --socket PATH names any", errOtherServer, socket, with, r.File)
}

// isSameFile reports whether a settings file is the one that a server has, which may be
// called otherwise here.
func isSameFile(file, served string) bool {
	if served == "" {
		return false
	}
	here, hereErr := os.Stat(file)
	there, thereErr := os.Stat(served)
	if hereErr == nil && thereErr == nil {
		return os.SameFile(here, there)
	}
	return Source{File: file}.fromRoot() == served
}

// ask puts something to the running server. Where nobody answers, the error says what
// can be done.
func (r Remote) ask(ctx context.Context, put func(admin.Client) error) error {
	socket, unread := r.socket()
	if socket == "" {
		return r.noSocket(unread)
	}
	if err := r.meant(ctx, socket); err != nil {
		return err
	}
	err := put(admin.Client{Socket: socket})
	if errors.Is(err, admin.ErrNobody) && unread != nil {
		return unread // it may be why nobody is there
	}
	return whereElse(err)
}

// whereElse says of an error that nobody was there what can be done.
func whereElse(err error) error {
	if errors.Is(err, admin.ErrNobody) {
		return fmt.Errorf("%w; start one with `sallyport serve`, or say with --socket or --config where it is", err)
	}
	return err
}

// Reload has the running server read its settings anew. Faults are a
// [*SettingsError], with the text that the server has for them.
func (r Remote) Reload(ctx context.Context) error {
	err := r.ask(ctx, func(c admin.Client) error { return c.Reload(ctx) })
	if f, ok := errors.AsType[*admin.Faults](err); ok {
		return &SettingsError{f}
	}
	if errors.Is(err, errNoSocket) {
		return fmt.Errorf("%w; without a socket, HUP does the same", err)
	}
	return err
}

// Upgrade has another process take the place of the running server, and says which.
func (r Remote) Upgrade(ctx context.Context) (done admin.Upgrade, err error) {
	err = r.ask(ctx, func(c admin.Client) error {
		done, err = c.Upgrade(ctx)
		return err
	})
	return done, err
}

// SetRate has the running server change the rate of a limit.
func (r Remote) SetRate(ctx context.Context, rate NewRate) error {
	return r.ask(ctx, func(c admin.Client) error { return c.SetRate(ctx, rate) })
}
