package handover

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is the service manager as far as it wants to be told how the service
// fares, by systemd's protocol. Where there is none, nobody is told. Messages that
// cannot be sent are lost: the manager draws its own conclusions.
type Manager struct{}

// Ready says that the service serves, after its start or a reload.
func (m Manager) Ready(status string) { m.say(daemon.SdNotifyReady, "STATUS="+status) }

// Reloading says that settings are read anew; Ready must follow.
func (m Manager) Reloading() {
	m.say(append([]string{daemon.SdNotifyReloading}, monotonic()...)...)
}

// Stopping says that the service stops, and takes up to that long.
func (m Manager) Stopping(within time.Duration) {
	m.say(daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()))
}

// Replaced says that the service is another process from now on.
func (m Manager) Replaced(pid int) { m.say(fmt.Sprintf("MAINPID=%d", pid)) }

// Alive says that the service is not stuck.
func (m Manager) Alive() { m.say(daemon.SdNotifyWatchdog) }

// Patience is how long the manager waits for Alive; 0: it does not.
func (Manager) Patience() time.Duration {
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return patience
}

func (Manager) say(lines ...string) {
	_, _ = daemon.SdNotify(false, strings.Join(lines, "\n")) // as Manager says
}
