// Package service has the operating system run Sallyport: from boot on, and again
// after a fault. It speaks to systemd, OpenRC and SysV's init on Linux, to launchd on
// macOS, to rc.d on FreeBSD and to Windows through one library; the unit for systemd
// is our own (unit.go).
package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/kardianos/service"
)

// Name is what the operating system calls the service, and, where it gets a user of
// its own, that user.
const Name = "sallyport"

// Plan says what is run.
type Plan struct {
	Program string // absolute
	Config  string // the settings file; absolute
}

// plain are the paths that mean the same in a unit, in a shell's script, and to a
// person.
var plain = regexp.MustCompile(`^/[A-Za-z0-9/._+@-]*$`)

// hidden are folders that are a person's, or do not outlive a boot. The unit has
// others in their place, or none.
var hidden = regexp.MustCompile(`^/(home|root|tmp|var/tmp|run/user)(/|$)`)

func (p Plan) check() error {
	for _, path := range []string{p.Program, p.Config} {
		switch {
		case !filepath.IsAbs(path):
			return fmt.Errorf("%s is no absolute path", path)
		case runtime.GOOS == "windows":
		case !plain.MatchString(path):
			return fmt.Errorf("the path %q has characters that scripts of services do not bear; letters, digits and /._+@- are well", path)
		case hidden.MatchString(path):
			return fmt.Errorf("a service does not see %s: put the program into /usr/local/bin, and the settings into %s", path, filepath.Dir(DefaultConfig()))
		}
	}
	return nil
}

// DefaultConfig is where the settings of a service are, if nobody says otherwise.
func DefaultConfig() string {
	if runtime.GOOS == "windows" {
		return `C:\ProgramData\sallyport\sallyport.yaml`
	}
	return "/etc/sallyport/sallyport.yaml"
}

// ErrNotInstalled says that the operating system knows no such service.
var ErrNotInstalled = errors.New("the service is not installed: `sallyport service install` does that")

// Control is the service as the operating system sees it. All of its methods block
// until that has done what it was asked for.
type Control struct {
	plan    Plan
	service service.Service
}

// New returns the control of the service. Nothing is touched yet.
func New(p Plan) (*Control, error) {
	s, err := service.New(idle{}, p.config())
	if errors.Is(err, service.ErrNoServiceSystemDetected) {
		return nil, errors.New("no service manager is found here: docs/service.md says what to do by hand")
	}
	return &Control{p, s}, err
}

func (p Plan) config() *service.Config {
	c := &service.Config{
		Name:        Name,
		DisplayName: "Sallyport",
		Description: "Sallyport, a proxy server for the edge of a network",
		Executable:  p.Program,
		Arguments:   []string{"serve", "--config", p.Config},
		Option: service.KeyValue{
			"SystemdScript": p.Unit(),
			"KeepAlive":     true,
			"RunAtLoad":     true,
		},
	}
	return c
}

// Manager says which service manager it is: "linux-systemd", "darwin-launchd" and
// the like.
func (c *Control) Manager() string { return c.service.Platform() }

// Install has the service known, and started at each boot from the next on. Where
// it is to run as a user of its own, that user is made if there is none.
func (c *Control) Install(ctx context.Context) error {
	if err := c.plan.check(); err != nil {
		return err
	}
	if c.Manager() == "linux-systemd" {
		if err := prepare(ctx, c.plan); err != nil {
			return err
		}
	}
	return c.service.Install()
}

// Uninstall stops the service, and has it forgotten. Settings, ledger and user stay.
func (c *Control) Uninstall() error {
	status, err := c.service.Status()
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		return ErrNotInstalled
	case err == nil && status == service.StatusRunning:
		if err := c.service.Stop(); err != nil {
			return err
		}
	}
	if err := c.service.Uninstall(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return ErrNotInstalled
}

// Start starts the service.
func (c *Control) Start() error { return c.explained(c.service.Start()) }

// Stop stops the service; open sessions get timeouts.drain.
func (c *Control) Stop() error { return c.explained(c.service.Stop()) }

// Restart stops the service and starts it. An upgrade, which cuts nobody off, is
// something else.
func (c *Control) Restart() error { return c.explained(c.service.Restart()) }

// explained says what to do about what the service manager has not done: as a rule it has
// but an exit code.
func (c *Control) explained(err error) error {
	if err == nil {
		return nil
	}
	if _, known := c.service.Status(); errors.Is(known, service.ErrNotInstalled) || c.hasNoScript() {
		return ErrNotInstalled
	}
	where := "the system's log"
	if c.Manager() == "linux-systemd" {
		where = "`journalctl --unit " + Name + "`"
	}
	return fmt.Errorf("%s could not do that: %w; see %s, and whether `%s check %s` is content", c.Manager(), err, where, Name, c.plan.Config)
}

// scripts is where the managers that start scripts have them. It is a variable for tests.
var scripts = "/etc/init.d"

// hasNoScript reports whether the manager is one of those, and there is no script of the
// service's: all that such a manager says of it is that it does not run.
func (c *Control) hasNoScript() bool {
	switch c.Manager() {
	case "unix-systemv", "linux-openrc":
		_, err := os.Lstat(filepath.Join(scripts, Name))
		return errors.Is(err, fs.ErrNotExist)
	}
	return false
}

// Running reports whether the service runs.
func (c *Control) Running() (bool, error) {
	status, err := c.service.Status()
	if errors.Is(err, service.ErrNotInstalled) || c.hasNoScript() {
		return false, ErrNotInstalled
	}
	if _, says := errors.AsType[*exec.ExitError](err); says { // so does a script in /etc/init.d
		return false, nil
	}
	return status == service.StatusRunning, err
}

// idle is what a command that only speaks to the service manager runs: nothing.
type idle struct{}

// Start implements [service.Interface].
func (idle) Start(service.Service) error { return nil }

// Stop implements [service.Interface].
func (idle) Stop(service.Service) error { return nil }
