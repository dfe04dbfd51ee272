package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
)

// running is what Run has started, and how to start more.
type running struct {
	serve  func(*door)
	watch  func(*rules) context.CancelFunc
	failed chan error // of the first socket that failed by itself
	all    sync.WaitGroup

	unwatch context.CancelFunc // ends the last watch; nil: there is none. Guarded by the daemon's mutex

	follow   func(*people) context.CancelFunc
	people   *people            // who is followed now; nil: nobody. Guarded by the daemon's mutex
	unfollow context.CancelFunc // ends that. Guarded by the daemon's mutex
}

// Run serves until ctx ends, then drains: it takes no new clients and lets the
// sessions end by themselves, until the drain limit has passed or hurry ends.
// It returns nil after that, or an error when a listening socket fails. It
// returns when everything it started has ended.
func (d *Daemon) Run(ctx, hurry context.Context) error {
	defer d.endLog()
	serve, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	endLedger := d.keepLedger(context.WithoutCancel(ctx))
	defer endLedger() // when all sessions have ended: what they moved last is in its last write
	run := d.newRunning(serve)
	d.start(run)
	run.all.Go(func() { d.live.Run(serve) })
	run.all.Go(func() { d.limits.Run(serve, d.log) })
	if d.control != nil {
		run.all.Go(func() { admin.Serve(serve, d.control, d, d.log) })
	}
	var err error
	select {
	case <-ctx.Done():
		d.log.Info("stopping: no new clients, open sessions may end", "limit", d.drain())
	case err = <-run.failed:
		d.log.Error("stopping: a listening socket failed", "error", err)
	}
	d.stop()
	d.shutdown(hurry)
	end()
	run.all.Wait()
	return err
}

func (d *Daemon) newRunning(serve context.Context) *running {
	run := &running{failed: make(chan error, 1)}
	run.serve = func(one *door) {
		run.all.Go(func() {
			if err := one.place.Serve(serve); d.wants(one) {
				select {
				case run.failed <- err:
				default: // another one has, before
				}
			}
		})
	}
	run.watch = func(r *rules) context.CancelFunc {
		ctx, cancel := context.WithCancel(serve)
		if r.file != nil {
			run.all.Go(func() { r.file.Watch(ctx, d.review) })
		}
		for _, set := range r.lists.sets {
			run.all.Go(func() { set.Watch(ctx, d.review) })
		}
		run.all.Go(func() { r.ways.watch(ctx) })
		run.all.Go(func() { r.maps.watch(ctx) })
		return cancel
	}
	run.follow = func(p *people) context.CancelFunc {
		ctx, cancel := context.WithCancel(serve)
		run.all.Go(func() { p.watch(ctx, d) })
		return cancel
	}
	return run
}

// start begins to serve what is in force.
func (d *Daemon) start(run *running) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run = run
	for _, one := range d.inForce.doors {
		run.serve(one)
	}
	run.watchRules(d.inForce.rules)
}

// watchRules watches what these rules rest on (nil: nothing), in the place of
// the last: the users file, the files of sets, and the proxies that they send
// sessions to. Callers hold the daemon's mutex.
func (run *running) watchRules(r *rules) {
	if run.unwatch != nil {
		run.unwatch()
		run.unwatch = nil
	}
	if r != nil {
		run.unwatch = run.watch(r)
		run.followPeople(r.people)
	} else {
		run.followPeople(nil)
	}
}

// followPeople follows the changes of people, in the place of the last: across reloads
// they are the same. Callers hold the daemon's mutex.
func (run *running) followPeople(p *people) {
	if p == run.people {
		return
	}
	if run.people != nil {
		run.unfollow()
	}
	run.people, run.unfollow = p, nil
	if p != nil {
		run.unfollow = run.follow(p)
	}
}

// wants reports whether a door is to be served.
func (d *Daemon) wants(one *door) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.run != nil && has(d.inForce.doors, one.socket)
}

// stop ends reloading.
func (d *Daemon) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run.watchRules(nil)
	d.run = nil
}

func (d *Daemon) drain() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inForce.settings.Timeouts.Drain
}

func (d *Daemon) shutdown(hurry context.Context) {
	drain, cancel := context.WithTimeout(hurry, d.drain())
	defer cancel()
	if err := d.server.Shutdown(drain); err != nil {
		d.log.Warn("sessions were cut: they did not end in time")
	}
	d.log.Info("stopped")
}
