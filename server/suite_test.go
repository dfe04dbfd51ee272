//go:build unix

package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

func TestInbound(t *testing.T) {
	for _, p := range []proxytest.Protocol{
		proxytest.SOCKS4("bob"), proxytest.SOCKS4(""), proxytest.SOCKS4a("bob"),
		proxytest.SOCKS5("", ""), proxytest.SOCKS5("fred", "secret"),
	} {
		t.Run(p.Name, func(t *testing.T) { proxytest.Inbound(t, p, startPlain) })
	}
	t.Run("dribbling socks4a", func(t *testing.T) { proxytest.Inbound(t, proxytest.SOCKS4a("bob"), startDribbling) })
	t.Run("dribbling socks5", func(t *testing.T) { proxytest.Inbound(t, proxytest.SOCKS5("fred", "secret"), startDribbling) })
}

// allowing grants the targets that allow accepts.
func allowing(allow func(netip.AddrPort) bool) deciding {
	return func(ctx context.Context, r *Request) (Grant, error) {
		if !allow(netip.AddrPortFrom(r.Target.IP, r.Target.Port)) {
			return Grant{}, fmt.Errorf("%w: not a target of this test", Denied)
		}
		return anything(ctx, r)
	}
}

func startPlain(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
	tb.Helper()
	r := onLoopback(tb, &Server{Policy: allowing(allow), Authenticator: door{login: LoginOptional}}, Listener{})
	return func() proxytest.Stream { return proxytest.Dial(tb, r.address) }
}

// startDribbling starts a server to which the first bytes of every client come
// one by one, as slow links and odd clients have it.
func startDribbling(tb testing.TB, allow func(netip.AddrPort) bool) func() proxytest.Stream {
	tb.Helper()
	socket := listenTCP(tb, "127.0.0.1:0")
	r := newRig(tb, &Server{Policy: allowing(allow), Authenticator: door{login: LoginOptional}})
	r.serve(dribblingListener{socket}, Listener{})
	return func() proxytest.Stream { return proxytest.Dial(tb, socket.Addr().String()) }
}

type dribblingListener struct{ net.Listener }

func (l dribblingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &dribbling{Stream: c.(proxytest.Stream)}, nil
}

type dribbling struct {
	proxytest.Stream
	reads atomic.Int32
}

func (d *dribbling) Read(b []byte) (int, error) {
	if d.reads.Add(1) < 500 {
		b = b[:min(1, len(b))]
	}
	return d.Stream.Read(b)
}

// TestUnixSocket: a listener need not be of TCP. Its clients are this machine,
// and one source.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, &Server{Policy: deciding(anything)})
	r.serve(socket, Listener{})
	echo := proxytest.Echo(t, "127.0.0.1")
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := dial()
	proxytest.Say(t, c, proxytest.Connect4(echo, "bob"))
	proxytest.Granted4(t, c)
	talk(t, c)
	bind := dial()
	proxytest.Say(t, bind, proxytest.Bind4(echo, "bob"))
	proxytest.Granted4(t, bind)
	bind.Close()
	if e := r.next(ClientGone); e.Primary != "held" || e.Client != netip.MustParseAddrPort("127.0.0.1:0") {
		t.Errorf("recorded primary %q, client %v", e.Primary, e.Client)
	}
}

// TestNothingIsLeftBehind: whatever the clients and targets of the suite did,
// no descriptor stays open. (That no goroutine stays is for TestMain.)
func TestNothingIsLeftBehind(t *testing.T) {
	onLoopback(t, &Server{}, Listener{}) // opens what the runtime keeps
	before := descriptors(t)
	t.Run("suite", func(t *testing.T) { proxytest.Inbound(t, proxytest.SOCKS4("bob"), startPlain) })
	proxytest.Eventually(t, "as many descriptors as before", func() bool { return descriptors(t) <= before })
}

// descriptors counts the open descriptors of this process.
func descriptors(tb testing.TB) int {
	tb.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Skipf("this system does not list open descriptors: %v", err)
	}
	return len(open)
}
