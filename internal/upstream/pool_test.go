package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Where things are.
const (
	one   = "10.0.0.1:1080"
	two   = "10.0.0.2:1080"
	three = "10.0.0.3:1080"
)

var (
	clientAt = netip.MustParseAddrPort("192.0.2.1:40122")
	localAt  = netip.MustParseAddrPort("192.0.2.254:1080")
	target   = netip.MustParseAddrPort("198.51.100.7:80")
)

// asking is a Departure for addresses.
func asking(addrs ...netip.AddrPort) server.Departure {
	return server.Departure{Client: clientAt, Local: localAt, Target: socks.Addr{Name: "www.example", Port: 80}, Addrs: addrs}
}

// logbook keeps what is logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// rig is a pool on a network in memory, checked until the test ends.
type rig struct {
	testing.TB
	*Pool
	network *proxytest.Network
	log     logbook
}

func newRig(t *testing.T, s Settings) *rig {
	t.Helper()
	r := &rig{TB: t, network: proxytest.NewNetwork(netip.MustParseAddr("10.0.0.254"), 64<<10)}
	s.Name, s.Forward, s.Log = "hq", r.network, slog.New(slog.NewTextHandler(&r.log, nil))
	var err error
	if r.Pool, err = New(s); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Pool.Run(ctx) }()
	t.Cleanup(func() {
		end()
		<-ended
		for _, c := range r.network.Given() {
			if !c.Closed() {
				t.Errorf("a connection to %v was left open", c.RemoteAddr())
			}
		}
	})
	return r
}

// proxy5 runs a SOCKS 5 proxy that answers every request with a code. It hangs up
// behind a refusal, and else when the client does.
func (r *rig) proxy5(at string, code socks.Code5) (stop func()) {
	return r.serve(at, func(c net.Conn) {
		greeting := make([]byte, 3)
		if _, err := io.ReadFull(c, greeting); err != nil {
			return
		}
		_, _ = c.Write([]byte{5, 0})
		request := make([]byte, 10)
		if _, err := io.ReadFull(c, request); err != nil {
			return // that was a check
		}
		_, _ = c.Write(socks.Reply5{Code: code, Host: socks.NewHost5(localAt)}.Append(nil))
		if code == socks.Succeeded5 {
			_, _ = io.Copy(io.Discard, c)
		}
	})
}

func (r *rig) serve(at string, handle func(net.Conn)) (stop func()) {
	r.Helper()
	ln := r.network.MustListen(at)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { defer c.Close(); handle(c) })
		}
	})
	stop = sync.OnceFunc(func() { ln.Close() })
	r.Cleanup(func() { stop(); conns.Wait() })
	return stop
}

// connects wants a grant, by a certain proxy.
func (r *rig) connects(d server.Departure, by string) {
	r.Helper()
	c, proxy, err := r.Connect(r.Context(), d)
	if err != nil {
		r.Fatal(err)
	}
	c.Close()
	if !strings.HasSuffix(proxy, by) {
		r.Errorf("by %s, want %s", proxy, by)
	}
}

// refused wants an error with a reason.
func (r *rig) refused(d server.Departure, want server.Reason) error {
	r.Helper()
	ctx, cancel := context.WithTimeoutCause(r.Context(), 2*time.Minute, server.TimedOut)
	defer cancel()
	c, _, err := r.Connect(ctx, d)
	if err == nil {
		c.Close()
	}
	if got := server.ReasonOf(err); got != want {
		r.Errorf("%q (%v), want %q", got, err, want)
	}
	return err
}

// tried returns how often a proxy was connected to.
func (r *rig) tried(at string) (n int) {
	for _, to := range r.network.Dialled() {
		if to.String() == at {
			n++
		}
	}
	return n
}

// TestFailover: a dead proxy is passed over before the client knows, is left alone
// for as long as it is dead, and used again when a check finds it back.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"socks5://" + one, "socks5://" + two}})
		r.proxy5(two, socks.Succeeded5)
		r.connects(asking(target), two)
		before := r.tried(one)
		r.connects(asking(target), two)
		if n := r.tried(one) - before; n != 0 {
			t.Errorf("the dead proxy was tried %d times more", n)
		}
		r.proxy5(one, socks.Succeeded5)
		time.Sleep(firstPause)
		synctest.Wait()
		r.connects(asking(target), one)
		if down, up := r.log.count("is down"), r.log.count("is alive again"); down != 1 || up != 1 {
			t.Errorf("%d lines of down, %d of up", down, up)
		}
	})
}

// TestPauses between the checks of a dead proxy grow up to a bound.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"socks5://" + one}})
		r.refused(asking(target), server.UpstreamFailed)
		time.Sleep(10 * time.Minute)
		// After 1, 2, 4, 8, 16, 32 s and then each minute.
		if n := r.tried(one); n < 12 || n > 17 {
			t.Errorf("tried %d times in ten minutes", n)
		}
		// For want of better it is tried by who needs it, and taken.
		r.proxy5(one, socks.Succeeded5)
		r.connects(asking(target), one)
		if n := r.log.count("is alive again"); n != 1 {
			t.Errorf("%d lines say that it is back", n)
		}
	})
}

// TestChecked: a proxy that nobody uses is found dead too, and one that accepts
// and says nothing as well.
func TestChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"socks5://" + one, "socks5://" + two, "http://" + three}, Check: time.Minute})
		stop := r.proxy5(one, socks.Succeeded5)
		r.serve(two, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		r.serve(three, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // HTTP has no greeting
		time.Sleep(time.Minute + checkTime)
		synctest.Wait()
		if r.log.count("is down") != 1 || r.log.count(`proxy=socks5://`+two) != 1 {
			t.Errorf("the log says %s", r.log.text.String())
		}
		stop()
		time.Sleep(time.Minute + checkTime)
		synctest.Wait()
		if r.log.count(`proxy=socks5://`+one) != 1 {
			t.Errorf("the log says %s", r.log.text.String())
		}
	})
}

// TestFinal: what is about the target is not asked of another proxy, but of its
// other addresses.
func TestFinal(t *testing.T) {
	for code, want := range map[socks.Code5]server.Reason{
		socks.GeneralFailure5:     server.UpstreamFailed,
		socks.NotAllowed5:         server.Denied,
		socks.NetworkUnreachable5: server.Unreachable,
		socks.HostUnreachable5:    server.Unreachable,
		socks.Refused5:            server.Refused,
		socks.TTLExpired5:         server.TimedOut,
	} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Settings{Proxies: []string{"socks5://" + one, "socks5://" + two}})
				r.proxy5(one, code)
				r.proxy5(two, socks.Succeeded5)
				r.refused(asking(target, netip.MustParseAddrPort("198.51.100.8:80")), want)
				if n, other := r.tried(one), r.tried(two); n != 2 || other != 0 {
					t.Errorf("the proxy was asked %d times, the other %d", n, other)
				}
				if r.log.count("is down") != 0 {
					t.Error("it counts as down")
				}
			})
		})
	}
}

// TestSilent: a proxy that says nothing has its share of the time, and then the
// next is asked. A check tells whether it is dead.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"socks5://" + one, "socks5://" + two}})
		r.serve(one, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		r.proxy5(two, socks.Succeeded5)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		c, proxy, err := r.Connect(ctx, asking(target))
		if err != nil || !strings.HasSuffix(proxy, two) {
			t.Fatal(proxy, err)
		}
		c.Close()
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("it took %v, want half of the time", took)
		}
		time.Sleep(firstPause + checkTime)
		synctest.Wait()
		if r.log.count("is down") != 1 {
			t.Error("no check has found it dead")
		}
		// Alone it has all of the time, and that is what has run out.
		alone := newRig(t, Settings{Proxies: []string{"socks5://" + one}})
		alone.serve(one, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		alone.refused(asking(target), server.TimedOut)
		// One that cannot even be reached has ten seconds.
		alone.network.Silence(netip.MustParseAddrPort(one).Addr(), true)
		began = time.Now()
		alone.refused(asking(target), server.UpstreamFailed)
		if took := time.Since(began); took != reachTime {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRefusesUs: a proxy that wants another login is passed over, and asked again
// only after a pause, however well its port answers.
func TestRefusesUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"http://alice:w0nderland@" + one, "socks5://" + two}})
		r.serve(one, func(c net.Conn) {
			b := make([]byte, 1000)
			if n, err := c.Read(b); err == nil && strings.Contains(string(b[:n]), "CONNECT") {
				_, _ = io.WriteString(c, "HTTP/1.1 407 No\r\n\r\n")
			}
		})
		r.proxy5(two, socks.Succeeded5)
		r.connects(asking(target), two)
		before := r.tried(one)
		r.connects(asking(target), two)
		if r.tried(one) != before {
			t.Error("it was asked again at once")
		}
		time.Sleep(time.Hour)
		if n := r.tried(one) - before; n < 30 || n > 130 {
			t.Errorf("%d checks in an hour", n)
		}
		before = r.tried(one)
		r.connects(asking(target), two)
		if r.tried(one) == before {
			t.Error("it was never asked again")
		}
		if r.log.count("is down") != 1 || r.log.count("is alive again") != 0 || r.log.count("w0nderland") != 0 {
			t.Errorf("the log says %s", r.log.text.String())
		}
		r.network.Silence(netip.MustParseAddr("10.0.0.2"), true)
		if err := r.refused(asking(target), server.UpstreamFailed); strings.Contains(err.Error(), "w0nderland") || !strings.Contains(err.Error(), "login") {
			t.Error(err)
		}
	})
}

// TestUnfit: what a proxy can never do is no fault of it, and has a word of its own.
func TestUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		six := netip.MustParseAddrPort("[2001:db8::1]:80")
		r := newRig(t, Settings{Proxies: []string{"socks4://" + one}})
		r.refused(asking(six), server.Unreachable)
		r = newRig(t, Settings{Proxies: []string{"http://" + one, "socks4://" + two}})
		_, _, err := r.Associate(t.Context(), asking())
		if server.ReasonOf(err) != server.Unsupported || len(r.network.Dialled()) > 0 {
			t.Errorf("%v; dialled %v", err, r.network.Dialled())
		}
		r = newRig(t, Settings{Proxies: []string{"socks4://" + one, "socks5h://" + two}})
		r.serve(two, func(c net.Conn) {
			b := make([]byte, 100)
			for _, answer := range []string{"\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"} {
				if _, err := c.Read(b); err != nil {
					return
				}
				_, _ = io.WriteString(c, answer)
			}
			_, _ = io.Copy(io.Discard, c)
		})
		r.connects(asking(six), two)
		if r.log.count("is down") != 0 {
			t.Error("a proxy that is unfit counts as down")
		}
	})
}

// TestNames: the name goes where nothing was judged, the address where it was.
func TestNames(t *testing.T) {
	for _, test := range []struct {
		scheme string
		addrs  []netip.AddrPort
		want   string
	}{
		{"http", nil, "CONNECT www.example:80 "},
		{"http", []netip.AddrPort{target}, "CONNECT 198.51.100.7:80 "},
		{"socks4a", nil, "\x04\x01\x00\x50\x00\x00\x00\x01\x00www.example\x00"},
		{"socks4a", []netip.AddrPort{target}, "\x04\x01\x00\x50\xc6\x33\x64\x07\x00"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Settings{Proxies: []string{test.scheme + "://" + one}})
			heard := make(chan string, 1)
			r.serve(one, func(c net.Conn) {
				b := make([]byte, 1000)
				n, _ := c.Read(b)
				heard <- string(b[:n])
			})
			r.refused(asking(test.addrs...), server.UpstreamFailed) // it hangs up
			if got := <-heard; !strings.HasPrefix(got, test.want) {
				t.Errorf("%s of %v: %q, want %q", test.scheme, test.addrs, got, test.want)
			}
		})
	}
	for proxies, want := range map[string]bool{
		"socks5h://a": true, "socks4a://a http://b https://c": true, "socks5://a": false,
		"socks4a://a socks4://b": false, "socks5://a,socks5h://b": true, "socks5h://a,socks5://b": false,
	} {
		p, err := New(Settings{Proxies: strings.Fields(proxies)})
		if err != nil || p.SendsNames() != want {
			t.Errorf("%s: %v, %v", proxies, p, err)
		}
	}
}

// TestHeader: the first proxy hears of the client first of all, and a check names
// nobody.
func TestHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Settings{Proxies: []string{"http://" + one}, ProxyProtocol: 1})
		heard := make(chan string, 10)
		r.serve(one, func(c net.Conn) {
			all, _ := io.ReadAll(io.LimitReader(c, 70))
			heard <- string(all)
		})
		r.refused(asking(target), server.UpstreamFailed)
		if got, want := <-heard, "PROXY TCP4 192.0.2.1 192.0.2.254 40122 1080\r\nCONNECT "; !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		time.Sleep(time.Minute)
		if got, want := <-heard, "PROXY UNKNOWN\r\n"; got != want {
			t.Errorf("a check says %q, want %q", got, want)
		}
	})
}

func TestOrder(t *testing.T) {
	proxies := []string{"socks5://" + one, "socks5://" + two, "socks5://" + three}
	names := func(members []*member) (all []string) {
		for _, m := range members {
			all = append(all, strings.TrimSuffix(strings.TrimPrefix(m.name, "socks5://10.0.0."), ":1080"))
		}
		return all
	}
	order := func(p *Pool, d server.Departure) string { return strings.Join(names(p.order(d)), " ") }
	pool := func(c Choose) *Pool {
		p, err := New(Settings{Proxies: proxies, Choose: c})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}

	p := pool("")
	p.members[0].failed(errors.New("dead"), false)
	for d, want := range map[string]string{"": "2 3 1", "socks5://" + three: "3 2 1", "socks5://" + one: "2 3 1"} {
		if got := order(p, server.Departure{Proxy: d}); got != want {
			t.Errorf("behind a session by %q: %s, want %s", d, got, want)
		}
	}
	p = pool(RoundRobin)
	if got := fmt.Sprint(order(p, asking()), ", ", order(p, asking()), ", ", order(p, asking()), ", ", order(p, asking())); got != "1 2 3, 2 3 1, 3 1 2, 1 2 3" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for range 1000 {
		seen[order(pool(Random), asking())] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d orders at random, want all 6", len(seen))
	}
	p = pool(ByClient)
	first := map[string]int{}
	for i := range 256 {
		d := server.Departure{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}), uint16(i))}
		before := names(p.order(d))
		d.Client = netip.AddrPortFrom(d.Client.Addr(), 9)
		if again := names(p.order(d)); !slices.Equal(before, again) {
			t.Fatalf("%v and then %v", before, again)
		}
		first[before[0]]++
	}
	if len(first) != 3 || first["1"] < 32 || first["2"] < 32 || first["3"] < 32 {
		t.Errorf("clients by proxy: %v", first)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, proxies := range [][]string{nil, {"socks5://alice:w0nderland@"}, {"http://gw", "w0nderland"}} {
		if p, err := New(Settings{Proxies: proxies}); err == nil || strings.Contains(err.Error(), "w0nderland") {
			t.Errorf("%q: %v, %v", proxies, p, err)
		}
	}
}
