package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

func TestRequests(t *testing.T) {
	mark := netip.MustParseAddr("0.0.0.1")
	ip := netip.MustParseAddr("192.0.2.7")
	resolver := client.WithResolver(names{"www.example.com": ips("::ffff:192.0.2.7")})
	for _, c := range []struct {
		url, network, address string
		want                  socks.Request4
		remote                string
	}{
		{"socks4a://u@gw", "tcp", "WWW.Example.com.:80", socks.Request4{Port: 80, IP: mark, Host: "www.example.com"}, "www.example.com:80"},
		{"socks4a://u@gw", "tcp4", "www.example.com:http", socks.Request4{Port: 80, IP: mark, Host: "www.example.com"}, "www.example.com:80"},
		{"socks4a://u@gw", "tcp", "192.0.2.7:443", socks.Request4{Port: 443, IP: ip}, "192.0.2.7:443"},
		{"socks4a://u@gw", "tcp", "[::ffff:192.0.2.7]:443", socks.Request4{Port: 443, IP: ip}, "192.0.2.7:443"},
		{"socks4a://u@gw", "tcp", "0.0.0.0:1", socks.Request4{Port: 1, IP: netip.IPv4Unspecified()}, "0.0.0.0:1"},
		{"socks4a://u@gw", "tcp", "0.0.0.5:1", socks.Request4{Port: 1, IP: mark, Host: "0.0.0.5"}, "0.0.0.5:1"},
		{"socks4a://u@gw", "tcp6", "[2001:db8::1]:80", socks.Request4{Port: 80, IP: mark, Host: "2001:db8::1"}, "[2001:db8::1]:80"},
		{"socks4://u@gw", "tcp", "192.0.2.7:443", socks.Request4{Port: 443, IP: ip}, "192.0.2.7:443"},
		{"socks4://u@gw", "tcp4", "www.example.com:65535", socks.Request4{Port: 65535, IP: ip}, "192.0.2.7:65535"},
	} {
		t.Run(c.url+" "+c.address, func(t *testing.T) {
			got := make(chan socks.Request4, 1)
			p := play(t, func(t *testing.T, conn net.Conn) {
				got <- readRequest(t, conn)
				if _, err := conn.Write(granted()); err != nil {
					t.Error(err)
				}
				waitForClose(t, conn)
			})
			conn, err := dialerFor(t, c.url, p, resolver).DialContext(t.Context(), c.network, c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c.want.Command, c.want.UserID = socks.Connect, "u"
			if r := <-got; r != c.want {
				t.Errorf("request %+v, want %+v", r, c.want)
			}
			remote := conn.RemoteAddr()
			if remote.String() != c.remote || remote.Network() != "tcp" {
				t.Errorf("RemoteAddr %v over %s, want %s", remote, remote.Network(), c.remote)
			}
			if _, isTCP := remote.(*net.TCPAddr); isTCP == (c.want.Host == "www.example.com") {
				t.Errorf("RemoteAddr is a %T", remote)
			}
		})
	}
}

func TestTargetsThatCannotBeAsked(t *testing.T) {
	resolver := client.WithResolver(names{"blocked.example": ips("0.0.0.0", "0.0.0.7", "2001:db8::1")})
	for _, c := range []struct {
		url, network, address string
		is                    error // may be nil
		says                  string
	}{
		{"socks4a://gw", "udp", "192.0.2.7:80", net.UnknownNetworkError("udp"), "udp"},
		{"socks4a://gw", "tcp", "192.0.2.7", nil, "missing port"},
		{"socks4a://gw", "tcp", "192.0.2.7:65536", nil, "65536"},
		{"socks4a://gw", "tcp", "192.0.2.7:nosuchservice", nil, "nosuchservice"},
		{"socks4a://gw", "tcp", "no spaces:80", socks.ErrHost, "no spaces"},
		{"socks4a://gw", "tcp", ":80", socks.ErrHost, ":80"},
		{"socks4a://gw", "tcp", strings.Repeat("a.", 128) + ":80", socks.ErrHost, "host"},
		{"socks4a://gw", "tcp6", "www.example.com:80", nil, "tcp6"},
		{"socks4a://gw", "tcp6", "192.0.2.7:80", nil, "tcp6"},
		{"socks4a://gw", "tcp4", "[2001:db8::1]:80", nil, "tcp4"},
		{"socks4://gw", "tcp", "[2001:db8::1]:80", nil, "socks4a://"},
		{"socks4://gw", "tcp", "0.0.0.7:80", nil, "socks4a://"},
		{"socks4://gw", "tcp", "nowhere.example:80", errNoSuchName, "looking up the target"},
		{"socks4://gw", "tcp", "blocked.example:80", nil, "no usable address"},
	} {
		conn, err := dialerFor(t, c.url, play(t), resolver).DialContext(t.Context(), c.network, c.address)
		if err == nil || conn != nil {
			t.Errorf("%s over %s by %s: no error", c.address, c.network, c.url)
			continue
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v does not match %v", c.address, err, c.is)
		}
		for _, part := range []string{c.url + ":1080: connect " + c.address + ": ", c.says} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v does not say %q", c.address, err, part)
			}
		}
	}
}

func TestReplyCutAnywhere(t *testing.T) {
	whole := granted()
	for n := range whole {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			d := dialerFor(t, "socks4://gw", play(t, cut(whole[:n])))
			_, err := d.DialContext(t.Context(), "tcp", "192.0.2.7:80")
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), fmt.Sprintf("after %d bytes of the reply, at least %d too early", n, len(whole)-n)) {
				t.Errorf("got %v", err)
			}
			if ne, ok := errors.AsType[net.Error](err); !ok || ne.Timeout() {
				t.Errorf("%v: not a net.Error, or a timeout", err)
			}
		})
	}
}

func TestReplyInPieces(t *testing.T) {
	whole := granted()
	for n := 1; n < len(whole); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			tail := []byte("220 ready")
			d := dialerFor(t, "socks4://gw", play(t, answer(whole[:n], append(whole[n:len(whole):len(whole)], tail...))))
			checkHears(t, d, string(tail))
		})
	}
}

// Both first bytes that proxies send are taken, and the address is ignored.
func TestReplyWithTailInOneSegment(t *testing.T) {
	for _, head := range [][]byte{granted(), {4, 90, 0, 0, 0, 0, 0, 0}} {
		d := dialerFor(t, "socks4://gw", play(t, answer(append(head, "\x00\x5b220 ready"...))))
		checkHears(t, d, "\x00\x5b220 ready")
	}
}

func checkHears(t *testing.T, d *client.Dialer, want string) {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", "192.0.2.7:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("the target's first bytes are %q (%v), want %q", got, err, want)
	}
}

func TestOtherProtocolsAreRecognised(t *testing.T) {
	for first, hint := range map[byte]string{5: "SOCKS 5", 'H': "HTTP", 0x15: "TLS", 'Z': "0x5a"} {
		// The one byte must do: whoever sent it may wait for more, and not close.
		d := dialerFor(t, "socks4://gw", play(t, answer([]byte{first})))
		_, err := d.DialContext(t.Context(), "tcp", "192.0.2.7:80")
		if !errors.Is(err, socks.ErrVersion) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%#02x: %v, want a hint at %s", first, err, hint)
		}
	}
}

func TestRefusals(t *testing.T) {
	sentinels := []error{client.ErrNoIdentd, client.ErrOtherUser, client.ErrLogin, client.ErrNotAllowed}
	for code, want := range map[socks.Code4]error{
		socks.Rejected4:  nil,
		socks.NoIdentd4:  client.ErrNoIdentd,
		socks.OtherUser4: client.ErrOtherUser,
		0:                nil,
		89:               nil,
		94:               nil,
	} {
		d := dialerFor(t, "socks4a://alice@gw", play(t, answer(reply(code, "192.0.2.9:99"))))
		_, err := d.DialContext(t.Context(), "tcp", "www.example.com:80")
		got, ok := errors.AsType[*client.ReplyError](err)
		if !ok {
			t.Errorf("code %d: %v is no ReplyError", code, err)
			continue
		}
		expect := client.ReplyError{
			Proxy: "socks4a://gw:1080", Op: "connect", Target: "www.example.com:80",
			Code: code, Addr: netip.MustParseAddrPort("192.0.2.9:99"),
		}
		if *got != expect {
			t.Errorf("got %+v, want %+v", *got, expect)
		}
		if !errors.Is(err, client.ErrRejected) {
			t.Errorf("code %d: does not match ErrRejected", code)
		}
		for _, sentinel := range sentinels {
			if got := errors.Is(err, sentinel); got != errors.Is(want, sentinel) {
				t.Errorf("code %d: errors.Is(%v) = %v", code, sentinel, got)
			}
		}
		text := fmt.Sprintf("socks4a://gw:1080: connect www.example.com:80: reply %d, %v", byte(code), code)
		if err.Error() != text {
			t.Errorf("code %d: %q, want %q", code, err, text)
		}
	}
}

func TestNextAddress(t *testing.T) {
	denied := func(code socks.Code4) script { return answer(reply(code, "0.0.0.0:0")) }
	for name, c := range map[string]struct {
		scripts []script
		remote  string // empty: an error
		is      error
	}{
		"granted at once":             {[]script{answer(granted())}, "192.0.2.1:80", nil},
		"91, then granted":            {[]script{denied(91), answer(granted())}, "192.0.2.2:80", nil},
		"closed, unknown, granted":    {[]script{cut(nil), denied(94), answer(granted())}, "192.0.2.3:80", nil},
		"all refused, the first told": {[]script{denied(91), denied(94), cut(nil)}, "", client.ErrRejected},
		"92 ends it":                  {[]script{denied(91), denied(92)}, "", client.ErrNoIdentd},
		"93 ends it":                  {[]script{denied(93)}, "", client.ErrOtherUser},
		"wrong protocol ends it":      {[]script{answer([]byte{5})}, "", socks.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			resolver := client.WithResolver(names{"www.example.com": ips("192.0.2.1", "0.0.0.0", "192.0.2.2", "192.0.2.3")})
			d := dialerFor(t, "socks4://gw", play(t, c.scripts...), resolver)
			conn, err := d.DialContext(t.Context(), "tcp", "www.example.com:80")
			if c.remote == "" {
				if !errors.Is(err, c.is) {
					t.Fatalf("got %v, want %v", err, c.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if conn.RemoteAddr().String() != c.remote {
				t.Errorf("RemoteAddr %v, want %s", conn.RemoteAddr(), c.remote)
			}
		})
	}
}

func TestProxyOutOfReach(t *testing.T) {
	dials := 0
	forward := dialFunc(func(context.Context) (net.Conn, error) {
		dials++
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	})
	resolver := client.WithResolver(names{"www.example.com": ips("192.0.2.1", "192.0.2.2")})
	_, err := dialerFor(t, "socks4://gw", forward, resolver).Dial("tcp", "www.example.com:80")
	if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if dials != 1 {
		t.Errorf("the proxy was dialled %d times, though another target cannot help", dials)
	}
	const text = "socks4://gw:1080: connect 192.0.2.1:80: reaching the proxy: dial tcp: connect: connection refused"
	if err == nil || err.Error() != text {
		t.Errorf("got %q, want %q", err, text)
	}
}

// dialFunc is a forward dialer.
type dialFunc func(context.Context) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, _, _ string) (net.Conn, error) { return f(ctx) }

func TestProxyThatNeverReads(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	p := play(t, func(*testing.T, net.Conn) {
		cancel() // while the client is blocked in its write, or just before
		<-returned
	})
	_, err := dialerFor(t, "socks4://gw", p).DialContext(ctx, "tcp", "192.0.2.7:80")
	close(returned)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProxyThatClosesBeforeTheRequest(t *testing.T) {
	d := dialerFor(t, "socks4://gw", play(t, func(*testing.T, net.Conn) {}))
	_, err := d.DialContext(t.Context(), "tcp", "192.0.2.7:80")
	if !errors.Is(err, io.ErrClosedPipe) || !strings.Contains(err.Error(), "sending the request") {
		t.Errorf("got %v", err)
	}
}

// silent reads the request and says nothing until the client closes.
func silent(t *testing.T, c net.Conn) {
	readRequest(t, c)
	waitForClose(t, c)
}

func TestDefaultTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := dialerFor(t, "socks4://gw", play(t, silent)).Dial("tcp", "192.0.2.7:80")
		checkTimeout(t, err, "no answer within 2m10s")
		if took := time.Since(start); took != 130*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestTimeoutOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := play(t, silent, silent)
		_, err := dialerFor(t, "socks4://gw", p, client.WithTimeout(time.Second)).Dial("tcp", "192.0.2.7:80")
		checkTimeout(t, err, "no answer within 1s")
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}

		// A deadline of the context's own comes first, even a later one.
		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = dialerFor(t, "socks4://gw", p, client.WithTimeout(time.Second)).DialContext(ctx, "tcp", "192.0.2.7:80")
		checkTimeout(t, err, "context deadline exceeded")
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

func checkTimeout(t *testing.T, err error, says string) {
	t.Helper()
	ne, ok := errors.AsType[net.Error](err)
	if !ok || !ne.Timeout() {
		t.Errorf("%v is no timeout to a net.Error", err)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v does not match both kinds of deadline", err)
	}
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%v does not say %q", err, says)
	}
}

func TestNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, func(t *testing.T, c net.Conn) {
			readRequest(t, c)
			<-time.After(24 * time.Hour)
			if _, err := c.Write(granted()); err != nil {
				t.Error(err)
			}
		})
		conn, err := dialerFor(t, "socks4://gw", p, client.WithTimeout(0)).Dial("tcp", "192.0.2.7:80")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

// No deadline may be left behind on a connection, whatever bounded its making.
func TestDeadlineDoesNotOutliveTheDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, slowly(granted(), []byte("late")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		conn, err := dialerFor(t, "socks4://gw", p).DialContext(ctx, "tcp", "192.0.2.7:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		<-ctx.Done()
		cancel()
		synctest.Wait()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "late" {
			t.Errorf("after the context's end: %q, %v", got, err)
		}
	})
}

// An address that never answers leaves the others their share of the time.
func TestShares(t *testing.T) {
	for _, c := range []struct{ limit, first time.Duration }{
		{30 * time.Second, 10 * time.Second},
		{5 * time.Second, 2 * time.Second}, // a share has 2 s at least
	} {
		synctest.Test(t, func(t *testing.T) {
			resolver := client.WithResolver(names{"www.example.com": ips("192.0.2.1", "192.0.2.2", "192.0.2.3")})
			p := play(t, silent, answer(granted()))
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			defer cancel()
			conn, err := dialerFor(t, "socks4://gw", p, resolver).DialContext(ctx, "tcp", "www.example.com:80")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if took := time.Since(start); took != c.first {
				t.Errorf("of %v the first address had %v, want %v", c.limit, took, c.first)
			}
		})
	}
}

func TestSharesUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resolver := client.WithResolver(names{"www.example.com": ips("192.0.2.1", "192.0.2.2")})
		start := time.Now()
		_, err := dialerFor(t, "socks4://gw", play(t, silent, silent), resolver).Dial("tcp", "www.example.com:80")
		checkTimeout(t, err, "no answer within 2m10s")
		if took := time.Since(start); took != 130*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

var errGaveUp = errors.New("the caller gave up")

func checkCause(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, errGaveUp) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not match the cause and context.Canceled", err)
	}
	if ne, ok := errors.AsType[net.Error](err); !ok || ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v: not a net.Error, or one that says timeout", err)
	}
}

func TestCancelKeepsTheCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	p := play(t, func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		cancel(errGaveUp)
		waitForClose(t, c)
	})
	_, err := dialerFor(t, "socks4://gw", p).DialContext(ctx, "tcp", "192.0.2.7:80")
	checkCause(t, err)

	// The context has ended before the next calls begin.
	_, err = dialerFor(t, "socks4://gw", dialFunc(func(ctx context.Context) (net.Conn, error) {
		return nil, ctx.Err()
	})).DialContext(ctx, "tcp", "192.0.2.7:80")
	checkCause(t, err)
	resolver := client.WithResolver(new(net.Resolver))
	_, err = dialerFor(t, "socks4://gw", play(t), resolver).DialContext(ctx, "tcp", "www.example.com:80")
	checkCause(t, err)
}

// hookedConn calls hooks, which may be nil.
type hookedConn struct {
	net.Conn
	afterRead   func()
	setDeadline func(time.Time) error
}

func (c hookedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.afterRead != nil {
		c.afterRead()
	}
	return n, err
}

func (c hookedConn) SetDeadline(t time.Time) error {
	if c.setDeadline != nil {
		return c.setDeadline(t)
	}
	return c.Conn.SetDeadline(t)
}

// A context that ends while the last byte of a granting reply is read may have
// spoilt the connection: the call fails and the connection is closed.
func TestCancelAtTheLastByte(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := play(t, answer(granted()))
	p.wrap = func(c net.Conn) net.Conn { return hookedConn{Conn: c, afterRead: cancel} }
	_, err := dialerFor(t, "socks4://gw", p).DialContext(ctx, "tcp", "192.0.2.7:80")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCancelWithoutDeadlines(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := play(t, func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		cancel()
		waitForClose(t, c)
	})
	p.wrap = func(c net.Conn) net.Conn {
		return hookedConn{Conn: c, setDeadline: func(time.Time) error { return errors.ErrUnsupported }}
	}
	_, err := dialerFor(t, "socks4://gw", p).DialContext(ctx, "tcp", "192.0.2.7:80")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
