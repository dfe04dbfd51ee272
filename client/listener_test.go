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
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

func listen(t *testing.T, d *client.Dialer) net.Listener {
	t.Helper()
	ln, err := d.Listen(t.Context(), "tcp", "192.0.2.7:21")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestBind(t *testing.T) {
	request := make(chan socks.Request4, 1)
	p := play(t, func(t *testing.T, c net.Conn) {
		request <- readRequest(t, c)
		second := append(reply(socks.Granted4, "192.0.2.7:20"), "data"...)
		for _, b := range [][]byte{reply(socks.Granted4, "192.0.2.200:2000"), second} {
			if _, err := c.Write(b); err != nil {
				t.Error(err)
			}
		}
		waitForClose(t, c)
	})
	ln := listen(t, dialerFor(t, "socks4://alice@gw", p))
	want := socks.Request4{Command: socks.Bind, Port: 21, IP: netip.MustParseAddr("192.0.2.7"), UserID: "alice"}
	if r := <-request; r != want {
		t.Errorf("request %+v, want %+v", r, want)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || a.String() != "192.0.2.200:2000" {
		t.Errorf("Addr %v", ln.Addr())
	}

	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || a.String() != "192.0.2.7:20" {
		t.Errorf("RemoteAddr %v", conn.RemoteAddr())
	}
	checkClosed(t, ln)
	if err := ln.Close(); err != nil {
		t.Errorf("Close after Accept: %v", err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "data" {
		t.Errorf("the peer's first bytes are %q, %v", got, err)
	}
}

// checkClosed asks for one connection too many.
func checkClosed(t *testing.T, ln net.Listener) {
	t.Helper()
	if conn, err := ln.Accept(); conn != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, %v; want net.ErrClosed", conn, err)
	}
	if err := setDeadline(ln, time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline: %v; want net.ErrClosed", err)
	}
}

func setDeadline(ln net.Listener, at time.Time) error {
	return ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(at)
}

// A first reply without an IP address stands for the proxy's own.
func TestBindAddr(t *testing.T) {
	for _, c := range []struct{ url, remote, want string }{
		{"socks4://gw", "192.0.2.1:1080", "192.0.2.1:2000"},
		{"socks4://gw", "[::ffff:192.0.2.1]:1080", "192.0.2.1:2000"},
		{"socks4://gw", "[2001:db8::1]:1080", "[2001:db8::1]:2000"},
		{"socks4://gw", "pipe", "gw:2000"},
		{"socks4://192.0.2.3", "pipe", "192.0.2.3:2000"},
		{"socks4://[::ffff:192.0.2.3]:1", "pipe", "192.0.2.3:2000"},
	} {
		p := play(t, answer(reply(socks.Granted4, "0.0.0.0:2000")))
		p.wrap = func(conn net.Conn) net.Conn { return addressedConn{conn, c.remote} }
		ln := listen(t, dialerFor(t, c.url, p))
		tcp, isTCP := ln.Addr().(*net.TCPAddr)
		if isTCP && tcp.AddrPort().Addr().Is4In6() {
			t.Errorf("%s reached at %s: Addr %#v is an IPv4 address in an IPv6 one", c.url, c.remote, tcp)
		}
		if got := ln.Addr().String(); got != c.want || isTCP == strings.HasPrefix(c.want, "gw") {
			t.Errorf("%s reached at %s: Addr is the %T %s, want %s", c.url, c.remote, ln.Addr(), got, c.want)
		}
	}
}

type addressedConn struct {
	net.Conn
	remote string
}

func (c addressedConn) RemoteAddr() net.Addr { return address(c.remote) }

type address string

func (a address) Network() string { return "test" }
func (a address) String() string  { return string(a) }

func TestBindRefusedAtOnce(t *testing.T) {
	for _, url := range []string{"socks4://gw", "socks4a://gw"} {
		d := dialerFor(t, url, play(t, answer(reply(socks.Rejected4, "0.0.0.0:0"))))
		ln, err := d.Listen(t.Context(), "tcp", "192.0.2.7:21")
		refusal, ok := errors.AsType[*client.ReplyError](err)
		if ln != nil || !ok || refusal.Op != "bind" || refusal.Code != socks.Rejected4 {
			t.Errorf("got %v, %v", ln, err)
		}
	}
}

func TestBindPeerTurnedAway(t *testing.T) {
	d := dialerFor(t, "socks4a://gw", play(t, answer(granted(), reply(socks.Rejected4, "198.51.100.66:6666"))))
	ln, err := d.Listen(t.Context(), "tcp", "ftp.example.com:21")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	got, ok := errors.AsType[*client.ReplyError](err)
	if conn != nil || !ok {
		t.Fatalf("got %v, %v", conn, err)
	}
	want := client.ReplyError{
		Proxy: "socks4a://gw:1080", Op: "accept", Target: "ftp.example.com:21",
		Code: socks.Rejected4, Addr: netip.MustParseAddrPort("198.51.100.66:6666"),
	}
	if *got != want || !errors.Is(err, client.ErrRejected) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	checkClosed(t, ln)
	if err := ln.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestSecondReplyCutAnywhere(t *testing.T) {
	second := reply(socks.Granted4, "192.0.2.7:20")
	for n := range second {
		ln := listen(t, dialerFor(t, "socks4://gw", play(t, cut(append(granted(), second[:n]...)))))
		_, err := ln.Accept()
		says := fmt.Sprintf("socks4://gw:1080: accept 192.0.2.7:21: the proxy closed the connection after %d bytes of the reply", n)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("cut after %d: %v", n, err)
		}
		if _, ok := errors.AsType[net.Error](err); !ok {
			t.Errorf("%v is no net.Error", err)
		}
		checkClosed(t, ln)
	}
}

func TestSecondReplyOfAnotherProtocol(t *testing.T) {
	ln := listen(t, dialerFor(t, "socks4://gw", play(t, answer(granted(), []byte("HTTP")))))
	if _, err := ln.Accept(); !errors.Is(err, socks.ErrVersion) {
		t.Errorf("got %v", err)
	}
	checkClosed(t, ln)
}

// The end of Listen's context means nothing to Accept.
func TestListenContextEndsAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		p := play(t, func(t *testing.T, c net.Conn) {
			readRequest(t, c)
			if _, err := c.Write(granted()); err != nil {
				t.Error(err)
			}
			<-goOn
			if _, err := c.Write(reply(socks.Granted4, "192.0.2.7:20")); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ln, err := dialerFor(t, "socks4://gw", p).Listen(ctx, "tcp", "192.0.2.7:21")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		close(goOn)
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

func TestListenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	p := play(t, func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		cancel(errGaveUp)
		waitForClose(t, c)
	})
	_, err := dialerFor(t, "socks4://gw", p).Listen(ctx, "tcp", "192.0.2.7:21")
	checkCause(t, err)
}

func TestCloseBeforeAccept(t *testing.T) {
	ln := listen(t, dialerFor(t, "socks4://gw", play(t, answer(granted()))))
	for range 2 {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
	checkClosed(t, ln)
}

// Close wakes the Accept that reads and the one that waits behind it.
func TestCloseDuringAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := listen(t, dialerFor(t, "socks4://gw", play(t, answer(granted()))))
		results := make(chan error, 2)
		accept := func() {
			_, err := ln.Accept()
			results <- err
		}
		go accept()
		synctest.Wait() // it reads now
		go accept()     // it waits for a lock, or will: synctest.Wait does not see locks
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// slowly reads the request and writes the chunks a minute apart.
func slowly(chunks ...[]byte) script {
	return func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		for _, b := range chunks {
			if _, err := c.Write(b); err != nil {
				t.Errorf("writing %x: %v", b, err)
			}
			<-time.After(time.Minute)
		}
	}
}

// acceptWithin is Accept with a deadline.
func acceptWithin(t *testing.T, ln net.Listener, limit time.Duration) (net.Conn, error) {
	t.Helper()
	if err := setDeadline(ln, time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return ln.Accept()
}

// A deadline ends Accept but not the BIND, and no byte read so far is lost.
func TestAcceptDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := append(reply(socks.Granted4, "192.0.2.7:20"), "data"...)
		ln := listen(t, dialerFor(t, "socks4://gw", play(t, slowly(granted(), second[:3], second[3:8], second[8:]))))
		start := time.Now()
		for i := range 2 {
			_, err := acceptWithin(t, ln, 40*time.Second)
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("Accept %d: %v", i, err)
			}
		}
		if took := time.Since(start); took != 80*time.Second {
			t.Errorf("two deadlines of 40 s took %v", took)
		}
		conn, err := acceptWithin(t, ln, 50*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The deadline has been lifted, or the read would fail before the data come.
		if got, err := io.ReadAll(conn); err != nil || string(got) != "data" {
			t.Errorf("the peer's bytes are %q, %v", got, err)
		}
	})
}

// The reply is complete, but Close came first: there is nothing to accept.
func TestCloseAtTheLastByte(t *testing.T) {
	var ln net.Listener
	p := play(t, answer(granted(), reply(socks.Granted4, "192.0.2.7:20")))
	p.wrap = func(c net.Conn) net.Conn {
		return hookedConn{Conn: c, afterRead: func() {
			if ln != nil {
				ln.Close()
			}
		}}
	}
	ln = listen(t, dialerFor(t, "socks4://gw", p))
	checkClosed(t, ln)
}
