//go:build linux || darwin || freebsd

package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestWatchdog: a daemon that is stuck gives no sign of life, however often it is to.
func TestWatchdog(t *testing.T) {
	s := serveIn(t, oneOpenListener)
	dir, err := os.MkdirTemp("", "notify") // short: it goes into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	hears := func(until time.Time) error {
		t.Helper()
		var b [100]byte
		_ = manager.SetReadDeadline(until)
		n, err := manager.Read(b[:])
		if said := string(b[:n]); err == nil && said != "WATCHDOG=1" {
			t.Errorf("it says %q", said)
		}
		return err
	}

	ctx, cancel := context.WithCancel(t.Context())
	ticks := make(chan time.Time)
	var watching sync.WaitGroup
	watching.Go(func() { s.signsOfLife(ctx, ticks) })
	soon := time.Now().Add(20 * time.Second)
	ticks <- time.Now()
	if err := hears(soon); err != nil {
		t.Errorf("no sign of life: %v", err)
	}
	s.mu.Lock()
	for range 5 {
		ticks <- time.Now()
	}
	if err := hears(time.Now().Add(-time.Second)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a sign of life of a daemon that is stuck: %v", err)
	}
	s.mu.Unlock()
	watching.Go(func() {
		for ctx.Err() == nil {
			select {
			case ticks <- time.Now():
			case <-ctx.Done():
			}
		}
	})
	if err := hears(soon); err != nil {
		t.Errorf("no sign of life once it goes on: %v", err)
	}
	cancel()
	watching.Wait()
}
