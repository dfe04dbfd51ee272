package client_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/client"
)

// reverse reads to the end and only then answers, with the bytes in reverse: it
// needs half-close to pass.
func reverse(c net.Conn) {
	b, err := io.ReadAll(c)
	if err != nil {
		return
	}
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	c.Write(b)
}

// tcpLike is what a connection over TCP must be able to do besides net.Conn.
type tcpLike interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	syscall.Conn
	CloseRead() error
	CloseWrite() error
	SetNoDelay(bool) error
	SetLinger(int) error
}

func checkReverses(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "stressed"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "desserts" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestConnOverTCP(t *testing.T) {
	server := startServer(reverse)
	defer server.Close()
	proxy := startProxy(nil)
	defer proxy.Close()
	d, err := client.New("socks4://" + proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.DialContext(t.Context(), "tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkTCPLike(t, conn, server.Addr())
}

// checkTCPLike fails the test unless conn has what a connection to remote, which reverses what
// it is sent, would have.
func checkTCPLike(t *testing.T, conn net.Conn, remote string) {
	t.Helper()
	if _, ok := conn.(tcpLike); !ok {
		t.Fatalf("%T lacks what a *net.TCPConn has", conn)
	}
	if conn.RemoteAddr().String() != remote {
		t.Errorf("RemoteAddr %v, want %s", conn.RemoteAddr(), remote)
	}
	checkReverses(t, conn)
}

func TestConnThroughTwoProxies(t *testing.T) {
	server := startServer(reverse)
	defer server.Close()
	inner, outer := startProxy(nil), startProxy(nil)
	defer outer.Close()
	defer inner.Close()
	first, err := client.New("socks4://" + outer.Addr())
	if err != nil {
		t.Fatal(err)
	}
	both := dialerFor(t, "socks4://"+inner.Addr(), first)
	conn, err := both.DialContext(t.Context(), "tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkTCPLike(t, conn, server.Addr())
}

// The accepted connection of a BIND can do the same, and its listener tells the
// address by which the proxy was reached.
func TestBindOverTCP(t *testing.T) {
	proxy := startProxy(nil)
	defer proxy.Close()
	d, err := client.New("socks4://" + proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := d.Listen(t.Context(), "tcp", "127.0.0.1:21")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ip := ln.Addr().(*net.TCPAddr).IP; !ip.Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("Addr %v, want the proxy's IP address", ln.Addr())
	}
	peer, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer peer.Close()
		reverse(peer)
	}()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := conn.(tcpLike); !ok {
		t.Fatalf("%T lacks what a *net.TCPConn has", conn)
	}
	if conn.RemoteAddr().String() != peer.LocalAddr().String() {
		t.Errorf("RemoteAddr %v, want %v", conn.RemoteAddr(), peer.LocalAddr())
	}
	checkReverses(t, conn)
	<-served
}

// A proxy behind a Unix socket: half-close stays, what only TCP has goes.
func TestConnOverUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := receive(c); err != nil {
			t.Errorf("reading the request: %v", err)
		}
		c.Write(granted())
		reverse(c)
	}()
	defer func() {
		ln.Close()
		<-served
	}()
	forward := dialFunc(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
	conn, err := dialerFor(t, "socks4a://gw", forward).DialContext(t.Context(), "tcp", "www.example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != "www.example.com:80" {
		t.Errorf("RemoteAddr %s", got)
	}
	checkReverses(t, conn)
}

// Without CloseWrite below there must be none above: who asks for it relies on it.
func TestConnWithoutHalfClose(t *testing.T) {
	d := dialerFor(t, "socks4a://gw", play(t, answer(granted())))
	conn, err := d.DialContext(t.Context(), "tcp", "www.example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := conn.(interface{ CloseWrite() error }); ok {
		t.Errorf("%T has CloseWrite, a net.Pipe has not", conn)
	}
}

// Large transfers arrive whole both ways through io.Copy's fast paths.
func TestCopyThroughProxy(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	server := startServer(func(c net.Conn) { io.Copy(c, c) })
	defer server.Close()
	proxy := startProxy(nil)
	defer proxy.Close()
	d, err := client.New("socks4://" + proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, bytes.NewReader(want))
		conn.(tcpLike).CloseWrite()
		sent <- err
	}()
	var got bytes.Buffer
	if _, err := io.Copy(&got, conn); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes came back, want the %d that were sent", got.Len(), len(want))
	}
}
