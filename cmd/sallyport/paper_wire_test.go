//go:build linux

package main_test

// Bytes in and out: requests and replies written by hand, and connections whose
// every failure ends the test.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The commands and result codes of the paper.
const (
	paperCONNECT = 1
	paperBIND    = 2

	paperGranted   = 90
	paperRejected  = 91
	paperNoIdentd  = 92
	paperOtherUser = 93
)

// paperAsk is a SOCKS 4 request.
func paperAsk(command byte, to netip.AddrPort, user string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{4, command}, to.Port())
	ip := to.Addr().As4()
	b = append(b, ip[:]...)
	return append(append(b, user...), 0)
}

// paperAskName is a SOCKS 4a request.
func paperAskName(command byte, host string, port uint16, user string) []byte {
	b := paperAsk(command, netip.AddrPortFrom(netip.AddrFrom4([4]byte{0, 0, 0, 1}), port), user)
	return append(append(b, host...), 0)
}

// paperAt is an address with a port.
func paperAt(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// paperBytes returns n bytes in which every mistake shows.
func paperBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b) // never fails
	return b
}

// paperConn is a connection of a test: a client's, a target's or a peer's.
// Its methods end the test when what they say does not happen; they belong to
// the test's own goroutine.
type paperConn struct {
	*net.TCPConn
	t             *testing.T
	local, remote string
}

// newPaperConn takes the connection over and closes it when the test ends.
func newPaperConn(t *testing.T, c net.Conn) *paperConn {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	return &paperConn{c.(*net.TCPConn), t, c.LocalAddr().String(), c.RemoteAddr().String()}
}

// dial connects to the server from the address, or any when it is empty.
func (s *paperServer) dial(t *testing.T, from string) *paperConn {
	t.Helper()
	return s.net.dial(t, from, s.addr())
}

// ask connects to the server and sends it a request.
func (s *paperServer) ask(t *testing.T, request []byte) *paperConn {
	t.Helper()
	c := s.dial(t, "")
	c.sends(request)
	return c
}

// join connects a client with the target through the server.
func (s *paperServer) join(t *testing.T, from string, x *paperTarget, user string) (client, far *paperConn) {
	t.Helper()
	client = s.dial(t, from)
	client.sends(paperAsk(paperCONNECT, x.addr, user))
	client.granted()
	return client, x.accept(t)
}

// sends writes all parts in one piece.
func (c *paperConn) sends(parts ...[]byte) {
	c.t.Helper()
	if _, err := c.Write(bytes.Join(parts, nil)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// says sends a text.
func (c *paperConn) says(text string) {
	c.t.Helper()
	c.sends([]byte(text))
}

// reads returns the next n bytes.
func (c *paperConn) reads(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if got, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("read of %d bytes: after %d (%q): %v", n, got, b[:min(got, 40)], err)
	}
	return b
}

// hears checks that the next bytes are these.
func (c *paperConn) hears(want string) {
	c.t.Helper()
	if got := c.reads(len(want)); string(got) != want {
		c.t.Fatalf("read %q, want %q", paperCut(got), paperCut([]byte(want)))
	}
}

func paperCut(b []byte) []byte { return b[:min(len(b), 60)] }

// replied reads a reply of eight bytes.
func (c *paperConn) replied() (code byte, addr netip.AddrPort) {
	c.t.Helper()
	b := c.reads(8)
	if b[0] != 0 {
		c.t.Fatalf("the reply % x begins with %d, want 0", b, b[0])
	}
	ip := netip.AddrFrom4([4]byte(b[4:]))
	return b[1], netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
}

// granted reads a reply that must be 90, and returns its address.
func (c *paperConn) granted() netip.AddrPort {
	c.t.Helper()
	code, addr := c.replied()
	if code != paperGranted {
		c.t.Fatalf("reply %d, want 90", code)
	}
	return addr
}

// refused reads a reply that must have the code, and then the end of the stream.
func (c *paperConn) refused(code byte) {
	c.t.Helper()
	if got, _ := c.replied(); got != code {
		c.t.Fatalf("reply %d, want %d", got, code)
	}
	c.ends()
}

// answered is granted or refused.
func (c *paperConn) answered(code byte) {
	c.t.Helper()
	if code == paperGranted {
		c.granted()
		return
	}
	c.refused(code)
}

// ends checks that nothing follows but a FIN.
func (c *paperConn) ends() {
	c.t.Helper()
	b, err := io.ReadAll(c)
	if err != nil || len(b) > 0 {
		c.t.Fatalf("read %q, %v; want only the end of the stream", paperCut(b), err)
	}
}

// isReset checks that nothing follows but an RST.
func (c *paperConn) isReset() {
	c.t.Helper()
	b, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		c.t.Fatalf("read %q, %v; want a reset", paperCut(b), err)
	}
}

// isClosed checks that nothing follows but the connection's end, of either kind.
func (c *paperConn) isClosed() {
	c.t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		c.t.Fatalf("read %q, %v; want that the connection is closed", paperCut(b), err)
	}
}

// stops sends a FIN and keeps reading.
func (c *paperConn) stops() {
	c.t.Helper()
	if err := c.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// leaves closes the connection.
func (c *paperConn) leaves() {
	c.t.Helper()
	if err := c.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// resets sends an RST.
func (c *paperConn) resets() {
	c.t.Helper()
	if err := c.SetLinger(0); err != nil {
		c.t.Fatal(err)
	}
	c.leaves()
}

// paperTarget is an application server.
type paperTarget struct {
	net  *paperNet
	ln   *net.TCPListener
	addr netip.AddrPort
}

// paperListen opens a target at the address.
func paperListen(t *testing.T, n *paperNet, addr string) *paperTarget {
	t.Helper()
	ln := n.listen(t, addr)
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	return &paperTarget{n, ln, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}
}

// accept waits for the next connection.
func (x *paperTarget) accept(t *testing.T) *paperConn {
	t.Helper()
	if err := x.ln.SetDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	c, err := x.ln.Accept()
	if err != nil {
		t.Fatalf("the target waits for a connection: %v", err)
	}
	return newPaperConn(t, c)
}

// untouched checks that nobody connected so far: the next connection is our own.
func (x *paperTarget) untouched(t *testing.T) {
	t.Helper()
	own := x.net.dial(t, "", x.addr)
	if got := x.accept(t); got.remote != own.local {
		t.Errorf("%s connected to the target, which nobody should have", got.remote)
	}
}

// paperEcho serves an echo at the address until the test ends.
func paperEcho(t *testing.T, n *paperNet, addr string) netip.AddrPort {
	t.Helper()
	x := paperListen(t, n, addr)
	go func() {
		for {
			c, err := x.ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client sees how it ended
			}()
		}
	}()
	return x.addr
}

// echoes checks that the connection leads to an echo.
func (c *paperConn) echoes() {
	c.t.Helper()
	c.says("is anybody there?")
	c.hears("is anybody there?")
}

// paperDeaf returns an address on this machine where connecting is refused: its
// port is taken, so that nobody else comes to listen there.
func paperDeaf(t *testing.T, n *paperNet) netip.AddrPort {
	t.Helper()
	var at unix.Sockaddr
	var err error
	n.do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
			at, err = unix.Getsockname(fd)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return paperAt("127.0.0.1", uint16(at.(*unix.SockaddrInet4).Port))
}

// paperLong is a text of n bytes.
func paperLong(n int) string { return strings.Repeat("u", n) }
