package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// TestInboundVirtualPort: what holds for a protocol holds for who visits a virtual port
// by it: whatever stands between the client and its target are two connections and a
// channel of SSH. (Visitors of a virtual port's own address come by a port mapping, for
// which TestInboundMapping of the server has the suite, and go on in the same way.)
func TestInboundVirtualPort(t *testing.T) {
	var v *visitedServer
	proxytest.Inbound(t, proxytest.Protocol{
		Name: "virtual port",
		Opening: func(target netip.AddrPort) []byte {
			v.publish(target)
			ask := socks.Request5{Command: socks.Connect, Host: socks.Host5{Name: virtualName(target), Port: 80}}
			return append(proxytest.Greeting5(socks.NoAuth), ask.Append(nil)...)
		},
		Answer: proxytest.SOCKS5("", "").Answer,
	}, func(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
		tb.Helper()
		v = visitServer(tb, allow)
		return func() proxytest.Stream { return proxytest.Dial(tb, v.address) }
	})
}

// virtualName is that of the virtual port that leads to a target.
func virtualName(target netip.AddrPort) string {
	b, _ := target.MarshalBinary() // of an address that is valid
	return "to-" + hex.EncodeToString(b) + ".test"
}

// visitedServer is a server of which each name is a virtual port, and those who offer
// them.
type visitedServer struct {
	testing.TB
	key     ssh.Signer
	address string
	start   func(*Publisher)

	mu      sync.Mutex
	offered map[netip.AddrPort]bool
}

// visitServer grants visitors of the targets that allow accepts. When the test ends so
// do the offers, and then all sessions must have ended by themselves.
func visitServer(tb testing.TB, allow func(netip.AddrPort) bool) *visitedServer {
	tb.Helper()
	v := &visitedServer{TB: tb, key: newHostKey(tb), offered: map[netip.AddrPort]bool{}}
	socket, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	v.address = socket.Addr().String()
	s := &server.Server{Policy: visiting(allow)}
	var work sync.WaitGroup
	work.Go(func() {
		err := s.Serve(context.WithoutCancel(tb.Context()), socket, server.Listener{Protocols: []server.Protocol{server.SOCKS5, server.SSH}, HostKey: v.key})
		if !errors.Is(err, server.ErrServerClosed) {
			tb.Errorf("Serve: %v", err)
		}
	})
	offers, end := context.WithCancel(context.WithoutCancel(tb.Context()))
	var publishers sync.WaitGroup
	v.start = func(p *Publisher) { publishers.Go(func() { _ = p.Run(offers) }) } // who waits for it would miss it
	tb.Cleanup(func() {
		end()
		publishers.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			tb.Errorf("sessions do not end when their clients and targets are gone: %v", err)
		}
		work.Wait()
	})
	return v
}

// visiting grants everybody to offer what he likes.
type visiting func(netip.AddrPort) bool

func (allow visiting) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	var target netip.AddrPort
	name := strings.TrimSuffix(strings.TrimPrefix(r.Target.Name, "to-"), ".test")
	b, err := hex.DecodeString(name)
	if err == nil {
		err = target.UnmarshalBinary(b)
	}
	if r.Command != socks.Bind && (err != nil || !allow(target)) {
		return server.Grant{}, fmt.Errorf("%w: not a target of this test", server.Denied)
	}
	return server.Grant{Rule: "visiting", Virtual: true}, nil
}

// publish has a target offered, and returns when it is.
func (v *visitedServer) publish(target netip.AddrPort) {
	v.Helper()
	v.mu.Lock()
	there := v.offered[target]
	v.offered[target] = true
	v.mu.Unlock()
	if there {
		return
	}
	said := make(offeredLog, 1)
	v.start(&Publisher{
		Server: v.address, User: "bob", HostKey: ssh.FixedHostKey(v.key.PublicKey()), Log: slog.New(said),
		Services: []Service{{virtualName(target), 80, target.String(), false}},
	})
	select {
	case <-said:
	case <-time.After(time.Minute):
		v.Fatal("it is not offered")
	}
}

// offeredLog tells that something is offered.
type offeredLog chan struct{}

func (offeredLog) Enabled(context.Context, slog.Level) bool { return true }
func (l offeredLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l offeredLog) WithGroup(string) slog.Handler          { return l }

func (l offeredLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "offered" {
		select {
		case l <- struct{}{}:
		default:
		}
	}
	return nil
}
