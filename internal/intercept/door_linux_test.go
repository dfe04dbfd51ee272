//go:build amd64 || arm64

package intercept

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// dial connects to an address until the test ends.
func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestDoor lets in whoever is awaited, in whatever order, and nobody else.
func TestDoor(t *testing.T) {
	d, err := openDoor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(d.serve)
	for _, at := range []net.Addr{d.listeners[0].Addr(), d.listeners[len(d.listeners)-1].Addr()} {
		program := dial(t, "tcp", at.String())
		c, err := d.take(t.Context(), unmapped(program.LocalAddr().(*net.TCPAddr).AddrPort()))
		if err != nil {
			t.Fatal(err)
		}
		if c.RemoteAddr().String() != program.LocalAddr().String() {
			t.Errorf("%v was taken for %v", c.RemoteAddr(), program.LocalAddr())
		}
		c.Close()
	}
	stranger := dial(t, "tcp", d.at.v4.String())
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	nobody := unmapped(stranger.RemoteAddr().(*net.TCPAddr).AddrPort())
	if _, err := d.take(ctx, nobody); !errors.Is(err, enough) {
		t.Errorf("somebody came from the door itself: %v", err)
	}
	d.close()
	serving.Wait()
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Error("the stranger got something")
	}
	if len(d.come) > 0 || len(d.awaited) > 0 {
		t.Errorf("left behind: %v, %v", d.come, d.awaited)
	}
}

// TestStrangers closes a connection that nobody asks for, though not the next from the
// same address.
func TestStrangers(t *testing.T) {
	d, err := openDoor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for range unclaimed {
		dial(t, "tcp", d.at.v4.String())
		c, err := d.listeners[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		d.enter(c)
	}
	tooMany := dial(t, "tcp", d.at.v4.String())
	c, err := d.listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	d.enter(c)
	if n, err := tooMany.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: %d, %v", n, err)
	}
	from := unmapped(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	other, _ := net.Pipe()
	defer other.Close()
	for at, kept := range d.come {
		d.forget(at, other)
		if d.come[at] != kept {
			t.Error("one was closed for another")
		}
		d.forget(at, kept)
		if _, err := kept.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it is open: %v", err)
		}
		break
	}
	if _, ok := d.come[from]; ok {
		t.Error("one too many is kept")
	}
}

// TestResolverAnswersPrograms and nobody else.
func TestResolverAnswersPrograms(t *testing.T) {
	r, err := openResolver(t.Context(), newNames(10))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(r.serve)
	defer serving.Wait()
	defer r.close()
	c := dial(t, "udp", r.at.v4.String())
	ask := func(id uint16) {
		t.Helper()
		if _, err := c.Write(question(t, "www.example.com.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.ID = id })); err != nil {
			t.Fatal(err)
		}
	}
	ask(1)
	ask(2)
	b := make([]byte, 512)
	stranger := dial(t, "udp", r.at.v4.String())
	for answered := uint16(0); answered != 3; { // until those before have been passed over, too
		r.lead(unmapped(stranger.LocalAddr().(*net.UDPAddr).AddrPort()), r.at.v4)
		if _, err := stranger.Write(question(t, "a.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.ID = 3 })); err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Read(b); err != nil {
			t.Fatal(err)
		}
		answered = uint16(b[0])<<8 | uint16(b[1])
	}
	r.lead(unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort()), r.at.v4)
	ask(4)
	if _, err := c.Read(b); err != nil || b[1] != 4 {
		t.Errorf("the answer to %d, %v; want that to 4", b[1], err)
	}
}

func TestLedIsBounded(t *testing.T) {
	r, err := openResolver(t.Context(), newNames(10))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for n := range maxLed + 10 {
		ip := netip.AddrFrom4([4]byte{127, 0, byte(n >> 8), byte(n)})
		r.lead(netip.AddrPortFrom(ip, uint16(n>>16)+1), r.at.v4)
	}
	if len(r.led) != maxLed {
		t.Errorf("%d are remembered", len(r.led))
	}
}

func TestConnectsAreBounded(t *testing.T) {
	i := Interceptor{connects: make(chan struct{}, 1)}
	if !i.beginConnect() || i.beginConnect() {
		t.Error("there are two places, or none")
	}
	i.endConnect()
	if !i.beginConnect() {
		t.Error("the place was not given back")
	}
}

func TestYama(t *testing.T) {
	for text, want := range map[string][2]bool{ // as anybody, as root
		"0\n": {true, true}, "1\n": {true, true}, "2\n": {false, true}, "3\n": {false, false}, "": {true, true},
	} {
		file := filepath.Join(t.TempDir(), "scope")
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := [2]bool{yama(file, false) == nil, yama(file, true) == nil}; got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// TestThreads finds the process of its threads, of which one at most is its first.
func TestThreads(t *testing.T) {
	threads, enough := make(chan int), make(chan struct{})
	defer close(enough)
	for range 2 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			threads <- unix.Gettid()
			<-enough
		}()
	}
	for range 2 {
		id := uint32(<-threads)
		s, err := statusOf(id)
		if err != nil {
			t.Errorf("of %d: %v", id, err)
			continue
		}
		if got, err := s.process(); err != nil || got != os.Getpid() || s.isFirst() != (got == int(id)) {
			t.Errorf("of %d: %d, %v, %v; want %d", id, got, err, s.isFirst(), os.Getpid())
		}
		if got, err := s.user(); err != nil || got != os.Geteuid() {
			t.Errorf("of %d: user %d, %v", id, got, err)
		}
		fd, err := takeDescriptor(id, 0)
		if err != nil {
			t.Errorf("from %d: %v", id, err)
			continue
		}
		closeDescriptor(fd)
	}
}
