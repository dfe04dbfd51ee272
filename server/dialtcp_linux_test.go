package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// What connects at once must be told from nothing by its outcome: the errors are
// those of a Dialer without it, to the letter.
func TestDialTCPAsADialerDoes(t *testing.T) {
	nowhere := proxytest.Nowhere(t)
	for _, tt := range []struct {
		name, network, address string
		over                   bool // the context has ended
		want                   error
	}{
		{"nobody listens", "tcp", nowhere.String(), false, syscall.ECONNREFUSED},
		{"nobody listens, IPv6", "tcp", netip.AddrPortFrom(netip.IPv6Loopback(), nowhere.Port()).String(), false, syscall.ECONNREFUSED},
		{"no host's address", "tcp", "255.255.255.255:9", false, nil},
		{"the context has ended", "tcp", nowhere.String(), true, context.Canceled},
		{"an unknown zone", "tcp", "[fe80::1%nowhere]:9", false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.over {
				cancel()
			}
			_, plain := (&net.Dialer{}).DialContext(ctx, tt.network, tt.address)
			_, got := direct{}.DialContext(ctx, tt.network, tt.address)
			if plain == nil || got == nil || got.Error() != plain.Error() {
				t.Errorf("a Dialer says %v, the server's Outbound %v", plain, got)
			}
			if tt.want != nil && !errors.Is(got, tt.want) {
				t.Errorf("%v is not %v", got, tt.want)
			}
		})
	}
}

func TestDialTCPConnects(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) { dialsAndTalks(t, at) })
	}
}

// dialsAndTalks connects to a listener at that address.
func dialsAndTalks(t *testing.T, at string) {
	ln := listenTCP(t, at)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := direct{}.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel() // of no effect on what stands
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if c.RemoteAddr().String() != ln.Addr().String() || c.LocalAddr().String() != peer.RemoteAddr().String() {
		t.Errorf("the connection says %v to %v, its peer %v to %v", c.LocalAddr(), c.RemoteAddr(), peer.RemoteAddr(), ln.Addr())
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := peer.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	for option, level := range map[int]int{unix.TCP_NODELAY: unix.IPPROTO_TCP, unix.SO_KEEPALIVE: unix.SOL_SOCKET} {
		if value := optionOf(t, c.(*net.TCPConn), level, option); value == 0 {
			t.Errorf("option %d of level %d is off", option, level)
		}
	}
}

// optionOf returns the value of a socket's option.
func optionOf(t *testing.T, c syscall.Conn, level, option int) (value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) }), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}
