package server

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestAside: a listening socket is out of the runtime's poller while its clients are
// accepted on a loop, can be handed to another process nevertheless, and be closed by
// its owner.
func TestAside(t *testing.T) {
	s := &Server{Policy: prompt{deciding(anything)}}
	defer s.Close()
	socket := Aside(listenTCP(t, "127.0.0.1:0"))
	was := inode(t, socket)
	if n := watchers(t, was); n != 1 {
		t.Errorf("before it is served %d pollers watch it, want the runtime's", n)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), socket, Listener{}) }()
	if is := inode(t, socket); is != was { // maybe while it is taken
		t.Errorf("it is the socket %d, and was %d", is, was)
	}
	c := proxytest.Dial(t, socket.Addr().String())
	target := listenTCP(t, "127.0.0.1:0")
	proxytest.Say(t, c, proxytest.Connect4(addrPort(target.Addr()), "bob"))
	proxytest.Granted4(t, c)
	if is := inode(t, socket); is != was {
		t.Errorf("it is the socket %d, and was %d", is, was)
	}
	if n := watchers(t, was); n != 1 {
		t.Errorf("while it is served %d pollers watch it, want the one that looks out for the loop", n)
	}
	if err := socket.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it was closed, and Serve says %v", err)
	}
	if err := socket.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is closed once more: %v", err)
	}
}

// TestAsideElsewhere: whoever cannot accept on a loop accepts as from any listener.
func TestAsideElsewhere(t *testing.T) {
	r := newRig(t, &Server{Policy: prompt{deciding(anything)}})
	socket := Aside(listenTCP(t, "127.0.0.1:0"))
	r.serve(socket, Listener{Protocols: []Protocol{HTTP}})
	c := proxytest.Dial(t, socket.Addr().String())
	proxytest.Say(t, c, []byte("GET / HTTP/1.1\r\n\r\n"))
	if answer, _ := proxytest.End(c); !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("%.40q", answer)
	}
}

// inode returns what tells a socket from others, whichever descriptor it has.
func inode(t *testing.T, socket net.Listener) uint64 {
	t.Helper()
	raw, err := socket.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var about unix.Stat_t
	err = raw.Control(func(fd uintptr) {
		if err := unix.Fstat(int(fd), &about); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return about.Ino
}
