package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ErrTaken says that another server answers on the socket.
var ErrTaken = errors.New("another server answers there")

// DefaultSocket returns where the socket is if nobody says otherwise: in the
// folder that the system has for what runs, for this service of systemd's, for root
// or for this user. It is empty where the system has none.
func DefaultSocket() string {
	if folders := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")); len(folders) > 0 {
		return filepath.Join(folders[0], "admin.sock")
	}
	if os.Geteuid() == 0 {
		return "/run/sallyport/admin.sock"
	}
	if folder := os.Getenv("XDG_RUNTIME_DIR"); folder != "" {
		return filepath.Join(folder, "sallyport", "admin.sock")
	}
	return ""
}

// Listen opens the socket at path, which only this user may use. What a server
// that has died has left there is replaced; where one lives, the error wraps
// [ErrTaken]. makeFolder makes the folder that path is in, if it is not there.
// Closing the socket removes it from the file system.
func Listen(ctx context.Context, path string, makeFolder bool) (*Socket, error) {
	if makeFolder {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
	}
	if err := Vacate(ctx, path); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return Adopt(l)
}

// Adopt makes an admin socket of one that was opened elsewhere. On an error it is
// closed.
func Adopt(l net.Listener) (*Socket, error) {
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("%s is no unix socket", l.Addr())
	}
	return &Socket{u}, nil
}

// Vacate removes a socket behind which nobody is, so that another can take its
// place. Where somebody is, the error wraps [ErrTaken].
func Vacate(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is no socket", path)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%s: %w", path, ErrTaken)
	case isRefused(err):
		return os.Remove(path)
	}
	return err
}

// Socket lets nobody in but root and the user that this process runs as. The
// socket's mode says the same, but not on every system, and not in the moment
// between its making and its mode.
type Socket struct{ *net.UnixListener }

// Accept returns the next connection of somebody who may.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		c, err := s.UnixListener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, known := peer(c); !known || uid == 0 || uid == os.Geteuid() {
			return c, nil
		}
		c.Close()
	}
}
