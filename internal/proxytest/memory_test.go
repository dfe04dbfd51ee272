package proxytest_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

var (
	alice = netip.MustParseAddrPort("192.0.2.1:1000")
	bob   = netip.MustParseAddrPort("192.0.2.2:2000")
)

// TestMemoryEnds: how a connection in memory ends is how one of TCP ends. The
// tests of the server lean on it.
func TestMemoryEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(c *proxytest.Conn)
		want error // of reading
		then error // of the first write
	}{
		{"half-close", func(c *proxytest.Conn) { c.CloseWrite() }, nil, nil},
		{"close", func(c *proxytest.Conn) { c.Close() }, nil, nil},
		{"reset", func(c *proxytest.Conn) { proxytest.Reset(c) }, syscall.ECONNRESET, syscall.EPIPE},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := proxytest.Pipe(alice, bob, 100)
			test.end(a)
			if _, err := proxytest.End(b); !errors.Is(err, test.want) {
				t.Errorf("read: %v, want %v", err, test.want)
			}
			if _, err := b.Write([]byte("x")); !errors.Is(err, test.then) {
				t.Errorf("write: %v, want %v", err, test.then)
			}
			if rest, err := proxytest.End(b); test.want != nil && (len(rest) > 0 || err != nil) {
				t.Errorf("read again: %v, want EOF: a reset is told of once", err)
			}
		})
	}
}

func TestMemoryClosingOverUnreadBytesResets(t *testing.T) {
	a, b := proxytest.Pipe(alice, bob, 100)
	proxytest.Say(t, a, []byte("unread"))
	proxytest.Say(t, b, []byte("last words"))
	b.Close()
	if rest, err := proxytest.End(a); len(rest) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v; want the last words lost to a reset", rest, err)
	}
}

func TestMemoryWritingToWhatWasClosedResets(t *testing.T) {
	a, b := proxytest.Pipe(alice, bob, 100)
	b.Close()
	proxytest.Say(t, a, []byte("too late"))
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("second write: %v, want a reset", err)
	}
}

func TestMemoryHoldsBackAndKeepsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := proxytest.Pipe(alice, bob, 10)
		_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		start := time.Now()
		n, err := a.Write(make([]byte, 11))
		if n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("%d bytes, %v after %v; want 10 and the deadline", n, err, time.Since(start))
		}
		if _, err := io.ReadFull(b, make([]byte, 10)); err != nil || b.Taken() != 10 {
			t.Errorf("%v, %d bytes; want 10", err, b.Taken())
		}
		_ = b.SetReadDeadline(time.Now().Add(-1))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want the deadline that has passed", err)
		}
	})
}

func TestMemoryNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := proxytest.NewNetwork(alice.Addr(), 100)
		ln := n.MustListen(bob.String())
		if _, err := n.Listen(t.Context(), "tcp", bob.String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listening twice: %v", err)
		}
		c, err := n.DialContext(t.Context(), "tcp", bob.String())
		if err != nil || ln.Waiting() != 1 {
			t.Fatalf("%v, %d wait", err, ln.Waiting())
		}
		ln.Close()
		if _, err := proxytest.End(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("in the queue of a socket that closed: %v, want a reset", err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if _, err := n.DialContext(t.Context(), "tcp", bob.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		if open := n.Listening(); len(open) > 0 || len(n.Dialled()) != 2 {
			t.Errorf("%v listen, %v were dialled", open, n.Dialled())
		}
	})
}
