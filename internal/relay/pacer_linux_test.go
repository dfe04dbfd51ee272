package relay

import (
	"errors"
	"math"
	"testing"
	"time"
)

// TestPacedSockets: real sockets are paced by every means.
func TestPacedSockets(t *testing.T) {
	for _, best := range []means{streams, sockets, looped} {
		ln := listen(t, "tcp")
		m := &metronome{chunk: 100 << 10, pause: 20 * time.Millisecond}
		start := time.Now()
		r := newSocketRig(t, ln, best).run(t.Context(), "", Limits{Idle: time.Hour, Up: m})
		push(t, r.client, r.target, 2<<20)
		if took := time.Since(start); took < 400*time.Millisecond {
			t.Errorf("2 MiB in pieces of 100 KiB, 20 ms apart, took %v", took)
		}
		r.cancel(nil)
		_ = r.end(t)
		wantMeter(t, &r.meter, 2<<20, 0)
	}
}

// TestUnlimitedPacer: a pacer that never bites takes nothing away.
func TestUnlimitedPacer(t *testing.T) {
	r := newSocketRig(t, listen(t, "tcp"), looped).run(t.Context(), "", Limits{Up: &metronome{chunk: math.MaxInt}})
	push(t, r.client, r.target, 8<<20)
	r.cancel(nil)
	_ = r.end(t)
	wantMeter(t, &r.meter, 8<<20, 0)
}

// TestResetInPause: a reset is noticed while nobody reads because of a pacer.
func TestResetInPause(t *testing.T) {
	r := newSocketRig(t, listen(t, "tcp"), looped).run(t.Context(), "", Limits{Up: &metronome{chunk: 1, pause: 1000 * time.Hour}})
	say(t, r.client, "xyz")
	hear(t, r.target, "x")
	resetOnClose(r.client)
	_ = r.client.Close()
	if err := r.end(t); !errors.Is(err, ErrClientReset) {
		t.Errorf("the relay ended with %v, want %v", err, ErrClientReset)
	}
}

// TestForEver: limits and pauses of all the time that there is, by every means.
func TestForEver(t *testing.T) {
	const ever = time.Duration(math.MaxInt64)
	for _, best := range []means{streams, sockets, looped} {
		r := newSocketRig(t, listen(t, "tcp"), best)
		r.run(t.Context(), "", Limits{Idle: ever, HalfClosed: ever, Up: &metronome{chunk: 1, pause: ever}})
		say(t, r.client, "xy")
		hear(t, r.target, "x")
		say(t, r.target, "still here")
		hear(t, r.client, "still here")
		_ = r.target.CloseWrite()
		hearEOF(t, r.client)
		enough := errors.New("enough")
		r.cancel(enough)
		if err := r.end(t); !errors.Is(err, enough) {
			t.Errorf("%d: the relay ended with %v", best, err)
		}
		wantMeter(t, &r.meter, 1, 10) // before the end a byte may have been heard that is yet to be counted
	}
}
