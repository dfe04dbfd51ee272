package daemon

import (
	"context"
	"fmt"
	"time"
)

// takeOver tells whoever was before, and whoever manages the service, that this
// process serves, and from then on that it is alive. It blocks until ctx ends, or
// another process takes over.
func (d *Daemon) takeOver(ctx context.Context) {
	err := d.life.before.Ready()
	close(d.life.inPlace)
	switch {
	case err != nil:
		d.log.Error("the process before cannot be told that this one serves", "error", err)
		return
	case d.life.before != nil:
		d.log.Info("this process has taken over")
	}
	d.tellReady()
	patience := d.life.manager.Patience()
	if patience <= 0 {
		return
	}
	ticker := time.NewTicker(patience / 3)
	defer ticker.Stop()
	d.signsOfLife(ctx, ticker.C)
}

// signsOfLife gives one with each tick, as long as the last was given.
func (d *Daemon) signsOfLife(ctx context.Context, ticks <-chan time.Time) {
	probes := make(chan struct{}, 1)
	probes <- struct{}{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.life.replaced:
			return
		case <-ticks:
		}
		select {
		case <-probes:
			go d.probe(probes)
		default: // the last has not come back: the daemon is stuck
		}
	}
}

// probe takes the locks that no session does without, and says so. It comes back at
// once, or the daemon is stuck, and the service manager hears nothing more.
func (d *Daemon) probe(back chan<- struct{}) {
	_ = d.Status() // what it says is for people
	d.life.manager.Alive()
	back <- struct{}{}
}

// tellReady tells the service manager that the settings are in force.
func (d *Daemon) tellReady() {
	d.mu.Lock()
	doors, replaced := len(d.inForce.doors), d.life.after != nil
	d.mu.Unlock()
	if !replaced {
		d.life.manager.Ready(fmt.Sprintf("Serving %d listeners", doors))
	}
}

func (d *Daemon) tellReloading() {
	if !d.isReplaced() {
		d.life.manager.Reloading()
	}
}
