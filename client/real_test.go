package client_test

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
)

// What is asked of every proxy that is not a script.

// checkConnects goes to a target and back.
func checkConnects(t *testing.T, d *client.Dialer) {
	t.Helper()
	server := startServer(reverse)
	defer server.Close()
	conn, err := d.DialContext(t.Context(), "tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkReverses(t, conn)
}

// checkBinds follows the paper: primary connection, BIND, the address told over
// the primary connection, the application server's connection.
func checkBinds(t *testing.T, d *client.Dialer) {
	t.Helper()
	ftp := startServer(sendFileActively)
	defer ftp.Close()
	control, err := d.DialContext(t.Context(), "tcp", ftp.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	ln, err := d.Listen(t.Context(), "tcp", control.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := ln.Addr().(*net.TCPAddr)
	if !a.IP.Equal(net.IPv4(127, 0, 0, 1)) || a.Port == 0 {
		t.Errorf("Addr %v cannot be reached", a)
	}
	ip := a.IP.To4()
	if _, err := fmt.Fprintf(control, "PORT %d,%d,%d,%d,%d,%d\r\n", ip[0], ip[1], ip[2], ip[3], a.Port>>8, a.Port&0xff); err != nil {
		t.Fatal(err)
	}
	data, err := acceptWithin(t, ln, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if peer, ok := data.RemoteAddr().(*net.TCPAddr); !ok || !peer.IP.Equal(net.IPv4(127, 0, 0, 1)) || peer.Port == 0 {
		t.Errorf("RemoteAddr %v is not the application server", data.RemoteAddr())
	}
	if line, err := bufio.NewReader(data).ReadString('\n'); line != "the file\n" {
		t.Errorf("got %q, %v", line, err)
	}
	checkClosed(t, ln)
}

// startEcho sends each datagram back to where it came from.
func startEcho(t *testing.T) net.Addr {
	t.Helper()
	socket := relaySocket(t)
	var echoing sync.WaitGroup
	echoing.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			socket.WriteTo(buf[:n], from)
		}
	})
	t.Cleanup(func() {
		socket.Close()
		echoing.Wait()
	})
	return socket.LocalAddr()
}

// freeAddr is an address where nobody listens.
func freeAddr(t *testing.T) *net.TCPAddr {
	t.Helper()
	ln := listenLocal()
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr)
}
