//go:build unix

package server

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestDrain: nobody new is let in, who is in the handshake is served all the same,
// and who has a session may end it. Nothing is cut when the time is over.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
		target := r.network.MustListen(targetAt.String())
		client, far := r.relayed(target)
		request := proxytest.Connect4(targetAt, "bob")
		shaking := r.asks(request[:3])
		synctest.Wait()

		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		first := make(chan error)
		go func() { first <- r.server.Drain(ctx) }()
		if err := <-r.served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		r.served <- ErrServerClosed // for the end of the rig
		if _, err := r.in.Dial(targetAt); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new client: %v, want refused", err)
		}
		proxytest.Say(t, shaking, request[3:])
		proxytest.Granted4(t, shaking)
		other := r.next4(target)
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain: %v, want the end of its time", err)
		}
		proxytest.Say(t, client, []byte("still here"))
		proxytest.Hear(t, far, "still here")

		second := make(chan error, 1)
		go func() { second <- r.server.Drain(context.Background()) }()
		synctest.Wait()
		for _, c := range []*proxytest.Conn{client, far, shaking, other} {
			if len(second) > 0 {
				t.Fatal("Drain returned with a session open")
			}
			c.Close()
			synctest.Wait()
		}
		r.next(Closed)
		r.next(Closed)
		if err := <-second; err != nil {
			t.Errorf("Drain: %v", err)
		}
	})
}

// TestDrainOfNobody returns at once, also before anybody was served, and lets
// nobody serve after it.
func TestDrainOfNobody(t *testing.T) {
	s := &Server{}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(t.Context(), listenTCP(t, "127.0.0.1:0"), Listener{}); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestDrainTellsHTTP: an open connection is served once more, and told to close.
func TestDrainTellsHTTP(t *testing.T) {
	r := newRig(t, &Server{Policy: deciding(anything)})
	socket := listenTCP(t, "127.0.0.1:0")
	r.address = socket.Addr().String()
	r.serve(socket, Listener{})
	target := proxytest.NewTarget(t, "127.0.0.1")
	c := r.web()
	get := func(wantClose bool, far *farSide) *farSide {
		t.Helper()
		c.say("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target.Addr())
		if far == nil {
			far = nextFar(t, target)
		}
		far.head()
		far.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if got := c.hears(http.StatusOK, "ok"); got.Close != wantClose {
			t.Errorf("Connection: close is %v, want %v", got.Close, wantClose)
		}
		return far
	}
	far := get(false, nil)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.server.Drain(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain: %v", err)
	}
	get(true, far)
	c.ends()
}

// TestDrainTellsHTTP2: no more streams, and those that are open go on.
func TestDrainTellsHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{TLS: ca.server(t)})
		target := r.network.MustListen(targetAt.String())
		f := r.frames(ca)
		f.connects(1, targetAt.String())
		far := r.next4(target)
		f.answered("200")
		done := make(chan error, 1)
		go func() { done <- r.server.Drain(context.Background()) }()
		if g := nextFrame[*http2.GoAwayFrame](f); g.ErrCode != http2.ErrCodeNo || g.LastStreamID != 1 {
			t.Errorf("%v", g)
		}
		f.must(f.WriteData(1, true, []byte("bye")))
		proxytest.Hear(t, far, "bye")
		far.Close()
		if d := nextFrame[*http2.DataFrame](f); !d.StreamEnded() {
			t.Errorf("%v", d)
		}
		f.plain.Close()
		if err := <-done; err != nil {
			t.Errorf("Drain: %v", err)
		}
		r.next(Closed)
	})
}
