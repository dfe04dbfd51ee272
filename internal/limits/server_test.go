package limits_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/limits"
	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

var (
	proxyAt  = netip.MustParseAddrPort("127.0.0.1:1080")
	targetAt = netip.MustParseAddrPort("127.0.0.2:80")
)

// rig is a server in memory that allows everything, within limits.
type rig struct {
	*testing.T
	table   limits.Table
	server  *server.Server
	network *proxytest.Network
	in      *proxytest.Listener
	target  *proxytest.Listener
	port    uint16
	ends    chan server.Reason
	blows   atomic.Bool  // a fault of the policy's own
	moved   atomic.Int64 // by the sessions that have ended
}

func newRig(t *testing.T, all map[string]limits.Limit) *rig {
	t.Helper()
	return newRigOf(t, all, server.Listener{Name: "door"})
}

func newRigOf(t *testing.T, all map[string]limits.Limit, l server.Listener) *rig {
	t.Helper()
	r := &rig{T: t, network: proxytest.NewNetwork(proxyAt.Addr(), 64<<10), ends: make(chan server.Reason, 100)}
	r.table.Set(all)
	r.in, r.target = r.network.MustListen(proxyAt.String()), r.network.MustListen(targetAt.String())
	r.server = &server.Server{Policy: r, Recorder: r, Outbound: r.network}
	served := make(chan error, 1)
	go func() {
		served <- r.server.Serve(context.WithoutCancel(t.Context()), r.in, l)
	}()
	t.Cleanup(func() {
		r.server.Close()
		<-served
		time.Sleep(24 * time.Hour)
		if n := r.table.Known(); n > 0 {
			t.Errorf("%d counters are left of sessions that are over", n)
		}
	})
	return r
}

func (r *rig) Decide(_ context.Context, q *server.Request) (server.Grant, error) {
	budget := r.table.Of("rule", []string{"few", "calm", "rate", "quota"}, nil).Budget(q, q.Identity)
	if q.Target.Name == "intranet" {
		if q.Command == socks.Bind {
			budget = nil // what is counted is who visits
		}
		return server.Grant{Rule: "rule", Virtual: true, Budget: budget}, nil
	}
	return server.Grant{Rule: "rule", Addrs: []netip.Addr{q.Target.IP}, Budget: budget}, nil
}

func (r *rig) Opened(*server.Session) {}

func (r *rig) Closed(s *server.Session, err error) {
	r.moved.Add(s.Up() + s.Down())
	r.ends <- server.ReasonOf(err)
	if r.blows.CompareAndSwap(true, false) {
		panic("a fault of the recorder's own")
	}
}

func (r *rig) asks(request []byte) *proxytest.Conn {
	r.Helper()
	r.port++
	c, err := r.in.Dial(netip.AddrPortFrom(proxyAt.Addr(), 1000+r.port))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	proxytest.Say(r, c, request)
	return c
}

func (r *rig) far() *proxytest.Conn {
	r.Helper()
	c, err := r.target.Next()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) wantEnd(want server.Reason) {
	r.Helper()
	if got := <-r.ends; got != want {
		r.Errorf("a session ended with %q, want %q", got, want)
	}
}

func in(t *testing.T, all map[string]limits.Limit, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newRig(t, all)) })
}

var get = []byte("GET http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n")

// refused has two clients refused, which are told so in their protocols.
func (r *rig) refused() {
	r.Helper()
	proxytest.Refused4(r, r.asks(proxytest.Connect4(targetAt, "bob")), 91)
	r.wantEnd(server.TooMany)
	c := r.asks(get)
	proxytest.Hear(r, c, "HTTP/1.1 429 Too Many Requests\r\nSallyport-Reason: too-many\r\nSallyport-Rule: \"rule\"\r\nRetry-After: 1\r\n")
	r.wantEnd(server.TooMany)
}

func (r *rig) connects() (client, far *proxytest.Conn) {
	c := r.asks(proxytest.Connect4(targetAt, "bob"))
	far = r.far()
	proxytest.Granted4(r, c)
	return c, far
}

// endings are sessions, and how each comes to its end.
func endings() map[string]func(r *rig) (want server.Reason, end func()) {
	return map[string]func(r *rig) (want server.Reason, end func()){
		"both sides have ended": func(r *rig) (server.Reason, func()) {
			c, far := r.connects()
			return server.Closed, func() { c.Close(); far.Close() }
		},
		"a reset": func(r *rig) (server.Reason, func()) {
			_, far := r.connects()
			return server.TargetReset, func() { proxytest.Reset(far) }
		},
		"the administrator": func(r *rig) (server.Reason, func()) {
			r.connects()
			return server.Revoked, func() { r.server.Sessions()[0].End(server.Revoked) }
		},
		"a review": func(r *rig) (server.Reason, func()) {
			r.connects()
			return server.Revoked, func() {
				r.server.Review(func(server.Held) (time.Time, error) { return time.Time{}, server.Revoked })
				r.server.Review(func(server.Held) (time.Time, error) { return time.Time{}, nil })
			}
		},
		"a fault": func(r *rig) (server.Reason, func()) {
			c, far := r.connects()
			return server.Closed, func() {
				r.blows.Store(true)
				c.Close()
				far.Close()
			}
		},
		"no target": func(r *rig) (server.Reason, func()) {
			r.network.Silence(targetAt.Addr(), true)
			r.asks(proxytest.Connect4(targetAt, "bob"))
			return server.TimedOut, func() { time.Sleep(5 * time.Minute); r.network.Silence(targetAt.Addr(), false) }
		},
		"a BIND whose client leaves": func(r *rig) (server.Reason, func()) {
			c := r.asks(proxytest.Bind4(targetAt, "bob")) // and has no primary
			return server.NoPrimary, func() { c.Close() }
		},
		"an HTTP answer": func(r *rig) (server.Reason, func()) {
			r.asks(get)
			far := r.far()
			return server.Closed, func() { proxytest.Say(r, far, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) }
		},
	}
}

// TestRefusals: each protocol says so at once, and there is room again when a session
// has ended, however it has.
func TestRefusals(t *testing.T) {
	for name, session := range endings() {
		t.Run(name, func(t *testing.T) {
			in(t, map[string]limits.Limit{"few": {Per: limits.Source, Sessions: 1}}, func(r *rig) {
				want, end := session(r)
				synctest.Wait()
				if want != server.NoPrimary { // which is over already
					r.refused()
				}
				end()
				r.wantEnd(want)
				synctest.Wait()
				r.connects()
			})
		})
	}
}

// TestTooFast: new sessions in a time, of which each request of HTTP is one.
func TestTooFast(t *testing.T) {
	in(t, map[string]limits.Limit{"calm": {Per: limits.Source, New: 2, In: time.Minute}}, func(r *rig) {
		c := r.asks(get)
		client := bufio.NewReader(c)
		hears := func(status int, after string) {
			response, err := http.ReadResponse(client, nil)
			if err != nil {
				r.Fatal(err)
			}
			defer response.Body.Close() // which reads to its end
			if response.StatusCode != status || response.Header.Get("Retry-After") != after {
				r.Fatalf("%+v; want %d and to come again after %q", response, status, after)
			}
		}
		answers := func() {
			far := r.far()
			synctest.Wait()
			proxytest.Say(r, far, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			hears(200, "")
			r.wantEnd(server.Closed)
		}
		answers()
		proxytest.Say(r, c, get)
		answers()
		time.Sleep(1500 * time.Millisecond) // of the 30 s until the next may come
		proxytest.Say(r, c, get)
		hears(429, "29")
		r.wantEnd(server.TooFast)
		proxytest.Refused4(r, r.asks(proxytest.Connect4(targetAt, "bob")), 91)
		r.wantEnd(server.TooFast)
		time.Sleep(31 * time.Second)
		proxytest.Say(r, c, get)
		answers()
	})
}

// TestTransferRates: every way of a session keeps to the rate, and a reload changes
// it while bytes run.
func TestTransferRates(t *testing.T) {
	const size = 1 << 20
	for name, request := range map[string][]byte{
		"CONNECT":   proxytest.Connect4(targetAt, "bob"),
		"GET":       get,
		"websocket": []byte(strings.Replace(string(get), "\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1)),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, map[string]limits.Limit{"rate": {Per: limits.User, Up: 80_000, Down: 800_000}}, func(r *rig) {
				c := r.asks(request)
				far := r.far()
				go func() {
					switch name {
					case "GET":
						fmt.Fprintf(far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
					case "websocket":
						fmt.Fprint(far, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
					}
					_, _ = far.Write(make([]byte, size)) // what went wrong the other side sees
				}()
				start := time.Now()
				wantIn(t, c, size/2, start, 5240*time.Millisecond)
				r.table.Set(map[string]limits.Limit{"rate": {Per: limits.User, Up: 80_000, Down: 8_000_000}})
				wantIn(t, c, size/2, time.Now(), 500*time.Millisecond)
			})
		})
	}
}

// wantIn reads so much, for which it should take so long.
func wantIn(t *testing.T, c io.Reader, size int64, start time.Time, want time.Duration) {
	t.Helper()
	if _, err := io.CopyN(io.Discard, c, size); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < want*9/10 || took > want*11/10 {
		t.Errorf("%d bytes took %v, want %v", size, took, want)
	}
}

// TestUploadRate: the body of a request keeps to the rate, too, longer than anything
// may be silent, and its pauses end with the request.
func TestUploadRate(t *testing.T) {
	in(t, map[string]limits.Limit{"rate": {Per: limits.Session, Up: 80_000}}, func(r *rig) {
		body := bytes.Repeat([]byte("x"), 100_000)
		c := r.asks(fmt.Appendf(nil, "POST http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\nContent-Length: %d\r\n\r\n", len(body)))
		go func() { _, _ = c.Write(body) }()
		far := r.far()
		wantIn(t, far, int64(len(body)), time.Now(), 10*time.Second)
		proxytest.Say(r, far, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		r.wantEnd(server.Closed)
		c2 := r.asks(fmt.Appendf(nil, "POST http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\nContent-Length: %d\r\n\r\n", len(body)))
		go func() { _, _ = c2.Write(body) }()
		time.Sleep(time.Second)
		r.server.Sessions()[0].End(server.Revoked)
		r.wantEnd(server.Revoked)
		if _, err := proxytest.End(r.far()); err == nil || errors.Is(err, io.EOF) {
			t.Error("the target takes a part of the request for all of it")
		}
	})
}

// ways are requests, and what a target says first to one.
func ways() map[string]struct {
	request []byte
	says    string
} {
	type way = struct {
		request []byte
		says    string
	}
	return map[string]way{
		"CONNECT":   {proxytest.Connect4(targetAt, "bob"), ""},
		"GET":       {get, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 1<<20)},
		"websocket": {[]byte(strings.Replace(string(get), "\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1)), "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
	}
}

// TestQuotaCuts: every way of a session ends within a chunk of the quota, for those
// that wait as well; both sides see that it is no whole end; who comes then is told why
// not, and in the next window is let in again.
func TestQuotaCuts(t *testing.T) {
	const quota = 100_000
	daily := map[string]limits.Limit{"quota": {Per: limits.Source, Quota: quota, Every: limits.Every{Unit: limits.Day}}}
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			in(t, daily, func(r *rig) {
				waits, _ := r.connects()
				c := r.asks(way.request)
				far := r.far()
				go func() { _, _ = far.Write(append([]byte(way.says), make([]byte, 1<<20)...)) }() // it is cut
				if _, err := io.Copy(io.Discard, c); err == nil {
					t.Error("the client takes a part for all of it")
				}
				r.wantEnd(server.Quota)
				r.wantEnd(server.Quota) // of the one that waits
				if _, err := proxytest.End(waits); err == nil || errors.Is(err, io.EOF) {
					t.Error("the client that waits is told that its target has ended")
				}
				if moved := r.moved.Load(); moved < quota || moved > quota+1000 { // what a head is
					t.Errorf("%d bytes were moved, the quota is %d", moved, quota)
				}
				proxytest.Refused4(r, r.asks(proxytest.Connect4(targetAt, "bob")), 91)
				r.wantEnd(server.Quota)
				c = r.asks(get)
				proxytest.Hear(r, c, "HTTP/1.1 429 Too Many Requests\r\nSallyport-Reason: quota\r\nSallyport-Rule: \"rule\"\r\nCache-Control: no-store\r\n")
				r.wantEnd(server.Quota)
				time.Sleep(24 * time.Hour)
				r.connects()
			})
		})
	}
}

// TestQuotaSlowsWays: every way of a session goes on slowly beyond the quota.
func TestQuotaSlowsWays(t *testing.T) {
	const quota = 100_000
	daily := map[string]limits.Limit{"quota": {Per: limits.Source, Quota: quota, Every: limits.Every{Unit: limits.Day}, Then: 80_000}}
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			in(t, daily, func(r *rig) {
				c := r.asks(way.request)
				far := r.far()
				go func() { _, _ = far.Write(append([]byte(way.says), make([]byte, 1<<20)...)) }() // the other side looks
				start := time.Now()
				if _, err := io.CopyN(io.Discard, c, quota-1000); err != nil || time.Since(start) > 200*time.Millisecond {
					t.Errorf("the quota took %v, %v", time.Since(start), err)
				}
				wantIn(t, c, 101_000, time.Now(), 10*time.Second)
			})
		})
	}
}
