package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

// startRecord begins a relay by Start, which must take a loop.
func startRecord(t *testing.T, network string, l Limits) (*socketRig, *record) {
	t.Helper()
	r := newSocketRig(t, listen(t, network), looped)
	started := r.start(l)
	on, ok := started.(*record)
	if !ok {
		t.Fatalf("a relay between two sockets is a %T", started)
	}
	r.cancel = on.End
	return r, on
}

// start begins a relay that goes on by itself.
func (r *socketRig) start(l Limits) Relay {
	return r.startWith("", l)
}

// startWith is start with what was read from the client before.
func (r *socketRig) startWith(head string, l Limits) Relay {
	started := New(Side{Conn: r.nearClient, Head: []byte(head)}, Side{Conn: r.nearTarget}, &r.meter, l)
	started.Start(func(err error) { r.ended <- err })
	return started
}

// TestHeadAlone: what was read before goes to the target, and be it that nothing else ever comes.
func TestHeadAlone(t *testing.T) {
	r := newSocketRig(t, listen(t, "tcp"), looped).run(t.Context(), "early bird", Limits{})
	if err := r.target.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("early bird"))
	if _, err := io.ReadFull(r.target, got); string(got) != "early bird" {
		t.Errorf("%q has come, %v", got, err)
	}
	r.cancel(context.Canceled)
	r.wantReset(t, context.Canceled)
}

// TestRecordsHaveNoGoroutine: what is left of relays that were handed over is their loops, and those end with them.
func TestRecordsHaveNoGoroutine(t *testing.T) {
	const relays = 50
	before := runtime.NumGoroutine()
	most := before + runtime.GOMAXPROCS(0)
	var rigs []*socketRig
	for range relays {
		r, _ := startRecord(t, "tcp", Limits{Idle: time.Hour})
		rigs = append(rigs, r)
	}
	if n := runtime.NumGoroutine(); n > most {
		t.Errorf("%d goroutines, want %d", n, most)
	}
	for _, r := range rigs {
		say(t, r.client, "hello?")
		hear(t, r.target, "hello?")
		say(t, r.target, "yes")
		hear(t, r.client, "yes")
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		if err := r.end(t); err != nil {
			t.Error(err)
		}
		wantMeter(t, &r.meter, 6, 3)
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before }, func() string { return "the loops go on" })
}

func TestRecordIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(record{}); size > 200 {
		t.Errorf("a relay on a loop has %d bytes, want at most 200", size)
	}
}

func TestRecordsEnd(t *testing.T) {
	cause := errors.New("killed by the administrator")
	for name, test := range map[string]struct {
		limits Limits
		act    func(r *socketRig)
		want   error
		resets func(r *socketRig) socketConn
	}{
		"client reset": {Limits{}, func(r *socketRig) { reset(r.client) }, ErrClientReset, func(r *socketRig) socketConn { return r.target }},
		"target reset": {Limits{}, func(r *socketRig) { reset(r.target) }, ErrTargetReset, func(r *socketRig) socketConn { return r.client }},
		"from outside": {Limits{}, func(r *socketRig) { r.cancel(cause) }, cause, func(r *socketRig) socketConn { return r.client }},
		"idle": {
			Limits{Idle: 200 * time.Millisecond},
			func(*socketRig) {}, ErrIdle,
			func(r *socketRig) socketConn { return r.client },
		},
		"half-closed": {
			Limits{Idle: time.Hour, HalfClosed: 50 * time.Millisecond},
			func(r *socketRig) { _ = r.client.CloseWrite() }, ErrHalfClosed,
			func(r *socketRig) socketConn { return r.client },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, on := startRecord(t, "tcp", test.limits)
			test.act(r)
			r.wantReset(t, test.want, test.resets(r))
			on.End(errors.New("too late"))
			on.loop().Post(on, func() { on.Broken("too late", nil) })
		})
	}
}

// TestLongPatience: a relay that may be silent for long sets no timer for it, and ends all the same, but not in a pause.
func TestLongPatience(t *testing.T) {
	r, on := startRecord(t, "tcp", Limits{Idle: 2 * longPatience})
	done := make(chan struct{})
	on.loop().Post(on, func() {
		defer close(done)
		if on.timer != (engine.Timer{}) {
			t.Error("it has set a timer")
		}
		on.Swept()
		if on.over {
			t.Error("it has ended too soon")
		}
		on.last -= 2 * longPatience
		on.flows[0].resume = on.loop().Now() + time.Hour
		on.Swept()
		if on.over {
			t.Error("it has ended in a pause")
		}
		on.flows[0].resume = 0
		on.Swept()
	})
	<-done
	r.wantReset(t, ErrIdle, r.client)
}

// TestSilenceBeginsAnew with every byte, and a half-closed relay has its own patience.
func TestSilenceBeginsAnew(t *testing.T) {
	r, _ := startRecord(t, "tcp", Limits{Idle: 300 * time.Millisecond})
	for range 10 {
		<-time.After(50 * time.Millisecond)
		say(t, r.target, "x")
		hear(t, r.client, "x")
	}
	r.wantReset(t, ErrIdle, r.client, r.target)
	wantMeter(t, &r.meter, 0, 10)
}

// TestRecordsOfAnySort: bytes come in any size, pause and order, one way and both ways, and ends too. None is lost, and no relay
// stops.
func TestRecordsOfAnySort(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 40 {
		network := [...]string{"tcp", "unix"}[i/4%2]
		r, on := startRecord(t, network, Limits{Idle: time.Minute})
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 5))
			var up, down int64
			for range 100 {
				<-time.After(time.Duration(rnd.IntN(2500)) * time.Microsecond)
				size := 1 + rnd.IntN(1<<rnd.IntN(19))
				from, to, sum := r.client, r.target, &up
				if rnd.IntN(2) == 0 {
					from, to, sum = r.target, r.client, &down
				}
				*sum += int64(size)
				push(t, from, to, size)
			}
			switch {
			case i%4 == 0 && network == "tcp":
				reset(r.client)
				r.wantReset(t, ErrClientReset, r.target)
			case i%4 == 1 && network == "tcp":
				on.End(context.Canceled)
				r.wantReset(t, context.Canceled, r.client, r.target)
			default:
				_ = r.client.CloseWrite()
				hearEOF(t, r.target)
				say(t, r.target, "last words")
				_ = r.target.CloseWrite()
				hear(t, r.client, "last words")
				hearEOF(t, r.client)
				if err := r.end(t); err != nil {
					t.Error(err)
				}
				wantMeter(t, &r.meter, up, down+10)
			}
		})
	}
	wg.Wait()
}

// TestBlockedWayDoesNotBlockTheOther: nor does it take part in any turn.
func TestBlockedWayDoesNotBlockTheOther(t *testing.T) {
	for range 20 {
		r, on := startRecord(t, "tcp", Limits{})
		fill(t, r.client) // the way up is blocked for good
		for range 5 {
			say(t, r.target, "down")
			hear(t, r.client, "down")
		}
		on.End(context.Canceled)
		r.wantReset(t, context.Canceled, r.client)
	}
}

// TestUrgentByte: a read that ends at the mark of an urgent byte is not the last.
func TestUrgentByte(t *testing.T) {
	r, on := startRecord(t, "tcp", Limits{})
	for range 50 {
		say(t, r.client, strings.Repeat("a", 1000))
		sendUrgent(t, r.client, "!")
		say(t, r.client, strings.Repeat("b", 1000))
		hear(t, r.target, strings.Repeat("a", 1000)+strings.Repeat("b", 1000))
	}
	on.End(context.Canceled)
	r.wantReset(t, context.Canceled, r.client)
}

// TestPauseIsTheRelays: a paused flow wakes by itself, moves no more than it may, and does not keep the other.
func TestPauseIsTheRelays(t *testing.T) {
	up := &metronome{chunk: 1000, pause: time.Millisecond}
	r, on := startRecord(t, "tcp", Limits{Idle: time.Hour, Up: up})
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		push(t, r.target, r.client, 4<<20)
	}()
	push(t, r.client, r.target, 100_000)
	waitFor(t, func() bool { return r.meter.Up() == 100_000 }, func() string { return "not all was moved" })
	told := func() bool { return up.took.Load() == 100_000 } // behind the meter
	waitFor(t, told, func() string { return fmt.Sprintf("the pacer was told of %d bytes", up.took.Load()) })
	waitFor(t, func() bool { return r.meter.Down() == 4<<20 }, func() string { return "the other way is held up" })
	<-pushed // what was written may not have been read yet, and a reset would take it away
	on.End(context.Canceled)
	r.wantReset(t, context.Canceled, r.target)
}

// witness is a Pacer that notes how much another relay has moved whenever its own moves something.
type witness struct {
	metronome
	other *Meter
	saw   chan int64
}

func (w *witness) Took(n int) time.Duration {
	if n > 0 {
		w.saw <- w.other.Up()
	}
	return 0
}

// TestBulkWaits: of two relays for which something has come at once the one in which bulk flows is the second, though it was told
// first.
func TestBulkWaits(t *testing.T) {
	bulk, on := startRecord(t, "tcp", Limits{Idle: time.Hour})
	watch := &witness{metronome: metronome{chunk: 1 << 20}, other: &bulk.meter, saw: make(chan int64, 1)}
	var chat *socketRig
	for chat == nil { // until one is on the same loop
		r, beside := startRecord(t, "tcp", Limits{Idle: time.Hour, Up: watch})
		if beside.loop() == on.loop() {
			chat = r
		}
		defer func() {
			r.cancel(context.Canceled)
			_ = r.end(t)
		}()
	}
	say(t, chat.client, "so that nothing is left to be told")
	hear(t, chat.target, "so that nothing is left to be told")
	<-watch.saw
	held, free := make(chan struct{}), make(chan struct{})
	on.loop().Post(on, func() {
		on.flows[0].bulk = true
		close(held)
		<-free
	})
	<-held
	say(t, bulk.client, strings.Repeat("x", 100_000))
	say(t, chat.client, "hello?")
	close(free)
	hear(t, chat.target, "hello?")
	if moved := <-watch.saw; moved != 0 {
		t.Errorf("bulk of %d bytes went first", moved)
	}
	hear(t, bulk.target, strings.Repeat("x", 100_000))
	bulk.cancel(context.Canceled)
	_ = bulk.end(t)
}

// judge is a Pacer that ends the relay as soon as so many bytes were moved.
type judge struct {
	metronome
	most int64
	end  func(reason error)
}

func (j *judge) Took(n int) time.Duration {
	if j.metronome.Took(n); j.took.Load() >= j.most {
		j.end(context.Canceled)
	}
	return 0
}

// TestPacerEndsTheRelay within the chunk in which it says so.
func TestPacerEndsTheRelay(t *testing.T) {
	for range 20 {
		r := newSocketRig(t, listen(t, "tcp"), looped)
		say(t, r.client, strings.Repeat("x", 100_000))
		j := &judge{metronome: metronome{chunk: 1000}, most: 5000}
		ready := make(chan struct{})
		var started Relay
		j.end = func(reason error) { <-ready; started.End(reason) }
		started = r.start(Limits{Up: j})
		close(ready)
		r.wantReset(t, context.Canceled, r.client)
		wantMeter(t, &r.meter, 5000, 0)
	}
}

// bomb is a Pacer that panics, after some chunks.
type bomb struct{ left int }

func (*bomb) Chunk() int { return 4 }

func (b *bomb) Took(int) time.Duration {
	if b.left--; b.left < 0 {
		panic("bomb")
	}
	return 0
}

// TestPanicEndsOneRelay: by whatever means, a panic is the end of its relay and of nothing else.
func TestPanicEndsOneRelay(t *testing.T) {
	for name, best := range everyMeans {
		for _, left := range []int{0, 2} {
			t.Run(fmt.Sprint(name, left), func(t *testing.T) {
				ln := listen(t, "tcp")
				other := newSocketRig(t, ln, best).run(t.Context(), "", Limits{})
				r := newSocketRig(t, ln, best).run(t.Context(), "", Limits{Up: &bomb{left}})
				_, _ = io.WriteString(r.client, "abcdefghijklmnop")
				err := r.end(t)
				fault, ok := errors.AsType[*Fault](err)
				if !ok || fault.Value != "bomb" || !strings.Contains(string(fault.Stack), "bomb") {
					t.Errorf("the relay ended by %v", err)
				}
				push(t, other.client, other.target, 1<<20)
				other.cancel(context.Canceled)
				other.wantReset(t, context.Canceled, other.client)
			})
		}
	}
}

// TestWithoutDescriptors: a relay that cannot be handed over, as there is no descriptor to be had, goes on without.
func TestWithoutDescriptors(t *testing.T) {
	r := newSocketRig(t, listen(t, "tcp"), looped)
	restore := useUpDescriptors(t)
	started := r.start(Limits{})
	restore()
	if _, ok := started.(*session); !ok {
		t.Errorf("without descriptors the relay is a %T", started)
	}
	push(t, r.client, r.target, 1<<20)
	push(t, r.target, r.client, 1<<20)
	started.End(context.Canceled)
	r.wantReset(t, context.Canceled)
}

// TestWrappedSocketsStay: a connection that only looks like a socket is not read beneath.
func TestWrappedSocketsStay(t *testing.T) {
	r := newSocketRig(t, listen(t, "tcp"), looped)
	wrapped := struct{ *net.TCPConn }{r.nearClient.(*net.TCPConn)}
	started := New(Side{Conn: wrapped}, Side{Conn: r.nearTarget}, &r.meter, Limits{})
	started.Start(func(err error) { r.ended <- err })
	if _, ok := started.(*session); !ok {
		t.Errorf("a relay of a wrapped connection is a %T", started)
	}
	push(t, r.client, r.target, 1<<20)
	started.End(context.Canceled)
	r.wantReset(t, context.Canceled)
}

// TestLateEvents: events of sockets that are closed find nobody, and a record that is over does nothing.
func TestLateEvents(t *testing.T) {
	r, on := startRecord(t, "tcp", Limits{})
	push(t, r.client, r.target, 100)
	handles := make(chan engine.Handle, 2)
	on.loop().Post(on, func() {
		for _, s := range on.sides {
			on.loop().Requeue(s.handle, engine.Readable|engine.Writable|engine.Failed)
			handles <- s.handle
		}
		on.end(context.Canceled)
	})
	r.wantReset(t, context.Canceled, r.client)
	for range 2 {
		if h := <-handles; on.loop().Descriptor(h) != -1 {
			t.Errorf("%x stands for a descriptor", h)
		}
	}
}

func sendUrgent(t *testing.T, c net.Conn, what string) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Send(int(fd), []byte(what), unix.MSG_OOB)
		return failed != unix.EAGAIN
	})
	if err != nil || failed != nil {
		t.Errorf("sending an urgent byte: %v, %v", err, failed)
	}
}
