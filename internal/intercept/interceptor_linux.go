//go:build amd64 || arm64

package intercept

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/relay"
)

// maxConnects is how many connections may be on their way through the proxy at once. One
// more is refused with EADDRNOTAVAIL, which programs also get where no port is free.
const maxConnects = 512

// Interceptor leads the connections of one command through a proxy. Make it with Open.
type Interceptor struct {
	dial     Dial
	calls    *notifier
	door     *door
	names    *names
	search   search
	resolver *resolver
	home     namespaces     // those that this process is in
	commands chan *exec.Cmd // to be started by the thread whose descendants are watched
	started  chan error     // how that went
	gone     chan struct{}  // closed when it is all over
	work     sync.WaitGroup // all goroutines but the thread's
	connects chan struct{}  // a place for each that is on its way
	passages passages
}

// Open prepares for one command. Where the system does not let a process watch its
// descendants (other systems and architectures, Linux before 5.19, many containers) its
// error says what is missing. Whoever opens it calls Serve, which closes it.
func Open(ctx context.Context, dial Dial) (*Interceptor, error) {
	i := &Interceptor{
		dial:     dial,
		names:    newNames(maxStandIns),
		search:   readSearch(resolverFile),
		commands: make(chan *exec.Cmd),
		started:  make(chan error),
		gone:     make(chan struct{}),
		connects: make(chan struct{}, maxConnects),
		passages: passages{by: map[netip.AddrPort]*passage{}},
	}
	err := canLookInside()
	if err != nil {
		return nil, err
	}
	if i.home, err = namespacesOf(os.Getpid()); err != nil {
		return nil, err
	}
	if i.door, err = openDoor(ctx); err != nil {
		return nil, err
	}
	if i.resolver, err = openResolver(ctx, i.names); err != nil {
		i.door.close()
		return nil, err
	}
	installed := make(chan error)
	go i.thread(installed)
	if err = <-installed; err != nil {
		i.resolver.close()
		i.door.close()
		return nil, err
	}
	return i, nil
}

// thread is where the command is started: what it starts is watched, and nothing else of
// this process. The thread cannot be used for anything else, and so it ends. The first of
// a process would not; while that is held, another one is taken.
func (i *Interceptor) thread(installed chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		i.startWatched(installed)
		return
	}
	defer runtime.UnlockOSThread()
	taken := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(taken)
		i.startWatched(installed)
	}()
	<-taken
}

// startWatched is thread, on the right one.
func (i *Interceptor) startWatched(installed chan<- error) {
	var err error
	i.calls, err = install()
	installed <- err
	if err != nil {
		return
	}
	select {
	case command := <-i.commands:
		i.started <- command.Start()
	case <-i.gone:
	}
}

// Start is the command's Start, with which it is watched: it and all that it starts, which
// gain no privileges by what they run (setuid). It may be called once, beside Serve.
func (i *Interceptor) Start(command *exec.Cmd) error {
	select {
	case i.commands <- command:
		return <-i.started
	case <-i.gone:
		return os.ErrClosed
	}
}

// Serve answers for the command until ctx ends, and then closes all that there is: what
// is left of the command and of its descendants has no network. What they have said still
// arrives. It blocks until everything that it has started has ended, but for the command.
func (i *Interceptor) Serve(ctx context.Context) {
	relays, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	i.work.Go(i.door.serve)
	i.work.Go(i.resolver.serve)
	i.work.Go(func() { i.supervise(ctx, relays) })
	<-ctx.Done()
	close(i.gone)
	deserted := i.calls.isDeserted()
	i.calls.close()
	i.drain(deserted)
	cut()
	i.door.close()
	i.resolver.close()
	i.work.Wait()
}

// drain waits until the connections of the command have ended, as they do when it has, or
// nobody has sent anything for a while. Where a process is left in the background, its
// connections may stay open for ever, and do not hold up the end for long; where none is, what
// they have not delivered yet is the last that was said, and worth more patience.
func (i *Interceptor) drain(deserted bool) {
	const look = 20 * time.Millisecond
	silence, most := time.Second, time.Minute
	if deserted {
		silence, most = 5*time.Second, time.Hour
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	begun := time.Now()
	last, sent := begun, int64(0)
	for i.passages.count() > 0 && time.Since(last) < silence && time.Since(begun) < most {
		<-tick.C
		if now := i.passages.sent(); now != sent {
			last, sent = time.Now(), now
		}
	}
}

// relay moves the bytes of a connection until it ends. It closes both.
func (i *Interceptor) relay(ctx context.Context, p *passage) {
	const halfClosed = 10 * time.Minute
	defer p.program.Close()
	defer p.proxy.Close()
	defer i.passages.end(p)
	_ = relay.Run(ctx, relay.Side{Conn: p.program}, relay.Side{Conn: p.proxy}, &p.meter, relay.Limits{HalfClosed: halfClosed}) // both ends have heard of it
}
