//go:build unix

package server

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
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
