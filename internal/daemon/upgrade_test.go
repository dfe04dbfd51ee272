//go:build linux || darwin || freebsd

package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/handover"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// hangs makes the daemon's program one that starts and never serves. It returns
// what tells that it has started.
func (s *served) hangs() (started func() bool) {
	s.Helper()
	file, sign := filepath.Join(s.dir, "hangs"), filepath.Join(s.dir, "started")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho wait for me >&2\ntouch "+sign+"\nexec sleep 1000\n"), 0o700); err != nil {
		s.Fatal(err)
	}
	s.life.program = file
	return func() bool {
		_, err := os.Stat(sign)
		return err == nil
	}
}

// goes on as before.
func (s *served) goesOn() {
	s.Helper()
	c, err := net.Dial("tcp", s.inForce.doors[0].socket.Addr().String())
	if err != nil {
		s.Errorf("it does not listen any more: %v", err)
		return
	}
	c.Close()
	if err := s.Reload(s.Context()); err != nil {
		s.Errorf("it cannot be reloaded: %v", err)
	}
}

const oneOpenListener = "listeners: {name: lan, listen: '127.0.0.1:0'}\nrules: {allow: all, from: loopback, to: any}\nledger: off\n"

// TestUpgradeHangs: a program that does not come to serve is ended, and what it said
// is passed on.
func TestUpgradeHangs(t *testing.T) {
	s := serveIn(t, oneOpenListener)
	started := s.hangs()
	s.life.patience = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		proxytest.Eventually(t, "it has started", started)
		cancel(errHangs) // the hour is over
	}()
	_, err := s.Upgrade(ctx)
	if f, ok := errors.AsType[*handover.Failed](err); !ok || !errors.Is(err, errHangs) || f.Said != "wait for me" {
		t.Errorf("%v", err)
	}
	s.life.patience = time.Nanosecond
	if _, err := s.Upgrade(t.Context()); !errors.Is(err, errHangs) || !strings.Contains(err.Error(), "1ns") {
		t.Errorf("%v", err)
	}
	s.goesOn()
	s.UpgradeBySignal()
	s.end()
	if said := s.said.String(); strings.Count(said, "the upgrade failed: this process goes on") != 3 || !strings.Contains(said, "wait for me") {
		t.Errorf("the log says %s", said)
	}
	if _, err := s.Upgrade(t.Context()); !errors.Is(err, errNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

// TestHangupDuringAnUpgrade: HUP waits for an upgrade that hangs, says so, and is done then.
func TestHangupDuringAnUpgrade(t *testing.T) {
	s := serveIn(t, oneOpenListener)
	started := s.hangs()
	s.life.patience = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	upgraded, reloaded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(upgraded)
		_, _ = s.Upgrade(ctx) // how it went is another test's
	}()
	proxytest.Eventually(t, "it has started", started)
	const done = "the settings were read anew"
	before := strings.Count(s.said.String(), done)
	go func() {
		defer close(reloaded)
		s.Hangup()
	}()
	proxytest.Eventually(t, "the log says that HUP waits", func() bool {
		return strings.Contains(s.said.String(), "a reload waits until the reload or the upgrade that is under way has ended")
	})
	select {
	case <-reloaded:
		t.Error("it did not wait")
	default:
	}
	cancel(errHangs)
	<-upgraded
	<-reloaded
	proxytest.Eventually(t, "it is done afterwards", func() bool { return strings.Count(s.said.String(), done) == before+1 })
}

// TestStopEndsAnUpgrade: who is asked to stop starts nobody to go on.
func TestStopEndsAnUpgrade(t *testing.T) {
	s := serveIn(t, oneOpenListener)
	started := s.hangs()
	done := make(chan error, 1)
	go func() {
		_, err := s.Upgrade(t.Context())
		done <- err
	}()
	proxytest.Eventually(t, "the program has started", started)
	s.end()
	if err := <-done; !errors.Is(err, errStops) {
		t.Errorf("%v", err)
	}
}

// TestNoWay: where there is no way to hand over, the error says what else to do.
func TestNoWay(t *testing.T) {
	s := serveIn(t, oneOpenListener)
	s.life.noWay = errors.New("restart it")
	if _, err := s.Upgrade(t.Context()); !errors.Is(err, s.life.noWay) {
		t.Errorf("%v", err)
	}
	s.goesOn()
}

func TestAtAddress(t *testing.T) {
	for _, test := range []struct {
		have, listen string
		named, want  bool
	}{
		{"127.0.0.1:1080", "127.0.0.1:1080", false, true},
		{"127.0.0.1:1080", "localhost:1080", false, true},
		{"127.0.0.1:1080", "127.0.0.2:1080", true, false},
		{"127.0.0.1:1080", "127.0.0.1:1081", true, false},
		{"127.0.0.1:1080", "127.0.0.1:0", false, false},
		{"127.0.0.1:1080", "127.0.0.1:0", true, true},
		{"127.0.0.1:1080", ":0", true, false},
		{"127.0.0.1:1080", ":1080", false, false},
		{"[::]:1080", ":1080", false, true},
		{"[::]:1080", "[::]:1080", false, true},
		{"[::]:1080", "0.0.0.0:1080", false, false},
		{"0.0.0.0:1080", "0.0.0.0:1080", false, true},
		{"0.0.0.0:1080", "10.0.0.1:1080", false, false},
		{"[2001:db8::1]:1080", "[2001:db8::1]:1080", false, true},
		{"[2001:db8::1]:1080", "[2001:db8::2]:1080", false, false},
	} {
		if got := atAddress(netip.MustParseAddrPort(test.have), test.listen, test.named); got != test.want {
			t.Errorf("%s for %s, named %v: %v, want %v", test.have, test.listen, test.named, got, test.want)
		}
	}
}
