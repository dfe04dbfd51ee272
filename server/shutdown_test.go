package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestShutdownDrains: nobody new is let in, who is in the handshake is sent
// away at once, and who has a session may end it.
func TestShutdownDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, Listener{})
		target := r.network.MustListen(targetAt.String())
		client, far := r.relayed(target)
		shaking := r.asks([]byte{4, 1, 0})
		synctest.Wait()

		start, done := time.Now(), make(chan error)
		go func() { done <- r.server.Shutdown(context.Background()) }()
		r.next(Shutdown)
		if rest, _ := proxytest.End(shaking); len(rest) > 0 || time.Since(start) > 0 {
			t.Errorf("in the handshake: % x after %v, want a close at once", rest, time.Since(start))
		}
		if _, err := r.in.Dial(targetAt); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new client: %v, want refused", err)
		}
		if err := <-r.served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		r.served <- ErrServerClosed // for the end of the rig

		<-time.After(time.Hour)
		proxytest.Say(t, client, []byte("still here"))
		proxytest.Hear(t, far, "still here")
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v with a session open", err)
		default:
		}
		client.Close()
		far.Close()
		r.next(Closed)
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// TestShutdownCuts what has not ended in time: sessions, clients that wait for
// their target, and BINDs, each with a reset or a refusal, and the word for it.
func TestShutdownCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: freely}, Listener{})
		target := r.network.MustListen(targetAt.String())
		client, far := r.relayed(target)
		waiting, _ := r.waits()
		r.network.Silence(targetAt.Addr(), true)
		connecting := r.asks(proxytest.Connect4(targetAt, "bob"))
		synctest.Wait()

		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		start := time.Now()
		var told sync.WaitGroup
		for _, c := range []*proxytest.Conn{waiting, connecting} {
			told.Go(func() {
				proxytest.Refused4(t, c, 91)
				c.Close()
			})
		}
		err := r.server.Shutdown(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 30*time.Second {
			t.Errorf("%v after %v, want the deadline after 30 s", err, took)
		}
		for range 3 {
			r.next(Shutdown)
		}
		told.Wait()
		for _, c := range []*proxytest.Conn{client, far} {
			if _, err := proxytest.End(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a session that was cut ends with %v, want a reset", err)
			}
		}
		if open := r.network.Listening(targetAt); len(open) > 0 {
			t.Errorf("still listening: %v", open)
		}
	})
}

// TestCloseIsBounded, also where a refused client is still being waited for.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(func(ctx context.Context, q *Request) (Grant, error) {
			if q.Identity.Name == "eve" {
				return Grant{}, Denied
			}
			return anything(ctx, q)
		})}, Listener{})
		client, far := r.relayed(r.network.MustListen(targetAt.String()))
		r.asks(proxytest.Connect4(targetAt, "eve"))
		r.next(Denied)
		start := time.Now()
		r.server.Close()
		if took := time.Since(start); took > lingerTime {
			t.Errorf("Close took %v", took)
		}
		r.next(Shutdown)
		for _, c := range []*proxytest.Conn{client, far} {
			if _, err := proxytest.End(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
		}
	})
}

// TestServeAfterShutdown does nothing but close the socket.
func TestServeAfterShutdown(t *testing.T) {
	s := &Server{}
	s.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("a second Shutdown: %v", err)
	}
	socket := listenTCP(t, "127.0.0.1:0")
	if err := s.Serve(t.Context(), socket, Listener{}); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v, want ErrServerClosed", err)
	}
	if _, err := socket.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket: %v, want closed", err)
	}
}

// TestShutdownReachesAPausedListener: whatever keeps Serve from accepting, it
// returns at once.
func TestShutdownReachesAPausedListener(t *testing.T) {
	for name, limit := range map[string]int{"at the limit": 1, "backing off": 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything), Limits: Limits{Connections: limit}}, Listener{})
				target := r.network.MustListen(targetAt.String())
				r.relayed(target)
				if limit > 1 {
					for range 20 {
						r.in.Fail(acceptError(syscall.EMFILE))
					}
				}
				<-time.After(1300 * time.Millisecond) // where there is a back-off, it is at its longest
				start := time.Now()
				go func() { _ = r.server.Shutdown(context.Background()) }() // ends with the rig
				if err := <-r.served; !errors.Is(err, ErrServerClosed) || time.Since(start) > 0 {
					t.Errorf("Serve: %v after %v, want ErrServerClosed at once", err, time.Since(start))
				}
				r.served <- ErrServerClosed // for the end of the rig
			})
		})
	}
}

// TestContextOfServe ends Serve and the sessions, with its cause as the reason.
func TestContextOfServe(t *testing.T) {
	for name, test := range map[string]struct {
		cause error
		want  Reason
	}{
		"no cause": {nil, Shutdown},
		"a reason": {Busy, Busy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &Server{Policy: deciding(anything)})
				r.network = proxytest.NewNetwork(clientAt, 100)
				r.server.Outbound, r.in = r.network, r.network.MustListen(proxyAt.String())
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() { r.served <- r.server.Serve(ctx, r.in, Listener{}) }()
				client, far := r.relayed(r.network.MustListen(targetAt.String()))
				r.client()
				synctest.Wait()
				cancel(test.cause)
				if err := <-r.served; !errors.Is(err, context.Cause(ctx)) {
					t.Errorf("Serve: %v, want %v", err, context.Cause(ctx))
				}
				r.next(test.want)
				r.next(test.want)
				for _, c := range []*proxytest.Conn{client, far} {
					if _, err := proxytest.End(c); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%v, want a reset", err)
					}
				}
				if err := r.server.Shutdown(t.Context()); err != nil { // another listener might go on
					t.Errorf("Shutdown: %v", err)
				}
			})
		})
	}
}

// TestAcceptedTooLate: a connection that comes out of the queue as the server
// closes is closed, and served by nobody.
func TestAcceptedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &Server{Policy: deciding(anything)})
		near, far := proxytest.Pipe(proxyAt, targetAt, 100)
		late := &lateListener{Listener: proxytest.NewNetwork(clientAt, 100).MustListen(proxyAt.String()), last: near}
		go func() { r.served <- r.server.Serve(context.Background(), late, Listener{}) }()
		synctest.Wait()
		r.server.Close()
		if err := <-r.served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		proxytest.Ends(t, far)
	})
}

// lateListener has one connection more when it is closed.
type lateListener struct {
	net.Listener
	last net.Conn
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if last := l.last; err != nil && last != nil {
		l.last = nil
		return last, nil
	}
	return c, err
}
