package relay

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// metronome is a Pacer of so many bytes, and then a pause.
type metronome struct {
	chunk int
	pause time.Duration
	took  atomic.Int64
}

func (m *metronome) Chunk() int { return m.chunk }

func (m *metronome) Took(n int) time.Duration {
	m.took.Add(int64(n))
	if n == 0 {
		return 0
	}
	return m.pause
}

// TestPaces: each direction keeps to its own pace, what was read before the relay
// included, and a pause is no silence.
func TestPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, down := &metronome{chunk: 10, pause: 5 * time.Second}, &metronome{chunk: 100, pause: time.Second}
		r := newRig(t)
		r.runSides(Side{Conn: r.nearClient, Head: []byte(strings.Repeat("h", 30))}, Side{Conn: r.nearTarget},
			Limits{Idle: 2 * time.Second, Up: up, Down: down})
		say(t, r.client, strings.Repeat("u", 25))
		say(t, r.target, strings.Repeat("d", 1000))
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		for i := range 7 {
			synctest.Wait()
			wantMeter(t, &r.meter, min(55, int64(i)*10+10), min(1000, int64(i)*500+100))
			time.Sleep(5 * time.Second)
		}
		hear(t, r.target, strings.Repeat("h", 30)+strings.Repeat("u", 25))
		hear(t, r.client, strings.Repeat("d", 1000))
		r.wantEnd(nil, 30*time.Second)
		if up.took.Load() != 55 || down.took.Load() != 1000 {
			t.Errorf("the pacers were told of %d and %d bytes", up.took.Load(), down.took.Load())
		}
	})
}

// TestPauseEnds: a pause ends with the relay.
func TestPauseEnds(t *testing.T) {
	cause := errors.New("enough")
	for _, c := range []struct {
		name  string
		end   func(r *rig)
		want  error
		after time.Duration
	}{
		{"the context", func(r *rig) { r.cancel(cause) }, cause, 3 * time.Second},
		{"a reset of the other side", func(r *rig) { r.client.reset() }, ErrClientReset, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t).run(Limits{Down: &metronome{chunk: 1, pause: 1000 * time.Hour}})
				say(t, r.target, "xyz")
				time.Sleep(3 * time.Second)
				wantMeter(t, &r.meter, 0, 1)
				c.end(r)
				r.wantEnd(c.want, c.after)
			})
		})
	}
}

// TestPacedBackPressure: who is paced takes no more from the other side than it
// passes on.
func TestPacedBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(Limits{Up: &metronome{chunk: 1000, pause: time.Hour}})
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = r.client.Write(make([]byte, 10*memRoom)) // which the end cuts short
		}()
		time.Sleep(90 * time.Minute)
		wantMeter(t, &r.meter, 2000, 0)
		select {
		case <-sent:
			t.Error("everything was taken at once")
		default:
		}
		r.cancel(nil)
		<-sent
		<-r.ended
	})
}
