package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// named looks every name up as one address.
type named netip.Addr

func (n named) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.Addr(n)}, nil
}

// newTargets are one, two and three, on a network in memory.
func newTargets(t *testing.T, s TargetSettings) (*Targets, *rig) {
	t.Helper()
	r := newRig(t, Settings{Proxies: []string{"socks5://192.0.2.77:1"}, Check: time.Hour}) // for its network and log
	for _, at := range []string{one, two, three} {
		s.Targets = append(s.Targets, server.MapTarget{Addr: socks.FromIP(netip.MustParseAddrPort(at))})
	}
	s.Forward, s.Log = r.network, slog.New(slog.NewTextHandler(&r.log, nil))
	return NewTargets(s), r
}

func (r *rig) runs(t *Targets) {
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); t.Run(ctx) }()
	r.Cleanup(func() { cancel(); <-ended })
}

func orderOf(t *Targets) string { return fmt.Sprint(t.Order(netip.MustParseAddr("192.0.2.1"))) }

// TestTargetsChecked: who is dead stands behind the others, until a check finds it
// alive.
func TestTargetsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets, r := newTargets(t, TargetSettings{Check: 10 * time.Second, ProxyVersion: 1})
		heard := make(chan string, 100)
		hears := func(c net.Conn) {
			all, _ := io.ReadAll(c)
			heard <- string(all)
		}
		r.serve(two, hears)
		r.serve(three, hears)
		r.runs(targets)
		if got := orderOf(targets); got != "[0 1 2]" {
			t.Errorf("at first: %s", got)
		}
		time.Sleep(11 * time.Second)
		if got := orderOf(targets); got != "[1 2 0]" {
			t.Errorf("with a dead one: %s", got)
		}
		if got := <-heard; got != "PROXY UNKNOWN\r\n" {
			t.Errorf("a check says %q", got)
		}
		r.serve(one, hears)
		time.Sleep(10 * time.Second)
		if got := orderOf(targets); got != "[0 1 2]" {
			t.Errorf("when it is back: %s", got)
		}
		if down, up := r.log.count("a target of a port mapping is down"), r.log.count("a target of a port mapping is alive again"); down != 1 || up != 1 {
			t.Errorf("%d lines of down, %d of up", down, up)
		}
	})
}

// TestTargetsAlone: where nothing is checked, a fault counts for a while.
func TestTargetsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets, _ := newTargets(t, TargetSettings{})
		targets.Run(t.Context()) // returns at once
		targets.Tried(0, errors.New("dead"))
		if got := orderOf(targets); got != "[1 2 0]" {
			t.Errorf("after a fault: %s", got)
		}
		time.Sleep(firstPause)
		if got := orderOf(targets); got != "[0 1 2]" {
			t.Errorf("after the pause: %s", got)
		}
	})
}

func TestTargetsLeastSessions(t *testing.T) {
	targets := NewTargets(TargetSettings{Choose: LeastSessions, Targets: make([]server.MapTarget, 3)})
	for range 30 {
		targets.Tried(targets.Order(netip.Addr{})[0], nil)
	}
	for i, h := range targets.targets {
		if n := h.open.Load(); n != 10 {
			t.Errorf("target %d has %d sessions of 30", i, n)
		}
	}
	targets.Ended(2)
	if got := targets.Order(netip.Addr{})[0]; got != 2 {
		t.Errorf("the first is %d, want the one with fewer sessions", got)
	}
}

// TestTargetsNames: a check asks for the addresses of a name, and does not take a
// target for alive that speaks no TLS where it should.
func TestTargetsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"socks5://192.0.2.77:1"}, Check: time.Hour})
		name := socks.Addr{Name: "www.example", Port: 1080}
		targets := NewTargets(TargetSettings{
			Check: 10 * time.Second, Resolver: named(netip.MustParseAddrPort(one).Addr()), Forward: r.network,
			Targets: []server.MapTarget{{Addr: name}, {Addr: name, TLS: &tls.Config{ServerName: "www.example"}}},
			Choose:  RoundRobin,
		})
		r.serve(one, func(c net.Conn) { _, _ = io.WriteString(c, "220 no TLS here\r\n"); _, _ = io.Copy(io.Discard, c) })
		r.runs(targets)
		time.Sleep(20 * time.Second)
		if a, b := orderOf(targets), orderOf(targets); a != "[0 1]" || b != "[0 1]" {
			t.Errorf("%s, %s; want the one that serves first", a, b)
		}
	})
}
