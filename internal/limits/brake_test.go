package limits

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestBrake: both directions together move no more than the rate.
func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, down := Brake(80_000) // 10,000 bytes a second
		begun, moved := time.Now(), 0
		for moved < 50_000 {
			for _, p := range []interface {
				Chunk() int
				Took(n int) time.Duration
			}{up, down} {
				n := min(p.Chunk(), 1000)
				time.Sleep(p.Took(n))
				moved += n
			}
		}
		if took := time.Since(begun).Seconds(); took < 4.8 || took > 5.2 {
			t.Errorf("%d bytes took %.2f s, want 5", moved, took)
		}
	})
}
