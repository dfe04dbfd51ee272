package server

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

func acceptError(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
}

// TestAcceptBacksOff from a socket that fails for now: ever longer, up to a
// second, and the log says so once and once more when it is over.
func TestAcceptBacksOff(t *testing.T) {
	for _, test := range []struct {
		fails int
		waits time.Duration
		lines int
	}{
		{1, 5 * time.Millisecond, 0}, // a connection that ended in the queue is no news
		{3, (5 + 10 + 20) * time.Millisecond, 2},
		{20, 1275*time.Millisecond + 12*time.Second, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := inMemory(t, &Server{}, Listener{})
			for range test.fails {
				r.in.Fail(acceptError(syscall.EMFILE))
			}
			start, c := time.Now(), r.asks(proxytest.Connect4(targetAt, "bob"))
			proxytest.Refused4(t, c, 91)
			if took := time.Since(start); took != test.waits {
				t.Errorf("%d failures were waited out in %v, want %v", test.fails, took, test.waits)
			}
			lines := r.book.all()
			if len(lines) != test.lines {
				t.Errorf("%d failures: the log says %q", test.fails, lines)
			}
			if len(lines) == 2 && (!strings.HasPrefix(lines[0], "WARN") || !strings.HasPrefix(lines[1], "INFO")) {
				t.Errorf("the log says %q, want a warning, then the end of it", lines)
			}
		})
	}
}

// TestAcceptBacksOffAnew: what was waited out is forgotten.
func TestAcceptBacksOffAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{}, Listener{})
		for range 2 {
			for range 3 {
				r.in.Fail(acceptError(syscall.ENFILE))
			}
			start, c := time.Now(), r.asks(proxytest.Connect4(targetAt, "bob"))
			proxytest.Refused4(t, c, 91)
			if took := time.Since(start); took != 35*time.Millisecond {
				t.Errorf("waited %v, want 35 ms", took)
			}
		}
		if lines := r.book.all(); len(lines) != 4 {
			t.Errorf("two episodes: the log says %q", lines)
		}
	})
}

// TestAcceptFailsForGood: Serve says why, and the sessions go on.
func TestAcceptFailsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &Server{Policy: deciding(anything)})
		r.network = proxytest.NewNetwork(clientAt, 100)
		r.server.Outbound, r.in = r.network, r.network.MustListen(proxyAt.String())
		target := r.network.MustListen(targetAt.String())
		go func() { r.served <- r.server.Serve(t.Context(), r.in, Listener{}) }()
		client, far := r.relayed(target)
		broken := acceptError(syscall.EINVAL)
		r.in.Fail(broken)
		if err := <-r.served; !errors.Is(err, broken) {
			t.Errorf("Serve: %v, want %v", err, broken)
		}
		if _, err := r.in.Dial(targetAt); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the socket was not closed: %v", err)
		}
		proxytest.Say(t, client, []byte("still here"))
		proxytest.Hear(t, far, "still here")
		client.Close()
		far.Close()
		r.next(Closed)
	})
}

// TestAcceptPausesAtTheLimit of connections, says so once, and goes on by
// itself. What is open meanwhile goes on, and what comes waits in the queue.
func TestAcceptPausesAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything), Limits: Limits{Connections: 3}}, Listener{})
		target := r.network.MustListen(targetAt.String())
		client, far := r.relayed(target)
		r.relayed(target)
		third, farThird := r.relayed(target)
		waiting := r.asks(proxytest.Connect4(targetAt, "bob"))
		<-time.After(time.Hour)
		if n := r.in.Waiting(); n != 1 || waiting.Unread() > 0 {
			t.Errorf("%d wait in the queue, want 1", n)
		}
		proxytest.Say(t, client, []byte("still here"))
		proxytest.Hear(t, far, "still here")
		if lines := r.book.all(); len(lines) != 1 || !strings.HasPrefix(lines[0], "WARN") {
			t.Errorf("the log says %q, want one warning", lines)
		}
		third.Close()
		farThird.Close()
		r.next4(target)
		proxytest.Granted4(t, waiting)
	})
}

// TestLogAtTheBrim: where connections come and go at the limit, that is one
// shortage and one line, and one more when there is room again.
func TestLogAtTheBrim(t *testing.T) {
	for _, limit := range []int{3, 22, 100} {
		synctest.Test(t, func(t *testing.T) {
			limits := Limits{Connections: limit, Handshakes: limit, HandshakesPerSource: limit}
			r := inMemory(t, &Server{Limits: limits}, Listener{})
			var open []*proxytest.Conn
			for range limit + 1 {
				open = append(open, r.client())
			}
			for range 10 * limit {
				open[0].Close()
				open = append(open[1:], r.client())
				synctest.Wait()
			}
			if lines := r.book.all(); len(lines) != 1 || !strings.HasPrefix(lines[0], "WARN") {
				t.Errorf("limit %d: the log says %q, want one warning", limit, lines)
			}
			for _, c := range open {
				c.Close()
			}
			synctest.Wait()
			r.client().Close()
			synctest.Wait()
			if lines := r.book.all(); len(lines) != 2 || !strings.HasPrefix(lines[1], "INFO") {
				t.Errorf("limit %d: the log says %q, want the end of the shortage", limit, lines)
			}
		})
	}
}

// TestLimitIsForAllListeners together.
func TestLimitIsForAllListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything), Limits: Limits{Connections: 4}}, Listener{})
		second := r.network.MustListen("127.0.0.1:1081")
		r.serve(second, Listener{})
		target := r.network.MustListen(targetAt.String())
		var clients []*proxytest.Conn
		for range 3 {
			c, _ := r.relayed(target)
			clients = append(clients, c)
		}
		// Three are open. Each listener holds a place for its next one, if there is one.
		a, b := r.client(), r.client()
		c, err := second.Dial(targetAt)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		synctest.Wait()
		if accepted := 3 - r.in.Waiting() - second.Waiting(); accepted > 1 {
			t.Errorf("%d connections were accepted past the limit", accepted-1)
		}
		for _, c := range append(clients, a, b) {
			c.Close()
		}
	})
}

// TestDefaults are what the documentation says, and what is set stays.
func TestDefaults(t *testing.T) {
	set := Timeouts{Handshake: 1, Connect: 2, Bind: 3, Idle: 4, HalfClosed: 5}
	for _, test := range []struct {
		name string
		got  func(Timeouts) time.Duration
		want time.Duration
	}{
		{"handshake", func(t Timeouts) time.Duration { return t.Handshake }, 10 * time.Second},
		{"connect", func(t Timeouts) time.Duration { return t.Connect }, 2 * time.Minute},
		{"bind", func(t Timeouts) time.Duration { return t.Bind }, 2 * time.Minute},
		{"idle", func(t Timeouts) time.Duration { return t.Idle }, 24 * time.Hour},
		{"half-closed", func(t Timeouts) time.Duration { return t.HalfClosed }, 10 * time.Minute},
	} {
		if got := test.got((Timeouts{}).withDefaults()); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
		if got, want := test.got(set.withDefaults()), test.got(set); got != want {
			t.Errorf("%s: %v, though %v was set", test.name, got, want)
		}
	}
	limits := Limits{Connections: 500}.withDefaults()
	if limits.Connections != 500 || limits.Handshakes != 250 || limits.HandshakesPerSource != 125 || limits.Binds != 125 || limits.BindsPerSource != 64 {
		t.Errorf("limits %+v", limits)
	}
	limits = Limits{Connections: 1, Handshakes: 2, HandshakesPerSource: 3, Binds: 4, BindsPerSource: 5}.withDefaults()
	if limits.Connections != 1 || limits.Handshakes != 2 || limits.HandshakesPerSource != 3 || limits.Binds != 4 || limits.BindsPerSource != 5 {
		t.Errorf("limits %+v, though others were set", limits)
	}
	if (Limits{Connections: 1}).withDefaults().Handshakes != 1 {
		t.Error("with one connection there must be a handshake")
	}
}
