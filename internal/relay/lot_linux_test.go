package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startSleeper begins a relay with a goroutine of its own at most until it sleeps.
func startSleeper(t *testing.T, l Limits) (*socketRig, *session) {
	t.Helper()
	r := newSocketRig(t, listen(t, "tcp"), sleeping)
	ctx, cancel := context.WithCancelCause(t.Context())
	r.cancel = cancel
	s := newSession(Side{Conn: r.nearClient}, Side{Conn: r.nearTarget}, &r.meter, l, sleeping)
	go s.run(ctx, func(err error) {
		r.nearClient.Close()
		r.nearTarget.Close()
		cancel(nil)
		r.ended <- err
	})
	return r, s
}

func (s *session) sleeps() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rest.place != 0
}

func waitForSleep(t *testing.T, s *session) {
	t.Helper()
	waitFor(t, s.sleeps, func() string { return "the relay does not sleep" })
}

func TestSleepersHaveNoGoroutine(t *testing.T) {
	const relays = 50
	before := runtime.NumGoroutine()
	var rigs []*socketRig
	for range relays {
		r, _ := startSleeper(t, Limits{Idle: time.Hour})
		rigs = append(rigs, r)
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+1 }, // and one that watches them all
		func() string { return fmt.Sprintf("%d goroutines, want %d", runtime.NumGoroutine(), before+1) })
	for _, r := range rigs {
		say(t, r.client, "awake?")
		hear(t, r.target, "awake?")
		say(t, r.target, "yes")
		hear(t, r.client, "yes")
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		if err := r.end(t); err != nil {
			t.Error(err)
		}
		wantMeter(t, &r.meter, 6, 3)
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before }, func() string { return "the lot is not closed" })
	lot.mu.Lock()
	defer lot.mu.Unlock()
	if lot.file != nil || len(lot.sleepers) > 0 {
		t.Errorf("the lot is open, and has %d sleepers", len(lot.sleepers))
	}
}

func TestSleepersEnd(t *testing.T) {
	cause := errors.New("killed by the administrator")
	for name, test := range map[string]struct {
		limits Limits
		act    func(r *socketRig)
		want   error
		resets func(r *socketRig) socketConn
	}{
		"client reset": {Limits{}, func(r *socketRig) { reset(r.client) }, ErrClientReset, func(r *socketRig) socketConn { return r.target }},
		"target reset": {Limits{}, func(r *socketRig) { reset(r.target) }, ErrTargetReset, func(r *socketRig) socketConn { return r.client }},
		"context":      {Limits{}, func(r *socketRig) { r.cancel(cause) }, cause, func(r *socketRig) socketConn { return r.client }},
		"idle": {
			Limits{Idle: 200 * time.Millisecond},
			func(*socketRig) {}, ErrIdle,
			func(r *socketRig) socketConn { return r.client },
		},
		"half-closed": {
			Limits{HalfClosed: 50 * time.Millisecond},
			func(r *socketRig) { _ = r.client.CloseWrite() }, ErrHalfClosed,
			func(r *socketRig) socketConn { return r.client },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, s := startSleeper(t, test.limits)
			waitForSleep(t, s)
			test.act(r)
			r.wantReset(t, test.want, test.resets(r))
		})
	}
}

// TestSleepersOfAnySort: bytes come at every moment of falling asleep, sleeping and waking, one way and both ways, and
// ends too. None is lost, and no relay stops.
func TestSleepersOfAnySort(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 40 {
		r, _ := startSleeper(t, Limits{Idle: time.Minute})
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
			switch i % 4 {
			case 0:
				reset(r.client)
				r.wantReset(t, ErrClientReset, r.target)
			case 1:
				r.cancel(context.Canceled)
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

// TestTiredRelayIsRoused: a direction blocked in its write must not keep the other from reading.
func TestTiredRelayIsRoused(t *testing.T) {
	for range 20 {
		r, s := startSleeper(t, Limits{})
		waitForSleep(t, s)
		fill(t, r.client) // the way up is blocked for good
		for range 5 {
			say(t, r.target, "down")
			hear(t, r.client, "down")
		}
		if s.sleeps() {
			t.Error("the relay sleeps while a write is blocked")
		}
		r.cancel(context.Canceled)
		r.wantReset(t, context.Canceled, r.client)
	}
}

// TestNoPlaceToSleep: without a descriptor to be had, relays stay up.
func TestNoPlaceToSleep(t *testing.T) {
	r, s := startSleeper(t, Limits{})
	waitForSleep(t, s)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	none := files
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			t.Error(err)
		}
	}()
	say(t, r.client, "x") // it was the only sleeper: the lot is closed, and cannot be opened again
	hear(t, r.target, "x")
	waitFor(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.rest.able
	}, func() string { return "the relay sleeps without a descriptor" })
	say(t, r.target, "y")
	hear(t, r.client, "y")
	_ = r.client.CloseWrite()
	_ = r.target.CloseWrite()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// TestLateEventWakesNobody: an event that was taken before its relay got up finds no place.
func TestLateEventWakesNobody(t *testing.T) {
	r, s := startSleeper(t, Limits{})
	waitForSleep(t, s)
	s.mu.Lock()
	stale := s.rest.place
	s.mu.Unlock()
	say(t, r.client, "x")
	hear(t, r.target, "x")
	waitForSleep(t, s)
	s.wake(stale)
	if !s.sleeps() {
		t.Error("an event of the last sleep ended this one")
	}
	r.cancel(context.Canceled)
	r.wantReset(t, context.Canceled, r.client, r.target)
	s.wake(stale)
}
