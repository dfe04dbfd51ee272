//go:build linux

package soak

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/load"
)

// careless is a SOCKS 4 proxy that does wrong what it is told to, to one relay.
type careless struct {
	fault func(ctx context.Context, from, to *net.TCPConn) // moves what the target says; nil: rightly
}

// rightly moves bytes until FIN, and passes it on; a reset it passes on as a reset.
func rightly(from, to *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.SetLinger(0)
		to.Close()
		return
	}
	_ = to.CloseWrite()
}

func (c careless) start(t *testing.T) *load.Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.serve(t.Context(), conn.(*net.TCPConn)) })
		}
	})
	return &load.Proxy{Address: ln.Addr().(*net.TCPAddr).AddrPort(), Protocol: load.Socks4}
}

func (c careless) serve(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	ask := make([]byte, 9)
	if _, err := io.ReadFull(client, ask); err != nil {
		return
	}
	var d net.Dialer
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ask[4:8])), uint16(ask[2])<<8|uint16(ask[3]))
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return
	}
	target := conn.(*net.TCPConn)
	defer target.Close()
	_, _ = client.Write([]byte{0, 90, 0, 0, 0, 0, 0, 0})
	var both sync.WaitGroup
	both.Go(func() { rightly(client, target) })
	if c.fault != nil {
		c.fault(ctx, target, client)
	} else {
		rightly(target, client)
	}
	both.Wait()
}

// TestSoakPasses: a proxy that does all rightly passes.
func TestSoakPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	var counts Counts
	s := Soak{For: time.Second, Bulk: 2, PingPongs: 4, Churn: 4, Stall: 20 * time.Second}
	if err := s.Run(t.Context(), careless{}.start(t), &counts); err != nil {
		t.Fatal(err)
	}
	if counts.Relays.Load() == 0 || counts.Bytes.Load() == 0 || counts.Trips.Load() == 0 {
		t.Errorf("nothing happened: %v", &counts)
	}
}

// TestSoakSees: each fault of a proxy is found, and ends the soak.
func TestSoakSees(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	for name, c := range map[string]struct {
		fault func(ctx context.Context, from, to *net.TCPConn)
		words string
	}{
		"a byte changed": {func(_ context.Context, from, to *net.TCPConn) {
			p := make([]byte, 1<<10)
			n, _ := from.Read(p)
			p[0] ^= 1
			_, _ = to.Write(p[:n])
			rightly(from, to)
		}, "comes back"},
		"a reset for FIN": {func(_ context.Context, from, to *net.TCPConn) {
			_, _ = io.Copy(to, from)
			_ = to.SetLinger(0)
			to.Close()
		}, "connection reset"},
		"FIN for a reset": {func(_ context.Context, from, to *net.TCPConn) {
			_, _ = io.Copy(to, from)
			_ = to.CloseWrite()
		}, "in the place of the end, which was to be connection reset by peer"},
		"a stall": {func(ctx context.Context, from, _ *net.TCPConn) {
			_, _ = io.CopyN(io.Discard, from, 1<<10)
			<-ctx.Done()
		}, errStalled.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			s := Soak{For: 10 * time.Second, PingPongs: 12, Stall: time.Second}
			if name == "a stall" {
				s.For = 2 * time.Second
			}
			err := s.Run(t.Context(), careless{fault: c.fault}.start(t), &Counts{})
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, want %q", err, c.words)
			}
			if name == "a stall" && !errors.Is(err, errStalled) {
				t.Error("it is not a stall")
			}
		})
	}
}
