package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// rig is a relay that runs between two connections in memory, and their far ends.
type rig struct {
	t                      *testing.T
	client, target         *memConn
	nearClient, nearTarget *memConn
	meter                  Meter
	began                  time.Time
	cancel                 context.CancelCauseFunc
	ended                  chan struct{}
	err                    error
	after                  time.Duration // from began to the return of Run
}

const memRoom = 8 << 10

// newRig makes the connections, for tests that prepare them; run starts the relay.
func newRig(t *testing.T) *rig {
	r := &rig{t: t, began: time.Now(), ended: make(chan struct{})}
	r.client, r.nearClient = memPair(memRoom)
	r.nearTarget, r.target = memPair(memRoom)
	return r
}

func (r *rig) run(l Limits) *rig {
	return r.runSides(Side{Conn: r.nearClient}, Side{Conn: r.nearTarget}, l)
}

// runSides relays between sides that are, or wrap, the near ends. Like every owner it closes them after Run.
func (r *rig) runSides(client, target Side, l Limits) *rig {
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(r.t.Context())
	go func() {
		defer close(r.ended)
		defer r.nearTarget.Close()
		defer r.nearClient.Close()
		r.err = Run(ctx, client, target, &r.meter, l)
		r.after = time.Since(r.began)
	}()
	return r
}

// wantEnd waits for the end of the relay, and requires its reason and its time.
func (r *rig) wantEnd(want error, after time.Duration) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(1000 * time.Hour):
		r.t.Error("the relay does not end")
	}
	r.cancel(nil)
	<-r.ended
	if !errors.Is(r.err, want) || (want == nil && r.err != nil) {
		r.t.Errorf("Run returned %v, want %v", r.err, want)
	}
	if r.after != after {
		r.t.Errorf("Run returned after %v, want %v", r.after, after)
	}
}

// wantReset requires that conns were reset, and did not end as if all had been said.
func wantReset(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, c := range conns {
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reading after the relay's end: %v, want ECONNRESET", err)
		}
	}
}

func say(t *testing.T, c io.Writer, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Errorf("writing %.20q: %v", what, err)
	}
}

func hear(t *testing.T, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %.20q, %v, want %.20q", got[:n], err, want)
	}
}

func hearEOF(t *testing.T, c io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("read %.20q, %v, want EOF", rest, err)
	}
}

func wantMeter(t *testing.T, m *Meter, up, down int64) {
	t.Helper()
	if m.Up() != up || m.Down() != down {
		t.Errorf("meter says up %d, down %d, want %d and %d", m.Up(), m.Down(), up, down)
	}
}

func TestHalfClose(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t).run(Limits{})
			first, second := r.client, r.target
			if !clientFirst {
				first, second = second, first
			}
			say(t, first, "question")
			_ = first.CloseWrite()
			hear(t, second, "question")
			hearEOF(t, second)

			time.Sleep(time.Hour) // the other direction has no limit here
			say(t, second, "late answer")
			_ = second.CloseWrite()
			hear(t, first, "late answer")
			hearEOF(t, first)
			r.wantEnd(nil, time.Hour)
		})
	}
}

func TestHeadGoesFirstAndIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_ = r.target.CloseWrite()                             // a FIN right behind the head
		head := string(bytes.Repeat([]byte("head"), memRoom)) // more than lies unread on the way
		r.runSides(Side{Conn: r.nearClient, Head: []byte(head)}, Side{Conn: r.nearTarget, Head: []byte("hello")}, Limits{})
		say(t, r.client, "tail")
		_ = r.client.CloseWrite()
		hear(t, r.target, head+"tail")
		hearEOF(t, r.target)
		hear(t, r.client, "hello")
		hearEOF(t, r.client)
		r.wantEnd(nil, 0)
		wantMeter(t, &r.meter, int64(len(head)+4), 5)
	})
}

func TestMeterIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{})
		say(t, r.client, "abc")
		say(t, r.target, "de")
		synctest.Wait()
		wantMeter(t, &r.meter, 3, 2)
		r.cancel(nil)
		r.wantEnd(context.Canceled, 0)
	})
}

// conn hides all but the methods of net.Conn.
type conn struct{ net.Conn }

func TestWithoutCloseWriteTheOtherDirectionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.runSides(Side{Conn: r.nearClient}, Side{Conn: conn{r.nearTarget}}, Limits{HalfClosed: time.Minute})
		_ = r.client.CloseWrite()
		time.Sleep(50 * time.Second)
		say(t, r.target, "answer")
		hear(t, r.client, "answer")
		r.wantEnd(ErrHalfClosed, 110*time.Second)
	})
}

func TestIdleIsSharedByBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{Idle: time.Hour})
		time.Sleep(30 * time.Minute)
		say(t, r.client, "x")
		r.wantEnd(ErrIdle, 90*time.Minute)
		wantReset(t, r.client, r.target)
	})
}

func TestNeverIdleWhileOneDirectionMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{Idle: time.Minute, HalfClosed: time.Second})
		for range 100 {
			time.Sleep(59 * time.Second)
			say(t, r.target, "x")
			hear(t, r.client, "x")
		}
		r.wantEnd(ErrIdle, 100*59*time.Second+time.Minute)
	})
}

func TestIdleFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newRig(t).run(Limits{Idle: time.Hour}).wantEnd(ErrIdle, time.Hour)
	})
}

func TestBlockedWriteIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{Idle: time.Hour})
		say(t, r.client, string(make([]byte, memRoom)))
		time.Sleep(10 * time.Minute)
		say(t, r.client, "x") // is read, and finds no room at the target
		r.wantEnd(ErrIdle, 70*time.Minute)
		wantMeter(t, &r.meter, memRoom, 0)
	})
}

func TestSlowReaderIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		head := make([]byte, 10*streamPiece)
		r.runSides(Side{Conn: r.nearClient, Head: head}, Side{Conn: r.nearTarget}, Limits{Idle: time.Hour})
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		for range 10 {
			time.Sleep(50 * time.Minute)
			if _, err := io.ReadFull(r.target, make([]byte, streamPiece)); err != nil {
				t.Fatal(err)
			}
		}
		hearEOF(t, r.target)
		r.wantEnd(nil, 500*time.Minute)
	})
}

func TestHalfClosedLimit(t *testing.T) {
	for name, test := range map[string]struct {
		limits Limits
		want   error
		after  time.Duration
	}{
		"smaller than idle": {Limits{Idle: time.Hour, HalfClosed: 10 * time.Minute}, ErrHalfClosed, 60 * time.Minute},
		"without idle":      {Limits{HalfClosed: 10 * time.Minute}, ErrHalfClosed, 60 * time.Minute},
		"larger than idle":  {Limits{Idle: time.Hour, HalfClosed: 2 * time.Hour}, ErrIdle, 110 * time.Minute},
		"idle alone":        {Limits{Idle: time.Hour}, ErrIdle, 110 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			for _, clientFirst := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t).run(test.limits)
					first, second := r.client, r.target
					if !clientFirst {
						first, second = second, first
					}
					time.Sleep(45 * time.Minute)
					_ = first.CloseWrite()
					time.Sleep(5 * time.Minute)
					say(t, second, "still here")
					r.wantEnd(test.want, test.after)
					wantReset(t, first, second)
				})
			}
		})
	}
}

func TestContextEndsBoth(t *testing.T) {
	cause := errors.New("the window is over")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{Idle: time.Hour})
		go r.client.Write(make([]byte, 4*memRoom)) // so that up is blocked in a write and down in a read
		time.Sleep(time.Minute)
		r.cancel(cause)
		r.wantEnd(cause, time.Minute)
		wantReset(t, r.client, r.target)
	})
}

func TestContextDoneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("too late")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		r := newRig(t)
		if err := Run(ctx, Side{Conn: r.nearClient}, Side{Conn: r.nearTarget}, &r.meter, Limits{}); !errors.Is(err, cause) {
			t.Errorf("Run returned %v, want %v", err, cause)
		}
	})
}

func TestResetEndsBoth(t *testing.T) {
	for _, byClient := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t).run(Limits{})
			time.Sleep(time.Second)
			want := ErrClientReset
			first, second := r.client, r.target
			if !byClient {
				want = ErrTargetReset
				first, second = second, first
			}
			first.reset()
			r.wantEnd(want, time.Second)
			if !errors.Is(r.err, syscall.ECONNRESET) {
				t.Errorf("Run returned %v, which does not wrap its cause", r.err)
			}
			wantReset(t, second)
		})
	}
}

func TestFirstFaultIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.target.reset()
		r.client.reset() // both at once: up meets the client's, down the target's
		r.run(Limits{})
		<-r.ended
		if errors.Is(r.err, ErrClientReset) == errors.Is(r.err, ErrTargetReset) {
			t.Errorf("Run returned %v, want one of the two resets", r.err)
		}
		if errors.Is(r.err, os.ErrDeadlineExceeded) {
			t.Errorf("Run returned %v: that is how the other direction was woken", r.err)
		}
		r.cancel(nil)
	})
}

func TestNothingHappensAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := errors.New("first")
		var told error
		s := newSession(Side{Conn: r.nearClient}, Side{Conn: r.nearTarget}, &r.meter, Limits{Idle: time.Second}, sockets)
		s.done = func(err error) { told = err }
		s.look()
		s.End(first)
		s.End(errors.New("second"))
		time.Sleep(time.Hour)
		s.look()
		if err := s.up.closeWrite(); err != nil {
			t.Errorf("closeWrite returned %v", err)
		}
		_ = r.target.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := r.target.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the target read %v, want no FIN after a fault", err)
		}
		s.leave(nil)
		s.leave(nil)
		if !errors.Is(told, first) {
			t.Errorf("the session ended by %v, want %v", told, first)
		}
	})
}

func TestIdleRelayCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newSession(Side{Conn: r.nearClient}, Side{Conn: r.nearTarget}, &r.meter, Limits{Idle: time.Hour}, sockets)
		s.done = func(error) {}
		s.look()
		var wg sync.WaitGroup
		wg.Go(s.up.run)
		wg.Go(s.down.run)
		say(t, r.client, "x")
		time.Sleep(time.Minute)
		s.mu.Lock()
		next := s.due - s.now()
		s.mu.Unlock()
		if next != 59*time.Minute {
			t.Errorf("a relay that is idle for a minute of an hour is looked after in %v", next)
		}
		s.End(errors.New("enough"))
		wg.Wait()
		if s.up.buf.mem != nil || s.down.buf.mem != nil {
			t.Error("a relay that has ended holds a buffer")
		}
	})
}

// faulty fails to write.
type faulty struct {
	*memConn
	err error
}

func (c faulty) Write([]byte) (int, error) { return 0, c.err }

func TestOtherErrorsCountAsReset(t *testing.T) {
	cause := errors.New("cable cut")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.runSides(Side{Conn: r.nearClient}, Side{Conn: faulty{r.nearTarget, cause}}, Limits{})
		say(t, r.client, "x")
		r.wantEnd(ErrTargetReset, 0)
		if !errors.Is(r.err, cause) {
			t.Errorf("Run returned %v, which does not wrap its cause", r.err)
		}
		wantReset(t, r.client, r.target)
	})
}

// shell is a wrapper that hides what it wraps, but for NetConn.
type shell struct{ conn }

func (s shell) NetConn() net.Conn { return s.conn.Conn }

func TestResetReachesThroughWrappers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.runSides(Side{Conn: shell{conn{shell{conn{r.nearClient}}}}}, Side{Conn: r.nearTarget}, Limits{})
		r.target.reset()
		r.wantEnd(ErrTargetReset, 0)
		wantReset(t, r.client)
	})
}

func TestDeadlinesOfTheHandshakeAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_ = r.nearClient.SetDeadline(time.Now().Add(10 * time.Second))
		_ = r.nearTarget.SetDeadline(time.Now().Add(10 * time.Second))
		r.run(Limits{})
		time.Sleep(time.Minute)
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		r.wantEnd(nil, time.Minute)
	})
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{})
		flood := make([]byte, 4<<20)
		sent := make(chan int, 2)
		for _, c := range []*memConn{r.client, r.target} {
			go func() {
				n, _ := c.Write(flood)
				sent <- n
			}()
		}
		synctest.Wait() // nobody reads: everything stands still
		r.cancel(nil)
		<-r.ended
		most := 2*memRoom + bufferSizes[len(bufferSizes)-1] // what lies on the way before and behind the relay, and in it
		for range 2 {
			if n := <-sent; n > most {
				t.Errorf("the relay let %d bytes in that nobody took, want at most %d", n, most)
			}
		}
	})
}

func TestReadsGrowAndShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.client, r.nearClient = memPair(1 << 20)
		r.nearTarget, r.target = memPair(4 << 20)
		say(t, r.client, string(make([]byte, 1<<20)))
		r.run(Limits{})
		synctest.Wait()
		for range 3 {
			say(t, r.client, "x")
			synctest.Wait()
		}
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		r.wantEnd(nil, 0)

		sizes := r.nearClient.readSizes()
		first, last, largest := sizes[0], sizes[len(sizes)-1], 0
		for _, n := range sizes {
			largest = max(largest, n)
		}
		if first != 16<<10 || largest != 256<<10 || last != 16<<10 {
			t.Errorf("reads began with %d, grew to %d, ended with %d bytes", first, largest, last)
		}
	})
}

// TestFaultsInAnyOrder lets everything that can end a relay happen at the same instant, again and again: whichever comes
// first, Run must return, without a deadlock and without a race for the detector to find.
func TestFaultsInAnyOrder(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t).run(Limits{Idle: time.Second, HalfClosed: time.Second})
			var wg sync.WaitGroup
			for _, end := range []func(){
				r.client.reset,
				r.target.reset,
				func() { r.cancel(nil) },
				func() { _, _ = r.client.Write(make([]byte, 4*memRoom)) },
				func() { _ = r.target.CloseWrite() },
			} {
				wg.Go(func() {
					time.Sleep(time.Second) // so do the limits
					end()
				})
			}
			wg.Wait()
			r.wantSomeEnd(time.Second)
		})
	}
}

func (r *rig) wantSomeEnd(after time.Duration) {
	r.t.Helper()
	<-r.ended
	if r.err == nil || r.after != after {
		r.t.Errorf("Run returned %v after %v, want a fault after %v", r.err, r.after, after)
	}
}
