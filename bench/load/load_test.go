//go:build linux

package load

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == CrowdCommand {
		if err := BeCrowd(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

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
		"down":      func(ctx context.Context) (Cost, error) { return Bulk(ctx, p, target, Down, 2, d) },
		"up":        func(ctx context.Context) (Cost, error) { return Bulk(ctx, p, target, Up, 2, d) },
		"both":      func(ctx context.Context) (Cost, error) { return Bulk(ctx, p, target, Both, 2, d) },
		"sessions":  func(ctx context.Context) (Cost, error) { return Sessions(ctx, p, target, 2, d) },
		"pingpong":  func(ctx context.Context) (Cost, error) { return PingPong(ctx, p, target, 2, d) },
		"datagrams": func(ctx context.Context) (Cost, error) { return Datagrams(ctx, p, target, 2, d) },
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

// TestRefusals: what is granted is a fault of the measurement, and so is what is no answer.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		protocol Protocol
		answer   string
		wrong    string
	}{
		{Socks4, "\x00\x5b\x00\x00\x00\x00\x00\x00", ""},
		{Socks4, "\x00\x5a\x00\x00\x00\x00\x00\x00", "the proxy grants 10.0.0.1:443"},
		{Socks4, "", "the proxy's answer"},
		{HTTP, "HTTP/1.1 403 Forbidden\r\n\r\na page", ""},
		{HTTP, "HTTP/1.1 200 Ok\r\n\r\n", "the proxy grants 10.0.0.1:443"},
	} {
		at, end := answering(t, c.answer)
		p := &Proxy{Address: at, Protocol: c.protocol, Process: &Process{PID: os.Getpid()}}
		cost, err := Refusals(t.Context(), p, "10.0.0.1:443", 2, 50*time.Millisecond)
		if c.wrong == "" && (err != nil || cost.CPU <= 0) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s %q: %+v, %v; want %q", c.protocol, c.answer, cost, err, c.wrong)
		}
		end()
	}
}

// answering gives everybody the same answer, and leaves.
func answering(t *testing.T, answer string) (at netip.AddrPort, end func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 512))
			_, _ = conn.Write([]byte(answer))
			conn.Close()
		}
	})
	return ln.Addr().(*net.TCPAddr).AddrPort(), func() {
		ln.Close()
		all.Wait()
	}
}
