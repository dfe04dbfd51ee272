package engine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// dusty is a record that is looked at now and then.
type dusty struct {
	probe
	swept func()
}

func (d *dusty) Swept() { d.swept() }

// TestSweep: in a round each is looked at, whatever becomes of the others meanwhile, and those that want it alone.
func TestSweep(t *testing.T) {
	l, do := attach(t)
	const records = 200
	var seen [records]int
	ready := func(Handle, Events) {}
	do(func() {
		handles := make([]Handle, records)
		for i := range handles {
			near, far := pair(t)
			t.Cleanup(func() { _ = unix.Close(far) })
			d := &dusty{probe: probe{ready: ready}, swept: func() {
				if seen[i]++; i%10 == 0 {
					panic("a fault")
				}
			}}
			d.broken = func(any) { l.Close(handles[i]) }
			handles[i] = add(t, l, near, d)
		}
		near, far := pair(t)
		defer unix.Close(far)
		plain := add(t, l, near, &probe{ready: ready})
		defer l.Close(plain)
		for range 2 * SweepRound / sweepStep {
			l.broom.Expired()
		}
		for i, h := range handles {
			l.Close(h)
			if n := seen[i]; n == 0 || i%10 != 0 && n < 2 || i%10 == 0 && n != 1 {
				t.Errorf("record %d was looked at %d times", i, n)
			}
		}
		if l.broom.timer.place == 0 {
			t.Error("the next part is not planned")
		}
	})
}

// TestSweepOfNothing: a loop that watches nothing yet has nothing to look at, and goes on.
func TestSweepOfNothing(t *testing.T) {
	var l Loop
	l.broom.start(&l)
	l.broom.Expired()
	if l.broom.timer.place == 0 {
		t.Error("the next part is not planned")
	}
}
