//go:build linux

package load

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestModes puts every load on a proxy that is none: the costs are then this process's own.
func TestModes(t *testing.T) {
	target, err := Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	p := &Proxy{Address: target.Address(), Protocol: Fixed, Process: &Process{PID: os.Getpid()}}
	const d = 50 * time.Millisecond
	for name, work := range map[string]func(ctx context.Context) (Cost, error){
		"down":     func(ctx context.Context) (Cost, error) { return Bulk(ctx, p, target, Down, 2, d) },
		"up":       func(ctx context.Context) (Cost, error) { return Bulk(ctx, p, target, Up, 2, d) },
		"both":     func(ctx context.Context) (Cost, error) { return Bulk(ctx, p, target, Both, 2, d) },
		"sessions": func(ctx context.Context) (Cost, error) { return Sessions(ctx, p, target, 2, d) },
		"pingpong": func(ctx context.Context) (Cost, error) { return PingPong(ctx, p, target, 2, d) },
	} {
		t.Run(name, func(t *testing.T) {
			cost, err := work(t.Context())
			if err != nil || cost.CPU <= 0 || cost.Rate <= 0 {
				t.Errorf("costs %+v, %v", cost, err)
			}
			if err := target.Settle(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestIdleCountsWhatIsHeld(t *testing.T) {
	target, err := Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	p := &Proxy{Address: target.Address(), Protocol: Fixed, Process: &Process{PID: os.Getpid()}}
	idle, err := HoldIdle(t.Context(), p, target, 50)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if idle.Descriptors != 2 { // both ends are this process's
		t.Errorf("%v descriptors each, want 2", idle.Descriptors)
	}
}
