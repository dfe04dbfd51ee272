package engine

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
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
	users int  // loops.mu guards it
	spare bool // it is one of those for who moves alone

	fd int // of epoll

	table   table
	queue   []requeued // who waits for the rest of a turn, the first one next
	timers  timers
	now     time.Duration
	scratch []byte
	events  [batch]unix.EpollEvent
	came    int           // how many of events are to be told
	yielded time.Duration // when others last had the processor
	rested  time.Duration // when it last had nothing to do
	eased   time.Duration // when it last had a record move
	resting Timer
	broom   broom
	ended   bool

	mu    sync.Mutex
	tasks []task
	waits bool // it must be woken for a task
	bell  bell
}

const (
	// batch is how many events are taken at once.
	batch = 128

	// scratchSize is how much memory a loop lends to whoever it calls, in bytes.
	scratchSize = 64 << 10

	// turn is for how long those in the queue are served before the loop looks what else has come.
	turn = 2 * time.Millisecond

	// share is for how long a loop keeps the processor from others. Were it longer than 10 ms, the runtime's monitor would take the
	// processor away from it, and look after it far more often from then on.
	share = 8 * time.Millisecond

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
	bell, err := newBell(fd)
	if err != nil {
		closeNow(fd)
		return nil, err
	}
	now := time.Since(epoch)
	l := &Loop{fd: fd, bell: bell, now: now, rested: now}
	l.broom.start(l)
	go l.run()
	return l, nil
}

func (l *Loop) run() {
	defer l.close()
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
		if len(l.queue) == 0 || !l.ease(next.handle) {
			l.tell(next.handle, next.events)
		}
		if time.Since(epoch)-l.now > turn {
			return
		}
	}
}

// wait takes what has come, and waits until something does. It returns the tasks that were posted; the events are in l.events.
func (l *Loop) wait() []task {
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	waits := len(tasks) == 0 && len(l.queue) == 0
	l.waits = waits
	l.mu.Unlock()
	if !waits {
		l.came = pollNow(l.fd, l.events[:])
	} else {
		l.came = poll(l.fd, l.events[:], l.timers.next())
		l.rested = time.Since(epoch)
		l.mu.Lock()
		l.waits = false // tasks that came meanwhile are for the next turn
		l.mu.Unlock()
	}
	if now := time.Since(epoch); now-l.yielded > share {
		l.yielded = now
		runtime.Gosched()
	}
	return tasks
}

// close is the end of a loop.
func (l *Loop) close() {
	closeNow(l.fd)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bell.close()
}

// Post has f run on the loop's goroutine, for r, which is told if it panics. It does not wait for that and may be called from any
// goroutine, the loop's own too. A loop that has ended, for want of users, drops it.
func (l *Loop) Post(r Record, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, task{r, f})
	if l.waits {
		l.waits = false
		l.bell.ring()
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
