package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/handover"
)

// upgradePatience is how long another process gets to say that it serves.
const upgradePatience = 30 * time.Second

// life is what comes before a daemon and after it.
type life struct {
	before   *handover.Predecessor // the process whose place this one takes; nil: none
	manager  handover.Manager
	program  string // what is started to take over
	noWay    error  // why nothing can be
	patience time.Duration

	inPlace  chan struct{}       // closed when the process before has stepped back
	replaced chan struct{}       // closed when after is set
	after    *handover.Successor // the process that has taken over. Guarded by the daemon's mutex
}

func newLife(in *handover.Inherited) life {
	l := life{before: in.Predecessor, patience: upgradePatience, inPlace: make(chan struct{}), replaced: make(chan struct{})}
	if l.program, l.noWay = handover.Program(); l.noWay != nil {
		l.noWay = fmt.Errorf("it is not known which program this is: %w", l.noWay)
	}
	switch {
	case runtime.GOOS == "windows":
		l.noWay = errors.New("this system has no way to hand over sockets: restart the service")
	case os.Getpid() == 1:
		l.noWay = errors.New("this is the first process of its container, which would end with it: restart the container, or run sallyport under an init")
	}
	return l
}

// Program returns the path by which this program was called, as a service is to call
// it: a link stays one.
func Program() (string, error) { return handover.Program() }

var (
	errReplaced = errors.New("another process has taken over already")
	errHangs    = errors.New("the new process did not serve within the time that it had")
	errStops    = errors.New("the server is asked to stop")
)

// Upgrade starts the program anew, which may be another version by now, with the
// same arguments, and hands it the listening sockets. It returns when that process
// serves; this one then takes no new clients and ends with its last session, or after
// timeouts.upgrade. Where the new process does not come to serve, it is ended, and
// this one goes on as if nothing had been: the error has its own words.
func (d *Daemon) Upgrade(ctx context.Context) (admin.Upgrade, error) {
	defer d.alone("an upgrade")()
	done, err := d.upgrade(ctx)
	if err != nil {
		d.log.Error("the upgrade failed: this process goes on", "fault", err.Error())
		return done, fmt.Errorf("the upgrade failed, and nothing has changed: %w", err)
	}
	return done, nil
}

// UpgradeBySignal is what USR2 does, once Run serves. How it went is in the log.
func (d *Daemon) UpgradeBySignal() {
	<-d.begun
	_, _ = d.Upgrade(context.Background()) // the context of a signal is nobody's
}

func (d *Daemon) upgrade(ctx context.Context) (done admin.Upgrade, err error) {
	d.mu.Lock()
	run, after := d.run, d.life.after
	d.mu.Unlock()
	switch {
	case after != nil:
		return done, errReplaced
	case run == nil:
		return done, errNotRunning
	case d.life.noWay != nil:
		return done, d.life.noWay
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer run.onStop(func() { cancel(errStops) })()
	ctx, end := context.WithTimeoutCause(ctx, d.life.patience, fmt.Errorf("%w: %s", errHangs, d.life.patience))
	defer end()
	select {
	case <-d.life.inPlace: // else the manager would be told of two main processes in the wrong order
	case <-ctx.Done():
		return done, context.Cause(ctx)
	}
	d.log.Info("a new process is started to take over", "program", d.life.program)
	next, err := handover.Start(ctx, d.life.program, d.handed(), d.life.before)
	if err != nil {
		return done, err
	}
	if next.Said != "" {
		for line := range strings.Lines(next.Said) {
			d.log.Info("the new process says", "line", strings.TrimRight(line, "\n"))
		}
	}
	if !d.replacedBy(next) {
		next.Kill()
		return done, errStops
	}
	return admin.Upgrade{Before: os.Getpid(), PID: next.PID, Sessions: len(d.server.Sessions())}, nil
}

// replacedBy notes that another process has taken over, unless this one stops.
func (d *Daemon) replacedBy(next *handover.Successor) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil {
		return false
	}
	d.life.after = next
	close(d.life.replaced)
	return true
}

func (d *Daemon) isReplaced() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.life.after != nil
}

// retire leaves new clients to the process that has taken over, and serves those who
// are there until the last has left, its time is over, or ctx ends. The settings are
// read anew when that process does so. closeAdmin ends the answers of the admin
// socket, which is the other's from here on.
func (d *Daemon) retire(ctx context.Context, run *running, next *handover.Successor, closeAdmin func()) {
	d.mu.Lock()
	limit, doors := d.inForce.settings.Timeouts.Upgrade, d.inForce.doors
	d.mu.Unlock()
	d.log.Info("another process has taken over: no new clients here, open sessions go on", "process", next.PID, "limit", limit)
	now, cancel := context.WithCancel(ctx)
	cancel()
	for _, one := range doors {
		one.removePath(false)
	}
	_ = d.server.Drain(now) // closes the sockets; it has no time to wait
	if d.control != nil {
		d.control.SetUnlinkOnClose(false)
	}
	closeAdmin()
	d.life.manager.Replaced(next.PID)
	if err := next.Go(); err != nil {
		d.log.Warn("the process that took over has ended already", "error", err)
	}
	reload := context.WithoutCancel(ctx)
	run.all.Go(func() {
		for range next.Reloads() {
			_ = d.follow(reload) // how it went is in the log
		}
	})
	over, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := d.server.Drain(over); errors.Is(err, context.DeadlineExceeded) {
		d.log.Warn("the time for sessions of before the upgrade is over", "limit", limit)
	}
	next.Close()
}
