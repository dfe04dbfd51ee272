//go:build unix

package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestFaultIsContained: a fault in the code that serves one client ends that
// client's session, is logged and recorded, and leaves the others alone.
func TestFaultIsContained(t *testing.T) {
	policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
		if r.Identity.Name == "mallory" {
			panic("a fault")
		}
		return anything(ctx, r)
	})
	r := newRig(t, &Server{Policy: policy})
	var log bytes.Buffer
	r.server.Log = slog.New(slog.NewTextHandler(&log, nil))
	socket := listenTCP(t, "127.0.0.1:0")
	r.serve(socket, Listener{})
	echo := proxytest.Echo(t, "127.0.0.1")

	good := proxytest.Dial(t, socket.Addr().String())
	proxytest.Say(t, good, proxytest.Connect4(echo, "bob"))
	proxytest.Granted4(t, good)
	bad := proxytest.Dial(t, socket.Addr().String())
	proxytest.Say(t, bad, proxytest.Connect4(echo, "mallory"))
	if rest, _ := proxytest.End(bad); len(rest) > 0 {
		t.Errorf("the client was told % x", rest)
	}
	r.next(Failed)
	talk(t, good)
	if said := log.String(); !strings.Contains(said, "please report it") || !strings.Contains(said, "a fault") {
		t.Errorf("the log says %q", said)
	}
}

// TestHTTP2FaultIsContained: likewise for one request of many on a connection.
func TestHTTP2FaultIsContained(t *testing.T) {
	policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
		if r.Target.Port == 9 {
			panic("a fault")
		}
		return anything(ctx, r)
	})
	r := newRig(t, &Server{Policy: policy})
	var log bytes.Buffer
	r.server.Log = slog.New(slog.NewTextHandler(&log, nil))
	ca := newAuthority(t)
	socket := listenTCP(t, "127.0.0.1:0")
	r.address = socket.Addr().String()
	r.serve(socket, Listener{TLS: ca.server(t)})
	f := r.frames(ca)
	f.connects(1, proxytest.Echo(t, "127.0.0.1").String())
	f.answered("200")
	f.connects(3, "127.0.0.1:9")
	if s := nextFrame[*http2.RSTStreamFrame](f); s.StreamID != 3 {
		t.Errorf("%v was reset", s)
	}
	r.next(Failed)
	f.must(f.WriteData(1, true, []byte("ping")))
	if d := nextFrame[*http2.DataFrame](f); string(d.Data()) != "ping" {
		t.Errorf("%q came back", d.Data())
	}
	r.next(Closed)
	f.plain.Close()
	if said := log.String(); !strings.Contains(said, "please report it") {
		t.Errorf("the log says %q", said)
	}
}

// faultyRecorder panics at the end of each session.
type faultyRecorder struct{ closed atomic.Int64 }

func (*faultyRecorder) Opened(*Session) {}

func (r *faultyRecorder) Closed(*Session, error) {
	r.closed.Add(1)
	panic("a fault")
}

// TestRecordersFaultIsContained: a recorder that panics is told of each session once all
// the same, and the server goes on.
func TestRecordersFaultIsContained(t *testing.T) {
	for name, policy := range map[string]Policy{"on loops": prompt{deciding(anything)}, "in goroutines": deliberate{deciding(anything)}} {
		t.Run(name, func(t *testing.T) {
			told := &faultyRecorder{}
			s := &Server{Policy: policy, Recorder: told}
			socket := listenTCP(t, "127.0.0.1:0")
			served := make(chan error, 1)
			go func() { served <- s.Serve(context.Background(), socket, Listener{}) }()
			echo := proxytest.Echo(t, "127.0.0.1")
			for _, said := range [][]byte{{'?'}, proxytest.Connect4(netip.MustParseAddrPort("127.0.0.1:0"), "bob"), proxytest.Connect4(echo, "bob")} {
				c := proxytest.Dial(t, socket.Addr().String())
				proxytest.Say(t, c, said)
				_ = c.CloseWrite()
				_, _ = proxytest.End(c)
				c.Close()
			}
			proxytest.Eventually(t, "all have left", func() bool { return s.state.open.Load() == 0 && told.closed.Load() >= 3 })
			s.Close()
			if err := <-served; !errors.Is(err, ErrServerClosed) {
				t.Error(err)
			}
			if n := told.closed.Load(); n != 3 {
				t.Errorf("the recorder was told of %d ends, want 3", n)
			}
		})
	}
}
