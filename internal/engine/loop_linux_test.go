package engine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// probe is a record whose methods are functions.
type probe struct {
	ready   func(h Handle, e Events)
	expired func()
	broken  func(fault any)
}

func (p *probe) Ready(h Handle, e Events) { p.ready(h, e) }
func (p *probe) Expired()                 { p.expired() }
func (p *probe) Broken(fault any, _ []byte) {
	if p.broken != nil {
		p.broken(fault)
	}
}

// attach returns a loop for the time of the test, and a way to run a function on it and wait for that.
func attach(t *testing.T) (l *Loop, do func(f func())) {
	t.Helper()
	l, err := Attach()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Detach)
	return l, func(f func()) {
		t.Helper()
		done := make(chan struct{})
		l.Post(&probe{}, func() { defer close(done); f() })
		await(t, done, "a task")
	}
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not come", what)
		panic("unreachable")
	}
}

// pair returns two connected sockets that do not block.
func pair(t *testing.T) (near, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func add(t *testing.T, l *Loop, fd int, r Record) Handle {
	t.Helper()
	h, err := l.Add(fd, r, Writable)
	if err != nil {
		t.Error(err)
	}
	return h
}

func write(t *testing.T, fd int, what string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(what)); err != nil {
		t.Error(err)
	}
}

func TestEventsAreTold(t *testing.T) {
	l, do := attach(t)
	near, far := pair(t)
	got := make(chan Events, 10)
	var h Handle
	do(func() {
		h = add(t, l, near, &probe{ready: func(told Handle, e Events) {
			if told != h {
				t.Errorf("told of %x, want %x", told, h)
			}
			got <- e
		}})
	})
	if e := await(t, got, "an event"); e != Writable {
		t.Errorf("a new socket is %x, want %x", e, Writable)
	}
	write(t, far, "x")
	if e := await(t, got, "an event"); e&Readable == 0 {
		t.Errorf("after a byte it is %x", e)
	}
	if err := unix.Shutdown(far, unix.SHUT_WR); err != nil {
		t.Error(err)
	}
	if e := await(t, got, "an event"); e&Ended == 0 {
		t.Errorf("after a FIN it is %x", e)
	}
	_ = unix.Close(far)
	if e := await(t, got, "an event"); e&Hung == 0 {
		t.Errorf("after the end it is %x", e)
	}
	do(func() { l.Close(h) })
	if err := unix.SetNonblock(near, true); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that was closed: %v", err)
	}
}

// TestAwaitRoom: of room to write only those are told that ask for it, and at once where it is there.
func TestAwaitRoom(t *testing.T) {
	l, do := attach(t)
	near, far := pair(t)
	defer unix.Close(far)
	got := make(chan Events, 10)
	var h Handle
	do(func() {
		var err error
		if h, err = l.Add(near, &probe{ready: func(_ Handle, e Events) { got <- e }}, 0); err != nil {
			t.Error(err)
		}
	})
	write(t, far, "x")
	if e := await(t, got, "an event"); e != Readable {
		t.Errorf("a socket with room that has not asked for it was told %x, want %x", e, Readable)
	}
	do(func() { l.AwaitRoom(h) })
	if e := await(t, got, "an event"); e&Writable == 0 {
		t.Errorf("one with room that has asked was told %x, want %x", e, Writable)
	}
	for piece := make([]byte, 64<<10); ; {
		if _, err := unix.Write(near, piece); err != nil {
			break
		}
	}
	for piece := make([]byte, 64<<10); ; {
		if _, err := unix.Read(far, piece); err != nil {
			break
		}
	}
	if e := await(t, got, "an event"); e&Writable == 0 {
		t.Errorf("one that has room again was told %x, want %x", e, Writable)
	}
	do(func() {
		l.Close(h)
		l.AwaitRoom(h) // nothing comes of it
	})
}

// TestStaleEvents: of two descriptors for which something has come in one turn, whoever is told first closes both, and adds a
// third, which gets the place of the second. It is not told what came for that.
func TestStaleEvents(t *testing.T) {
	l, do := attach(t)
	first, farFirst := pair(t)
	second, farSecond := pair(t)
	third, farThird := pair(t)
	for _, fd := range []int{farFirst, farSecond, farThird} {
		defer unix.Close(fd)
	}
	var handles [2]Handle
	told := make(chan Events, 10)
	var h3 Handle
	do(func() {
		armed := false
		r := &probe{}
		r.ready = func(Handle, Events) {
			if !armed {
				return
			}
			for _, h := range handles {
				l.Close(h)
			}
			h3 = add(t, l, third, &probe{ready: func(_ Handle, e Events) { told <- e }})
			armed = false
		}
		handles = [2]Handle{add(t, l, first, r), add(t, l, second, r)}
		l.Post(r, func() { // the loop is here while both come, so that they are taken together
			l.Post(r, func() {
				armed = true
				write(t, farFirst, "x")
				write(t, farSecond, "x")
			})
		})
	})
	if e := await(t, told, "an event of the third"); e != Writable {
		t.Errorf("the third was told %x, want %x", e, Writable)
	}
	do(func() {
		if place := uint32(h3); place != uint32(handles[0]) && place != uint32(handles[1]) {
			t.Error("the third did not get a place that was used before: the test shows nothing")
		}
		l.tell(handles[0], Readable)
		l.tell(handles[1], Readable)
		l.Hand(handles[0], &probe{})
		l.Close(handles[1])
		if l.Descriptor(h3) != third || l.Descriptor(handles[0]) != -1 || l.Release(handles[1]) != -1 {
			t.Error("a handle that is over stands for something")
		}
		l.Close(h3)
	})
	if len(told) > 0 {
		t.Errorf("the third was told of others: %x", <-told)
	}
}

func TestRequeueAndHand(t *testing.T) {
	l, do := attach(t)
	near, far := pair(t)
	defer unix.Close(far)
	var order []string
	done := make(chan struct{})
	do(func() {
		var h Handle
		second := &probe{ready: func(_ Handle, e Events) {
			order = append(order, fmt.Sprintf("second %x", e))
			if l.Release(h) != near {
				t.Error("another descriptor was released")
			}
			close(done)
		}}
		turns := 0
		h = add(t, l, near, &probe{ready: func(_ Handle, e Events) {
			order = append(order, fmt.Sprintf("first %x", e))
			if turns++; turns == 3 {
				l.Hand(h, second)
			}
			l.Requeue(h, Readable)
			l.Requeue(0, Readable) // stands for nothing
		}})
	})
	await(t, done, "the second record's turn")
	if got := fmt.Sprint(order); got != "[first 4 first 1 first 1 second 1]" {
		t.Errorf("told %s", got)
	}
	write(t, near, "still open")
	_ = unix.Close(near)
}

// TestQueueHoldsUpNobody: whoever is always in the queue again keeps nobody from events, tasks and timers.
func TestQueueHoldsUpNobody(t *testing.T) {
	l, do := attach(t)
	busy, farBusy := pair(t)
	near, far := pair(t)
	defer unix.Close(farBusy)
	defer unix.Close(far)
	told, rung := make(chan Events, 10), make(chan struct{})
	var h, hungry Handle
	var timer Timer
	do(func() {
		hungry = add(t, l, busy, &probe{ready: func(Handle, Events) { l.Requeue(hungry, Readable) }})
		r := &probe{ready: func(_ Handle, e Events) { told <- e }, expired: func() { close(rung) }}
		h = add(t, l, near, r)
		l.Set(&timer, r, l.Now()+time.Millisecond)
	})
	for range 3 {
		await(t, told, "an event")
		write(t, far, "x")
		do(func() {})
	}
	await(t, rung, "the timer")
	do(func() {
		l.Close(h)
		l.Close(hungry)
	})
}

func TestTimers(t *testing.T) {
	l, do := attach(t)
	var order []int
	done := make(chan struct{})
	timers := make([]Timer, 6)
	do(func() {
		records := make([]*probe, len(timers))
		for i := range timers {
			records[i] = &probe{expired: func() {
				order = append(order, i)
				if i == 4 {
					close(done)
				}
			}}
			l.Set(&timers[i], records[i], l.Now()+time.Hour)
		}
		at := func(i int, d time.Duration) { l.Set(&timers[i], records[i], l.Now()+d) }
		at(3, 2*time.Millisecond)
		at(1, 30*time.Millisecond)
		at(4, 40*time.Millisecond)
		at(0, 10*time.Millisecond)
		at(2, time.Millisecond)
		l.Stop(&timers[2])
		l.Stop(&timers[2])
		at(1, 20*time.Millisecond)
	})
	await(t, done, "the last timer")
	do(func() {
		if got := fmt.Sprint(order); got != "[3 0 1 4]" {
			t.Errorf("the timers came in the order %s", got)
		}
		for i := range timers {
			if set := timers[i].place != 0; set != (i == 5) {
				t.Errorf("timer %d is set: %v", i, set)
			}
		}
		l.Stop(&timers[5])
	})
}

// TestCoarseTimers: where the system cannot wait to the nanosecond timers come all the same, and not before their time.
func TestCoarseTimers(t *testing.T) {
	coarse.Store(true)
	defer coarse.Store(false)
	l, do := attach(t)
	var timer Timer
	came := make(chan time.Duration, 1)
	var due time.Duration
	do(func() { // the loop may wait already, and not coarsely
		due = l.Now() + 1500*time.Microsecond
		l.Set(&timer, &probe{expired: func() { came <- l.Now() }}, due)
	})
	if at := await(t, came, "the timer"); at < due {
		t.Errorf("it came at %v, want %v", at, due)
	}
	do(func() {}) // a task wakes a loop that waits for ever
}

// TestTimersGiveRoomBack: after many there is room for few, and they still come in order.
func TestTimersGiveRoomBack(t *testing.T) {
	l, do := attach(t)
	do(func() {
		r := &probe{}
		all := make([]Timer, 10_000)
		for i := range all {
			l.Set(&all[i], r, l.Now()+time.Hour+time.Duration(i))
		}
		for i := range all[:9_990] {
			l.Stop(&all[i])
		}
		if room := cap(l.timers); room > 4*fewTimers {
			t.Errorf("there is room for %d", room)
		}
		for i := 9_990; i < len(all); i++ {
			if at := l.timers[all[i].place-1]; at.timer != &all[i] || l.timers.next() > at.at {
				t.Errorf("timer %d is at %v, and the next one at %v", i, at.at, l.timers.next())
			}
			l.Stop(&all[i])
		}
	})
}

// TestTasksFromAnywhere: every task is run once, and those of one goroutine in its order, whether the loop sleeps or not.
func TestTasksFromAnywhere(t *testing.T) {
	l, do := attach(t)
	const each = 2000
	var wg sync.WaitGroup
	last := make([]int, 8)
	for g := range last {
		wg.Go(func() {
			for i := range each {
				l.Post(&probe{}, func() {
					if last[g] != i {
						t.Errorf("task %d of %d comes after %d", i, g, last[g]-1)
					}
					last[g] = i + 1
				})
				if i%100 == 0 {
					do(func() {}) // lets it fall asleep
				}
			}
		})
	}
	wg.Wait()
	do(func() {
		for g, n := range last {
			if n != each {
				t.Errorf("%d tasks of %d were run", n, g)
			}
		}
	})
}

// TestPanicIsContained: whichever call panics, its record is told, and all others go on.
func TestPanicIsContained(t *testing.T) {
	l, do := attach(t)
	near, far := pair(t)
	defer unix.Close(far)
	broken := make(chan any, 3)
	var h Handle
	var timer Timer
	r := &probe{
		ready:   func(Handle, Events) { panic("ready") },
		expired: func() { panic("expired") },
		broken:  func(fault any) { broken <- fault },
	}
	do(func() {
		h = add(t, l, near, r)
		l.Set(&timer, r, l.Now()+time.Millisecond)
		l.Post(r, func() { panic("task") })
	})
	seen := make(map[any]bool)
	for range 3 {
		seen[await(t, broken, "the end of a record")] = true
	}
	for _, fault := range []string{"ready", "expired", "task"} {
		if !seen[fault] {
			t.Errorf("the record was not told that %q panicked", fault)
		}
	}
	do(func() { l.Close(h) })
}

func TestAddFails(t *testing.T) {
	l, do := attach(t)
	do(func() {
		if _, err := l.Add(-1, &probe{}, 0); err == nil {
			t.Error("a descriptor that is none was added")
		}
		for i := range l.table.slots {
			if l.table.slots[i].record != nil {
				t.Error("it has a place in the table")
			}
		}
	})
}

// TestLoopsComeAndGo: users are spread over one loop fewer than there are processors, and nothing is left of them.
func TestLoopsComeAndGo(t *testing.T) {
	const most = 3
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(most + 1))
	waitFor(t, "the loops of other tests end", func() bool { return len(running()) == 0 })
	files, routines := descriptors(t), runtime.NumGoroutine()
	var attached []*Loop
	for range 3 * most {
		l, err := Attach()
		if err != nil {
			t.Fatal(err)
		}
		attached = append(attached, l)
	}
	if got := len(running()); got != most {
		t.Errorf("%d loops, want %d", got, most)
	}
	if held := descriptors(t) - files; held > Descriptors() {
		t.Errorf("%d descriptors are held, want %d at most", held, Descriptors())
	}
	for _, l := range running() {
		if l.users != 3 {
			t.Errorf("a loop has %d users, want 3", l.users)
		}
	}
	attached[0].Share()
	for _, l := range append(attached, attached[0]) {
		l.Detach()
	}
	waitFor(t, "all is as before", func() bool {
		return len(running()) == 0 && descriptors(t) <= files && runtime.NumGoroutine() <= routines
	})
	attached[0].Post(&probe{}, func() { t.Error("a loop that has ended runs a task") })
}

// running returns the loops that there are.
func running() []*Loop {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	return append([]*Loop(nil), loops.all...)
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Errorf("not so: %s", what)
}

// TestTimersHoldUpNobody: a loop that always has a timer to call tells of events nevertheless.
func TestTimersHoldUpNobody(t *testing.T) {
	l, do := attach(t)
	near, far := pair(t)
	defer unix.Close(far)
	told := make(chan struct{})
	var tick Timer
	var h Handle
	r := &probe{}
	r.expired = func() { l.Set(&tick, r, l.Now()+time.Nanosecond) }
	r.ready = func(_ Handle, e Events) {
		if e&Readable != 0 {
			l.Stop(&tick)
			l.Close(h)
			close(told)
		}
	}
	ticking := make(chan struct{})
	do(func() {
		h = add(t, l, near, r)
		l.Set(&tick, r, l.Now()+time.Nanosecond)
	})
	var first Timer
	do(func() {
		l.Set(&first, &probe{expired: func() { close(ticking) }}, l.Now()+time.Millisecond)
	})
	await(t, ticking, "a timer among others")
	write(t, far, "x")
	await(t, told, "a byte")
}

// TestAgesWrap: a place that was given as often as can be counted does not become no handle.
func TestAgesWrap(t *testing.T) {
	var places table
	r := &probe{}
	old := places.add(r, 7)
	places.remove(old)
	places.slots[0].age = math.MaxUint32
	h := places.add(r, 8)
	if h == 0 || places.record(h) != r {
		t.Errorf("%x is the handle", h)
	}
	if places.record(0) != nil {
		t.Error("none is a record's")
	}
}
