package daemon

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAcceptedConnectionsInherit: what is set on a listening socket holds for the
// connections that it accepts.
func TestAcceptedConnectionsInherit(t *testing.T) {
	socket, err := openSocket(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	client, err := net.Dial("tcp4", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := socket.(net.Listener).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	want := map[[2]int]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE}:   1,
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:  15,
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}: 15,
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}:   9,
		{unix.IPPROTO_TCP, unix.TCP_NODELAY}:   1,
		{unix.SOL_SOCKET, unix.SO_PROTOCOL}:    unix.IPPROTO_TCP,
	}
	err = raw.Control(func(fd uintptr) {
		for option, value := range want {
			if got, err := unix.GetsockoptInt(int(fd), option[0], option[1]); err != nil || got != value {
				t.Errorf("option %v is %d, %v; want %d", option, got, err, value)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
