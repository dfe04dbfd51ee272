package engine

import (
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Events are what has come for a descriptor since it was last told: they are told once (edge-triggered), so whoever is told that
// there is something to read reads until there is nothing more, or asks to be told again ([Loop.Requeue]).
type Events uint32

// What can come. Of Hung a descriptor is told when both ends have said FIN, and with Failed.
const (
	Readable Events = unix.EPOLLIN
	Writable Events = unix.EPOLLOUT
	Urgent   Events = unix.EPOLLPRI // a read may stop short at the mark though there is more
	Ended    Events = unix.EPOLLRDHUP
	Hung     Events = unix.EPOLLHUP
	Failed   Events = unix.EPOLLERR // there is an error to be met
)

// Record is what a loop works for. Its methods are called on the loop's goroutine only, and must not block.
type Record interface {
	// Ready is called when something has come for a descriptor of the record, h.
	Ready(h Handle, e Events)

	// Expired is called when a timer of the record has come.
	Expired()

	// Broken is called when Ready, Expired or a task of the record has panicked. It ends the record; the loop goes on.
	Broken(fault any, stack []byte)
}

// Loop is one goroutine and what it waits for. But for Attach, Post and Detach, its methods are for records of the loop, on its
// goroutine.
type Loop struct {
	users int // loops.mu guards it

	file *os.File // of epoll
	raw  syscall.RawConn
	fd   int // file's

	table   table
	queue   []requeued // who waits for the rest of a turn, the first one next
	timers  timers
	now     time.Duration
	scratch []byte
	events  [batch]unix.EpollEvent
	came    int // how many of events are to be told
	polls   int // how often epoll was asked in this turn
	poll    func(fd uintptr) bool
	yielded time.Duration // when others last had the processor
	resting Timer
	ended   bool

	mu       sync.Mutex
	tasks    []task
	parked   bool          // it waits, and must be woken for a task
	deadline time.Duration // of file: when the waiting ends by itself; the clock is that of now
}

const (
	// batch is how many events are taken at once.
	batch = 128

	// scratchSize is how much memory a loop lends to whoever it calls, in bytes.
	scratchSize = 64 << 10

	// turn is for how long those in the queue are served before the loop looks what else has come.
	turn = 2 * time.Millisecond

	// share is for how long a loop that always has something to do keeps the processor from others.
	share = time.Millisecond

	never = time.Duration(1<<63 - 1)
)

type task struct {
	record Record
	run    func()
}

type requeued struct {
	handle Handle
	events Events
}

// epoch is where the clock of loops begins.
var epoch = time.Now()

// start makes a loop and its goroutine.
func start() (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else the runtime would not wait for it in its own poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &Loop{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, deadline: never, now: time.Since(epoch)}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	l.poll = l.take
	go l.run()
	return l, nil
}

func (l *Loop) run() {
	defer l.file.Close()
	for !l.ended {
		tasks := l.wait()
		l.now = time.Since(epoch)
		for i := range l.events[:l.came] {
			e := &l.events[i]
			l.tell(Handle(uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32), Events(e.Events))
		}
		for _, t := range tasks {
			do(t)
		}
		for l.ring() {
		}
		l.serve()
	}
}

// serve tells those who wait in the queue, for the rest of the turn: what comes anew must not wait for all of them.
func (l *Loop) serve() {
	for len(l.queue) > 0 {
		next := l.queue[0]
		if l.queue = l.queue[1:]; len(l.queue) == 0 {
			l.queue = nil // and with it what is left in front of it
		}
		l.tell(next.handle, next.events)
		if time.Since(epoch)-l.now > turn {
			return
		}
	}
}

// wait takes what has come, and parks until something does. It returns the tasks that were posted; the events are in l.events.
func (l *Loop) wait() []task {
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	l.parked = len(tasks) == 0 && len(l.queue) == 0
	if l.parked {
		l.setDeadline(l.timers.next())
	}
	l.mu.Unlock()
	l.came, l.polls = 0, 0
	if len(tasks) > 0 || len(l.queue) > 0 {
		l.take(uintptr(l.fd))
	} else {
		_ = l.raw.Read(l.poll) // ends by the deadline, too
		if l.polls == 0 {      // and did so before it asked: what comes must not wait until no timer is due
			l.take(uintptr(l.fd))
		}
		l.mu.Lock()
		l.parked = false // tasks that came meanwhile are for the next turn
		l.mu.Unlock()
	}
	if l.polls != 1 {
		l.yielded = l.now // it has waited
	} else if l.now-l.yielded > share {
		l.yielded = l.now
		runtime.Gosched()
	}
	return tasks
}

// take asks epoll without waiting, and reports whether anything has come.
func (l *Loop) take(fd uintptr) bool {
	for {
		n, err := pollNow(int(fd), l.events[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		l.polls++
		l.came = max(0, n)
		return l.came > 0
	}
}

// setDeadline makes a wait end at a time of the loop's clock, at the latest. Callers hold mu.
func (l *Loop) setDeadline(at time.Duration) {
	if at == l.deadline || l.now < l.deadline && l.deadline < at {
		return // that it wakes too early once costs less than to change it again and again
	}
	l.deadline = at
	var t time.Time
	if at != never {
		t = epoch.Add(at)
	}
	_ = l.file.SetReadDeadline(t) // of a file that can be waited for it does not fail
}

// Post has f run on the loop's goroutine, for r, which is told if it panics. It does not wait for that and may be called from any
// goroutine, the loop's own too. A loop that has ended, for want of users, drops it.
func (l *Loop) Post(r Record, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, task{r, f})
	if l.parked {
		l.parked = false
		l.setDeadline(0)
	}
}

// Now returns the time at which the loop last woke, by a clock of its own that goes on steadily.
func (l *Loop) Now() time.Duration { return l.now }

// Scratch returns 64 KiB of memory that the caller may use until it returns to the loop.
func (l *Loop) Scratch() []byte {
	if l.scratch == nil {
		l.scratch = make([]byte, scratchSize)
	}
	return l.scratch
}

// tell passes on what has come for h, if it still stands for a descriptor.
func (l *Loop) tell(h Handle, e Events) {
	r := l.table.record(h)
	if r == nil {
		return
	}
	defer contain(r)
	r.Ready(h, e)
}

func do(t task) {
	defer contain(t.record)
	t.run()
}

// contain keeps a fault of a record's own code to that record.
func contain(r Record) {
	if fault := recover(); fault != nil {
		r.Broken(fault, debug.Stack())
	}
}
