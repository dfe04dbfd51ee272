package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// attemptScript is what dialling an address comes to: after a time, a connection
// or an error. Without a time it hangs until it is cancelled; deaf, it does not
// even notice that.
type attemptScript struct {
	after time.Duration
	err   error
	deaf  bool
}

// scripted is an Outbound that follows a script and notes what it was asked.
type scripted struct {
	dialling
	start  time.Time
	script map[string]attemptScript // by host

	mu    sync.Mutex
	began []string                   // "host time"
	far   map[string]*proxytest.Conn // the other ends of what it connected
	ended []string                   // hosts whose attempt was cancelled
}

func newScripted(script map[string]attemptScript) *scripted {
	s := &scripted{start: time.Now(), script: script, far: make(map[string]*proxytest.Conn)}
	s.dialling = s.dial
	return s
}

func (s *scripted) dial(ctx context.Context, address string) (net.Conn, error) {
	to := netip.MustParseAddrPort(address)
	host := to.Addr().String()
	s.mu.Lock()
	s.began = append(s.began, fmt.Sprint(host, " ", time.Since(s.start)))
	a := s.script[host]
	s.mu.Unlock()
	var ready <-chan time.Time
	if a.after > 0 {
		ready = time.After(a.after)
	}
	done := ctx.Done()
	if a.deaf {
		done = nil
	}
	select {
	case <-ready:
	case <-done:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = append(s.ended, host)
		return nil, ctx.Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	near, far := proxytest.Pipe(proxyAt, to, 100)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.far[host] = far
	return near, nil
}

const (
	ms  = time.Millisecond
	v6a = "2001:db8::a"
	v6b = "2001:db8::b"
	v4a = "192.0.2.1"
	v4b = "192.0.2.2"
	v4c = "192.0.2.3"
)

var errFirst, errSecond = errors.New("first"), errors.New("second")

type eyeballCase struct {
	name   string
	hosts  []string
	script map[string]attemptScript
	began  []string
	winner string
	err    error
	at     time.Duration // when it is over
}

var eyeballCases = []eyeballCase{
	{
		"one address",
		[]string{v4a},
		map[string]attemptScript{v4a: {after: time.Second}},
		[]string{v4a + " 0s"},
		v4a, nil, time.Second,
	}, {
		"one address fails",
		[]string{v4a},
		map[string]attemptScript{v4a: {after: ms, err: errFirst}},
		[]string{v4a + " 0s"},
		"", errFirst, ms,
	}, {
		"the first in time",
		[]string{v4a, v4b},
		map[string]attemptScript{v4a: {after: 249 * ms}},
		[]string{v4a + " 0s"},
		v4a, nil, 249 * ms,
	}, {
		"the next beside a slow one",
		[]string{v4a, v4b, v4c},
		map[string]attemptScript{v4b: {after: 100 * ms}},
		[]string{v4a + " 0s", v4b + " 250ms"},
		v4b, nil, 350 * ms,
	}, {
		"a slow one may win yet",
		[]string{v4a, v4b, v4c},
		map[string]attemptScript{v4a: {after: 600 * ms}},
		[]string{v4a + " 0s", v4b + " 250ms", v4c + " 500ms"},
		v4a, nil, 600 * ms,
	}, {
		"families in turn, the first's first",
		[]string{v6a, v6b, v4a, v4b},
		map[string]attemptScript{v4b: {after: ms}},
		[]string{v6a + " 0s", v4a + " 250ms", v6b + " 500ms", v4b + " 750ms"},
		v4b, nil, 751 * ms,
	}, {
		"families in turn, IPv4 first",
		[]string{v4a, v4b, v4c, v6a},
		map[string]attemptScript{v4c: {after: ms}},
		[]string{v4a + " 0s", v6a + " 250ms", v4b + " 500ms", v4c + " 750ms"},
		v4c, nil, 751 * ms,
	}, {
		"after a failure at once",
		[]string{v4a, v4b, v4c},
		map[string]attemptScript{v4a: {after: 10 * ms, err: errFirst}, v4b: {after: 10 * ms, err: errSecond}, v4c: {after: ms}},
		[]string{v4a + " 0s", v4b + " 10ms", v4c + " 20ms"},
		v4c, nil, 21 * ms,
	}, {
		"the pause begins anew after a failure",
		[]string{v4a, v4b, v4c},
		map[string]attemptScript{v4a: {after: 200 * ms, err: errFirst}, v4c: {after: ms}},
		[]string{v4a + " 0s", v4b + " 200ms", v4c + " 450ms"},
		v4c, nil, 451 * ms,
	}, {
		"after a failure at once, though another still hangs",
		[]string{v4a, v4b, v4c},
		map[string]attemptScript{v4b: {after: 10 * ms, err: errSecond}, v4c: {after: ms}},
		[]string{v4a + " 0s", v4b + " 250ms", v4c + " 260ms"},
		v4c, nil, 261 * ms,
	}, {
		"all fail: the first's error",
		[]string{v4a, v6a, v4b},
		map[string]attemptScript{v4a: {after: 900 * ms, err: errFirst}, v6a: {after: ms, err: errSecond}, v4b: {after: ms, err: errSecond}},
		[]string{v4a + " 0s", v6a + " 250ms", v4b + " 251ms"},
		"", errFirst, 900 * ms,
	}, {
		"all fail in order: the first's error",
		[]string{v4a, v4b},
		map[string]attemptScript{v4a: {after: ms, err: errFirst}, v4b: {after: ms, err: errSecond}},
		[]string{v4a + " 0s", v4b + " 1ms"},
		"", errFirst, 2 * ms,
	}, {
		"who comes second is closed",
		[]string{v4a, v4b, v4c},
		map[string]attemptScript{v4a: {after: 300 * ms}, v4b: {after: 50 * ms}},
		[]string{v4a + " 0s", v4b + " 250ms"},
		"", nil, 300 * ms,
	}, {
		"who comes too late is closed",
		[]string{v4a, v4b},
		map[string]attemptScript{v4a: {after: time.Second, deaf: true}, v4b: {after: 50 * ms}},
		[]string{v4a + " 0s", v4b + " 250ms"},
		v4b, nil, time.Second,
	},
}

func TestHappyEyeballs(t *testing.T) {
	for _, test := range eyeballCases {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runEyeballs(t, test) })
		})
	}
}

func runEyeballs(t *testing.T, test eyeballCase) {
	t.Helper()
	out := newScripted(test.script)
	c, err := dialFirst(t.Context(), out, portsOf(test.hosts))
	if took := time.Since(out.start); took != test.at {
		t.Errorf("over after %v, want %v", took, test.at)
	}
	if !slices.Equal(out.began, test.began) {
		t.Errorf("attempts %q, want %q", out.began, test.began)
	}
	if !errors.Is(err, test.err) || (c == nil) != (test.err != nil) {
		t.Fatalf("%v, %v; want %v", c, err, test.err)
	}
	if c == nil {
		return
	}
	defer c.Close()
	winner := addrPort(c.RemoteAddr()).Addr().String()
	if test.winner != "" && winner != test.winner {
		t.Errorf("%s won, want %s", winner, test.winner)
	}
	for host, far := range out.far {
		if host != winner {
			proxytest.Ends(t, far) // blocks for ever if the loser was not closed
		}
	}
	for _, began := range out.began {
		host, _, _ := strings.Cut(began, " ")
		if out.far[host] == nil && out.script[host].err == nil && !slices.Contains(out.ended, host) {
			t.Errorf("the attempt at %s was not cancelled", host)
		}
	}
	proxytest.Say(t, c, []byte("alive"))
	proxytest.Hear(t, out.far[winner], "alive")
}

func portsOf(hosts []string) (list []netip.AddrPort) {
	for _, h := range hosts {
		list = append(list, netip.AddrPortFrom(netip.MustParseAddr(h), 80))
	}
	return list
}

// TestHappyEyeballsEndsWithItsContext, at once, and tries nothing more.
func TestHappyEyeballsEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newScripted(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
		defer cancel()
		c, err := dialFirst(ctx, out, portsOf([]string{v4a, v4b, v4c, v6a, v6b}))
		if c != nil || !errors.Is(err, context.DeadlineExceeded) || time.Since(out.start) != 300*ms {
			t.Errorf("%v, %v after %v; want the deadline after 300 ms", c, err, time.Since(out.start))
		}
		if want := []string{v4a + " 0s", v6a + " 250ms"}; !slices.Equal(out.began, want) {
			t.Errorf("attempts %q, want %q", out.began, want)
		}
	})
}

// TestHappyEyeballsOnLoopback: the first address refuses, the second hangs
// nowhere: it answers.
func TestHappyEyeballsOnLoopback(t *testing.T) {
	nowhere := proxytest.Nowhere(t)
	target := listenTCP(t, netip.AddrPortFrom(quietHost, nowhere.Port()).String())
	c, err := dialFirst(t.Context(), &direct{}, []netip.AddrPort{nowhere, addrPort(target.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	_, err = dialFirst(t.Context(), &direct{}, []netip.AddrPort{nowhere, nowhere})
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("all refuse: %v", err)
	}
}
