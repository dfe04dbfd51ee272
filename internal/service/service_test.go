package service

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kardianos/service"
)

// failing is what a service manager that does not do what it is asked for says.
type failing struct {
	service.Service
	manager string
	status  error
}

func (f failing) Platform() string                { return f.manager }
func (f failing) Start() error                    { return &exec.ExitError{ProcessState: &os.ProcessState{}} }
func (f failing) Status() (service.Status, error) { return service.StatusStopped, f.status }

// TestStartThatFails: a person is told more than an exit code.
func TestStartThatFails(t *testing.T) {
	scripts = t.TempDir()
	defer func() { scripts = "/etc/init.d" }()
	c := func(manager string, status error) *Control {
		return &Control{Plan{Config: "/etc/sallyport/sallyport.yaml"}, failing{manager: manager, status: status}}
	}
	for _, manager := range []string{"linux-systemd", "unix-systemv"} {
		if err := c(manager, service.ErrNotInstalled).Start(); !errors.Is(err, ErrNotInstalled) {
			t.Errorf("%s: %v", manager, err)
		}
	}
	old := c("unix-systemv", &exec.ExitError{ProcessState: &os.ProcessState{}})
	if err := old.Start(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("without a script: %v", err)
	}
	if _, err := old.Running(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("without a script: %v", err)
	}
	if err := os.WriteFile(filepath.Join(scripts, Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if running, err := old.Running(); running || err != nil {
		t.Errorf("with a script: %v, %v", running, err)
	}
	for _, one := range []struct {
		*Control
		want string
	}{
		{old, "unix-systemv could not do that: exit status 0; see the system's log, and whether `sallyport check /etc/sallyport/sallyport.yaml` is content"},
		{c("linux-systemd", nil), "see `journalctl --unit sallyport`"},
	} {
		if err := one.Start(); err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("got %v, want %q", err, one.want)
		}
	}
}
