package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
)

// Hangup is what HUP does: it reads the settings anew, once Run serves, or has the process
// do so that has taken over, be it meanwhile. How that went is in the log.
func (d *Daemon) Hangup() {
	<-d.begun                   // it may come as soon as somebody has read where the server listens
	ctx := context.Background() // that of a signal is nobody's
	err := d.Reload(ctx)
	if errors.Is(err, errReplaced) && !d.passOn() {
		err = d.follow(ctx)
	}
	if errors.Is(err, errNotRunning) {
		d.log.Warn("HUP: the settings are not read anew", "error", err)
	}
}

// passOn has the process that has taken over read the settings anew, which then has this one
// do so, too. It reports whether that process is still there.
func (d *Daemon) passOn() bool {
	d.mu.Lock()
	next := d.life.after
	d.mu.Unlock()
	if err := next.Hangup(); err != nil {
		d.log.Warn("HUP: the process that had taken over cannot be told", "process", next.PID, "error", err)
		return false
	}
	d.log.Info("HUP: the process that has taken over is told to read the settings anew", "process", next.PID)
	return true
}

var errNotRunning = errors.New("the server is starting or stopping")

// Reload reads the settings anew and puts them in force, all or nothing: where
// they have a fault, or a new listener cannot open its address, those before stay
// as they are, and it returns an [*admin.Faults]. Sessions whose right is gone by
// the new settings are ended. It blocks until that is done, and may be called from
// many goroutines at once. Reading may take its time (long lists): meanwhile
// sessions are revoked, and the server stops, as ever. Where another process has taken
// over, it is that one's to do.
func (d *Daemon) Reload(ctx context.Context) error {
	defer d.alone("a reload")()
	if d.isReplaced() {
		return fmt.Errorf("the settings are not read anew here: %w; whoever asks again is answered by that one", errReplaced)
	}
	return d.reload(ctx)
}

// follow is Reload for the sessions of before an upgrade.
func (d *Daemon) follow(ctx context.Context) error {
	defer d.alone("a reload")()
	return d.reload(ctx)
}

// alone returns when no reload and no upgrade is under way, and keeps others waiting until
// done is called. Whoever has to wait finds that in the log.
func (d *Daemon) alone(what string) (done func()) {
	if !d.reloading.TryLock() {
		d.log.Info(what + " waits until the reload or the upgrade that is under way has ended")
		d.reloading.Lock()
	}
	return d.reloading.Unlock
}

// reload is Reload for whoever is alone.
func (d *Daemon) reload(ctx context.Context) error {
	if !d.isRunning() {
		return errNotRunning
	}
	d.tellReloading()
	defer d.tellReady()
	next, err := d.prepare(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.last = &admin.Reload{At: time.Now(), Faults: err.Error()}
		for _, fault := range faults(err) {
			d.log.Error("the settings cannot be used: those before stay in force", "fault", fault.Error())
		}
		return &admin.Faults{Text: err.Error()}
	}
	if d.run == nil {
		closeDoors(newDoors(next.doors, d.inForce.doors))
		if !d.access.isOf(next.access) {
			next.access.close()
		}
		return errNotRunning
	}
	d.putInForce(next)
	d.last = &admin.Reload{At: time.Now()}
	if d.life.after == nil { // else that process has told them already
		d.life.before.Reload() // the sessions of before an upgrade are judged by the same settings
	}
	d.log.Info("the settings were read anew and are in force", "listeners", len(next.doors), "rules", len(next.settings.Rules))
	return nil
}

func (d *Daemon) isRunning() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.run != nil
}

// prepare makes of the settings what is to be in force, and touches nothing that
// is. Callers hold reloading.
func (d *Daemon) prepare(ctx context.Context) (*inForce, error) {
	s, err := d.source.load()
	if err != nil {
		return nil, err
	}
	p, err := openServed(ctx, s, d.inForce, d.log)
	if err != nil {
		return nil, err
	}
	r, err := buildRules(s, d.inForce, p, &d.limits, d.log)
	if err != nil {
		return nil, err
	}
	wanted := s.Listeners
	if d.isReplaced() { // the others are that process's to open
		wanted = stillWanted(wanted, d.inForce.doors)
	}
	key, err := hostKeyOf(s)
	if err != nil {
		return nil, err
	}
	doors, err := openDoors(ctx, d.server, wanted, r.maps, d.inForce.doors, nil, d.log)
	if err != nil {
		return nil, err
	}
	giveHostKey(doors, key)
	to, err := d.access.next(s.Log, d.log)
	if err != nil {
		closeDoors(newDoors(doors, d.inForce.doors))
		return nil, err
	}
	return &inForce{s, r, doors, to}, nil
}

// putInForce puts next in the place of what is in force. It cannot fail. Callers
// hold mu.
func (d *Daemon) putInForce(next *inForce) {
	before := d.inForce
	d.inForce = next
	d.logging.set(next.settings.Log)
	if file := d.access.set(next.access, next.settings.Log); file != nil {
		d.run.all.Go(file.close)
	}
	d.server.SetTimeouts(buildTimeouts(next.settings.Timeouts))
	d.limits.Set(buildLimits(next.settings)) // before the rules that name them
	d.ruling.now.Store(next.rules)           // before anybody comes by a new door
	for _, one := range next.doors {
		one.place.Change(one.listener)
		if !has(before.doors, one.socket) {
			d.run.serve(one)
		}
	}
	closeDoors(newDoors(before.doors, next.doors)) // their sessions are judged like all others
	d.run.watchRules(next.rules)
	if !reflect.DeepEqual(next.settings.Admin, before.settings.Admin) {
		d.log.Warn("what the settings say of admin now is used only after a restart")
	}
	if next.settings.Ledger != before.settings.Ledger {
		d.log.Warn("another ledger is used only after a restart")
	}
	d.server.Review(next.rules.still)
}

// review ends the sessions whose right is gone: of users who are gone or have
// another password, or to what has come into a set, or is no longer in it.
func (d *Daemon) review() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server.Review(d.inForce.rules.still)
}
