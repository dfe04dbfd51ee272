package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/ledger"
	"github.com/sallyport/sallyport/server"
)

// firstAdministrator is the name of who can sign in to a dashboard that nobody was
// let into yet.
const firstAdministrator = "admin"

// administrators are those who may sign in to the dashboard: a users file of their
// own, with the same hashes, the same guard against guesses, and the same way to
// change it. It implements [admin.Doorkeeper].
type administrators struct {
	passwords *access.Passwords
	viewers   []string
	file      string
	first     string // the password of the first one, who was made just now; empty: there were some
}

// usualAdministrators is where they are kept if nobody says otherwise; empty: nowhere.
func usualAdministrators() string {
	if path := ledger.DefaultPath(); path != "" {
		return filepath.Join(filepath.Dir(path), "administrators")
	}
	return ""
}

// openAdministrators reads the file, or makes it, with one administrator who gets a
// random password.
func openAdministrators(file string, viewers []string, log *slog.Logger) (*administrators, error) {
	a := &administrators{viewers: viewers, file: file}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, err
		}
		a.first = rand.Text()
		if err := (access.UsersEditor{Path: file}).Add(firstAdministrator, a.first); err != nil {
			return nil, err
		}
	}
	users, err := access.OpenUsersFile(file, log)
	if err != nil {
		return nil, err
	}
	a.passwords = access.NewPasswords(nil, users, log)
	return a, nil
}

// greet tells the first password: to a person at a terminal, and else in a file that
// only the server's user may read, since what is printed there ends in a log.
func (a *administrators) greet(w io.Writer, terminal bool) {
	switch {
	case a.first == "":
	case terminal:
		fmt.Fprintf(w, "sign in to the dashboard as %s with the password %s\n(it is shown this once; `sallyport user passwd %s --file %s` sets another)\n", firstAdministrator, a.first, firstAdministrator, a.file)
	default:
		file := filepath.Join(filepath.Dir(a.file), "first-password")
		if err := os.WriteFile(file, []byte(a.first+"\n"), 0o600); err != nil {
			fmt.Fprintf(w, "the first password for the dashboard cannot be told: %v\n(`sallyport user passwd %s --file %s` sets another)\n", err, firstAdministrator, a.file)
			return
		}
		fmt.Fprintf(w, "sign in to the dashboard as %s with the password in %s, and remove that file\n", firstAdministrator, file)
	}
}

// isTerminal reports whether a person may be looking at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// SignIn implements [admin.Doorkeeper].
func (a *administrators) SignIn(ctx context.Context, client netip.AddrPort, name, password string) (admin.Visitor, error) {
	id, err := a.passwords.Authenticate(ctx, server.Credentials{Protocol: server.HTTP, Listener: "dashboard", Client: client, Name: name, Password: password})
	switch {
	case server.ReasonOf(err) == server.BadLogin:
		return admin.Visitor{}, admin.ErrWrongLogin
	case err != nil:
		return admin.Visitor{}, err
	}
	return a.visitor(id), nil
}

func (a *administrators) visitor(id server.Identity) admin.Visitor {
	v := admin.Visitor{Name: id.Name, Role: admin.Administrator, Mark: id.Mark}
	if slices.Contains(a.viewers, id.Name) {
		v.Role = admin.Viewer
	}
	return v
}

// Still implements [admin.Doorkeeper].
func (a *administrators) Still(v admin.Visitor) (admin.Visitor, bool) {
	a.passwords.Look()
	id := server.Identity{Name: v.Name, Proof: server.Password, Mark: v.Mark}
	return a.visitor(id), a.passwords.Still(id) == nil
}
