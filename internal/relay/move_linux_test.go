package relay

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/engine"
)

// someLoops makes that there may be three.
func someLoops(t *testing.T) {
	t.Helper()
	before := runtime.GOMAXPROCS(4)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// wander has a relay move to another loop all the time, until it ends.
func (r *record) wander(t *testing.T) {
	var move func()
	move = func() {
		if r.over {
			return
		}
		to, err := engine.Attach()
		if err != nil {
			t.Error(err)
			return
		}
		r.Move(to)
		time.AfterFunc(50*time.Microsecond, func() { r.loop().Post(r, move) }) // nobody else moves it
	}
	r.loop().Post(r, move)
}

// TestShapesThatMove is TestShapes for relays that move from loop to loop all the time.
func TestShapesThatMove(t *testing.T) {
	someLoops(t)
	count := uint64(500)
	if testing.Short() {
		count = 100
	}
	listeners := []net.Listener{listen(t, "tcp"), listen(t, "unix")}
	for seed := range count {
		r := newSocketRig(t, listeners[seed%2], looped)
		r.playShape(t, seed, func(head string, l Limits) {
			on, ok := r.startWith(head, l).(*record)
			if !ok {
				t.Fatal("it is on no loop")
			}
			on.wander(t)
		})
	}
}

// move has a relay move to another loop, and returns when it has left.
func move(t *testing.T, on *record) {
	t.Helper()
	from, left := on.loop(), make(chan struct{})
	from.Post(on, func() {
		defer close(left)
		to, err := engine.Attach()
		if err != nil {
			t.Error(err)
			return
		}
		on.Move(to)
	})
	<-left
	if on.loop() == from {
		t.Error("it is on the same loop as before")
	}
}

// TestEndsThatMove: a relay that is ended while it moves ends once, with that reason, wherever it is.
func TestEndsThatMove(t *testing.T) {
	someLoops(t)
	cause := errors.New("killed by the administrator")
	ln := listen(t, "tcp")
	for i := range 200 {
		r := newSocketRig(t, ln, looped)
		on, ok := r.start(Limits{}).(*record)
		if !ok {
			t.Fatal("it is on no loop")
		}
		on.wander(t)
		time.AfterFunc(time.Duration(i)*10*time.Microsecond, func() { on.End(cause) })
		r.wantReset(t, cause, r.client, r.target)
	}
}

// TestWhatWaitsMoves: what was read and not written goes along, and the loop that it goes to is told of room.
func TestWhatWaitsMoves(t *testing.T) {
	someLoops(t)
	r, on := startRecord(t, "tcp", Limits{})
	fill(t, r.client) // until nothing more is read
	sent := r.meter.Up()
	move(t, on)
	got := make(chan int64)
	go func() {
		n, err := io.Copy(io.Discard, r.target)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	say(t, r.target, "downwards")
	hear(t, r.client, "downwards")
	if err := errors.Join(r.client.CloseWrite(), r.target.CloseWrite(), r.end(t)); err != nil {
		t.Error(err)
	}
	if n := <-got; n <= sent || n != r.meter.Up() {
		t.Errorf("%d bytes have come, %d of them before it moved; the meter says %d", n, sent, r.meter.Up())
	}
}

// slow is a Pacer that makes pauses.
type slow time.Duration

func (slow) Chunk() int                 { return 1 << 10 }
func (s slow) Took(n int) time.Duration { return time.Duration(min(n, 1)) * time.Duration(s) }

// TestPauseMoves: a relay in a pause moves with what is left of it, and goes on behind it.
func TestPauseMoves(t *testing.T) {
	someLoops(t)
	const pause = 200 * time.Millisecond
	r, on := startRecord(t, "tcp", Limits{Up: slow(pause), Idle: time.Minute})
	began := time.Now()
	say(t, r.client, "one")
	hear(t, r.target, "one")
	move(t, on)
	say(t, r.client, "two")
	hear(t, r.target, "two")
	if took := time.Since(began); took < pause {
		t.Errorf("two pieces took %v, with a pause of %v", took, pause)
	}
	enough := errors.New("that is all")
	r.cancel(enough)
	r.wantReset(t, enough)
}
