package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/admin"
	"github.com/sallyport/sallyport/internal/handover"
)

// running is what Run has started, and how to start more.
type running struct {
	serve  func(*door)
	onStop func(f func()) (forget func() bool) // calls f when Run is to end
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
//
// When another process has taken over (Upgrade), sessions get timeouts.upgrade
// instead; if ctx ends meanwhile, the drain limit counts from then on.
func (d *Daemon) Run(ctx, hurry context.Context) error {
	defer d.endLogs()
	serve, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	endLedger := d.keepLedger(context.WithoutCancel(ctx))
	defer endLedger() // when all sessions have ended: what they moved last is in its last write
	run := d.newRunning(serve)
	run.onStop = func(f func()) func() bool { return context.AfterFunc(ctx, f) }
	d.start(run)
	close(d.begun)
	run.all.Go(func() { d.live.Run(serve) })
	run.all.Go(func() { d.limits.Run(serve, d.log) })
	closeAdmin := d.serveAdmin(serve)
	run.all.Go(func() { d.takeOver(serve) })
	run.all.Go(func() { tidyMemory(serve) })
	var err error
	select {
	case <-ctx.Done():
	case <-d.life.replaced:
	case err = <-run.failed:
		d.log.Error("stopping: a listening socket failed", "error", err)
	}
	limit := d.drain()
	if next := d.leave(); next != nil {
		d.retire(ctx, run, next, closeAdmin)
		if ctx.Err() == nil {
			limit = 0 // nobody is left, or their time is over
		}
	} else {
		d.life.manager.Stopping(limit + stopMargin)
	}
	if ctx.Err() != nil {
		d.log.Info("stopping: no new clients, open sessions may end", "limit", limit)
	}
	d.stop()
	d.shutdown(hurry, limit)
	closeAdmin()
	d.life.before.Close()
	end()
	run.all.Wait()
	return err
}

// serveAdmin answers on the admin socket and the dashboard, where there are any, until
// end is called, which waits for answers under way, or ctx ends.
func (d *Daemon) serveAdmin(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	if d.control != nil {
		d.control.SetUnlinkOnClose(isOwn(d.control.name))
		serving.Go(func() { admin.Serve(ctx, d.control, d.panel(nil).Here(), d.log) })
	}
	if d.page != nil {
		serving.Go(func() { admin.Serve(ctx, d.page, d.panel(d.page.keeper).Page(d.page.secure), d.log) })
	}
	return func() {
		cancel()
		serving.Wait()
	}
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
		one.removePath(one.removes)
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
	return d.run != nil && d.life.after == nil && has(d.inForce.doors, one.socket)
}

// leave ends what is not to go on when Run is to end, and returns the process that has
// taken over. Where there is none, none can from here on.
func (d *Daemon) leave() *handover.Successor {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.after == nil {
		d.endReloads()
	}
	return d.life.after
}

// stopMargin is what stopping takes beyond the time of the sessions, at the most.
const stopMargin = 15 * time.Second

// stop ends reloading.
func (d *Daemon) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endReloads()
}

// endReloads ends reloading, once. Callers hold mu.
func (d *Daemon) endReloads() {
	if d.run != nil {
		d.run.watchRules(nil)
		d.run = nil
	}
}

func (d *Daemon) drain() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inForce.settings.Timeouts.Drain
}

func (d *Daemon) shutdown(hurry context.Context, limit time.Duration) {
	drain, cancel := context.WithTimeout(hurry, limit)
	defer cancel()
	if err := d.server.Shutdown(drain); err != nil {
		d.log.Warn("sessions were cut: they did not end in time")
	}
	d.log.Info("stopped")
}
