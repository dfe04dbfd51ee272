package proxytest

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// patience bounds every wait of the bench on a real network. It says that
// something hangs, not that it is slow.
const patience = time.Minute

// Target is an application server on loopback whose connections a test takes
// one by one.
type Target struct{ ln *net.TCPListener }

// NewTarget listens on host (an address of loopback) until the test ends.
func NewTarget(tb testing.TB, host string) *Target {
	tb.Helper()
	ln, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ln.Close() })
	return &Target{ln.(*net.TCPListener)}
}

// Addr returns where the target listens.
func (t *Target) Addr() netip.AddrPort { return addrPort(t.ln.Addr()) }

// Next returns the next connection; it is closed when the test ends.
func (t *Target) Next(tb testing.TB) *net.TCPConn {
	tb.Helper()
	_ = t.ln.SetDeadline(time.Now().Add(patience)) // what fails here fails below
	c, err := t.ln.AcceptTCP()
	if err != nil {
		tb.Fatalf("target: %v", err)
	}
	guard(tb, c)
	return c
}

// Untouched fails the test if somebody has connected to the target.
func (t *Target) Untouched(tb testing.TB) {
	tb.Helper()
	// Accepting yields the oldest connection: this one, if there is no other.
	marker := Dial(tb, t.Addr().String())
	if c := t.Next(tb); addrPort(c.RemoteAddr()) != addrPort(marker.LocalAddr()) {
		tb.Errorf("the target %s was connected to", t.Addr())
	}
}

// Echo serves an echo on host until the test ends: what a client sends comes
// back, and its FIN too.
func Echo(tb testing.TB, host string) netip.AddrPort {
	tb.Helper()
	t := NewTarget(tb, host)
	go func() {
		for {
			c, err := t.ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				// Through memory: splicing would leave pipes that a test which counts
				// descriptors sees until the garbage collector comes round.
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // ends when the client does
			}()
		}
	}()
	return t.Addr()
}

// Nowhere returns an address of loopback that refuses connections: one from
// which nobody calls either, so that its ports stay free.
func Nowhere(tb testing.TB) netip.AddrPort {
	tb.Helper()
	t := NewTarget(tb, "127.0.78.1")
	t.ln.Close()
	return t.Addr()
}

// Dial connects to address from any source; DialFrom from a certain one. The
// connection is bounded by a deadline, and closed when the test ends.
func Dial(tb testing.TB, address string) *net.TCPConn {
	tb.Helper()
	return DialFrom(tb, "", address)
}

// DialFrom is Dial from the address source.
func DialFrom(tb testing.TB, source, address string) *net.TCPConn {
	tb.Helper()
	d := net.Dialer{Timeout: patience}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	c, err := d.DialContext(tb.Context(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	guard(tb, c)
	return c.(*net.TCPConn)
}

func guard(tb testing.TB, c net.Conn) {
	tb.Helper()
	tb.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
}

// Eventually fails the test unless ok comes true in bounded time.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatalf("it did not come about: %s", what)
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
