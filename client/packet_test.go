package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

// udpDialer is a forward dialer whose connections are scripted, and whose
// datagrams take the network of this machine.
type udpDialer struct {
	*scripted
	*net.ListenConfig
}

// relaySocket is the end of an association at the proxy, played by the test.
func relaySocket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// associateAt grants an association whose relay is said to be at host, waits
// for end, which may be nil, and then closes.
func associateAt(host string, end <-chan struct{}) script {
	return func(t *testing.T, c net.Conn) {
		takeTurns(t, c, []turn{hello5, {request5(t, socks.Associate, "0.0.0.0:0"), reply5(t, 0, host)}})
		if end == nil {
			waitForClose(t, c)
			return
		}
		<-end
	}
}

// association is one over a relay that the test plays.
func association(t *testing.T, url string, end <-chan struct{}) (net.PacketConn, *net.UDPConn) {
	t.Helper()
	relay := relaySocket(t)
	forward := udpDialer{play(t, associateAt(relay.LocalAddr().String(), end)), new(net.ListenConfig)}
	c, err := dialerFor(t, url, forward).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c, relay
}

func TestPacketsOut(t *testing.T) {
	for _, c := range []struct {
		scheme string
		to     net.Addr
		want   string // empty: an error
	}{
		{"socks5", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 53}, "\x00\x00\x00\x01\xc0\x00\x02\x07\x00\x35"},
		{"socks5", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:53")), "\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x35"},
		{"socks5", client.Addr{Transport: "udp", HostPort: "192.0.2.7:53"}, "\x00\x00\x00\x01\xc0\x00\x02\x07\x00\x35"},
		{"socks5h", client.Addr{Transport: "udp", HostPort: "DNS.example:53"}, "\x00\x00\x00\x03\x0bdns.example\x00\x35"},
		{"socks5h", address("192.0.2.7:53"), "\x00\x00\x00\x01\xc0\x00\x02\x07\x00\x35"},
		{"socks5", client.Addr{Transport: "udp", HostPort: "dns.example:53"}, ""},
		{"socks5h", address("no port"), ""},
		{"socks5h", &net.UDPAddr{Port: 53}, ""},
		{"socks5h", nil, ""},
	} {
		conn, relay := association(t, c.scheme+"://gw", nil)
		n, err := conn.WriteTo([]byte("payload"), c.to)
		if c.want == "" {
			if ne, ok := errors.AsType[net.Error](err); n != 0 || !ok || ne.Timeout() {
				t.Errorf("%v: %d, %v", c.to, n, err)
			}
			continue
		}
		if n != 7 || err != nil {
			t.Errorf("%v: %d, %v", c.to, n, err)
			continue
		}
		buf := make([]byte, 100)
		n, from, err := relay.ReadFrom(buf)
		if err != nil || string(buf[:n]) != c.want+"payload" || from.String() != conn.LocalAddr().String() {
			t.Errorf("%v: got %q from %v, %v; want %q", c.to, buf[:n], from, err, c.want)
		}
	}
}

func TestPacketsIn(t *testing.T) {
	conn, relay := association(t, "socks5://gw", nil)
	stranger := relaySocket(t)
	whole := []byte("\x00\x00\x00\x01\xc0\x00\x02\x07\x00\x35")
	send := func(from *net.UDPConn, b string) {
		if _, err := from.WriteTo([]byte(b), conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	send(stranger, string(whole)+"from a stranger")
	for _, dropped := range []string{
		"", "\x00\x00\x00", "\x00\x00\x00\x01\xc0\x00\x02", "\x00\x01\x00\x01\xc0\x00\x02\x07\x00\x35reserved",
		"\x00\x00\x01\x01\xc0\x00\x02\x07\x00\x35fragment", "\x00\x00\x81\x01\xc0\x00\x02\x07\x00\x35last fragment",
		"\x00\x00\x00\x02\xc0\x00\x02\x07\x00\x35type",
	} {
		send(relay, dropped)
	}
	for _, c := range []struct {
		datagram, payload, from string
		room                    int
	}{
		{string(whole) + "payload", "payload", "192.0.2.7:53", 100},
		{string(whole) + "payload", "pay", "192.0.2.7:53", 3},
		{string(whole), "", "192.0.2.7:53", 100},
		{"\x00\x00\x00\x03\x0bdns.example\x00\x35name", "name", "dns.example:53", 100},
		{"\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x35six", "six", "[2001:db8::1]:53", 100},
		{string(whole) + strings.Repeat("x", 60000), strings.Repeat("x", 60000), "192.0.2.7:53", 1 << 16},
	} {
		send(relay, c.datagram)
		buf := make([]byte, c.room)
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) != c.payload || from.String() != c.from || from.Network() != "udp" {
			t.Errorf("got %d bytes from %v, want %d from %s", n, from, len(c.payload), c.from)
		}
		if _, isUDP := from.(*net.UDPAddr); isUDP == strings.HasPrefix(c.from, "dns") {
			t.Errorf("%v is a %T", from, from)
		}
	}
}

// checkEnded holds that reads and writes fail because the proxy ended it.
func checkEnded(t *testing.T, conn net.PacketConn) {
	t.Helper()
	_, _, err := conn.ReadFrom(make([]byte, 10))
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "the proxy has ended the association") {
		t.Errorf("ReadFrom: %v", err)
	}
	_, err = conn.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 53})
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "the proxy has ended the association") {
		t.Errorf("WriteTo: %v", err)
	}
}

func TestAssociationEnds(t *testing.T) {
	end := make(chan struct{})
	conn, _ := association(t, "socks5://gw", end)
	failed := make(chan error, 1)
	go func() {
		_, _, err := conn.ReadFrom(make([]byte, 10))
		failed <- err
	}()
	close(end)
	if err := <-failed; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the waiting ReadFrom: %v", err)
	}
	checkEnded(t, conn)
	for range 2 {
		if err := conn.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, _, err := conn.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom after Close: %v", err)
	}
}

func TestAssociationClosed(t *testing.T) {
	conn, _ := association(t, "socks5://gw", nil)
	failed := make(chan error, 1)
	go func() {
		_, _, err := conn.ReadFrom(make([]byte, 10))
		failed <- err
	}()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the waiting ReadFrom: %v", err)
	}
	if _, err := conn.WriteTo([]byte("x"), address("192.0.2.7:53")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteTo: %v", err)
	}
}

func TestPacketDeadlines(t *testing.T) {
	conn, _ := association(t, "socks5://gw", nil)
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.ReadFrom(make([]byte, 10))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadFrom: %v", err)
	}
	if err := conn.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo([]byte("x"), address("192.0.2.7:53")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("WriteTo: %v", err)
	}
}

// A relay without an IP address is at the proxy's own, and the datagrams leave
// from the address of the connection to it.
func TestRelayAddress(t *testing.T) {
	proxy := startServer5(t, func(t *testing.T, c net.Conn) {
		relay := relaySocket(t)
		port := relay.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		takeTurns(t, c, []turn{hello5, {
			request5(t, socks.Associate, "0.0.0.0:0"),
			reply5(t, 0, netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()),
		}})
		buf := make([]byte, 100)
		n, from, err := relay.ReadFrom(buf)
		if err != nil || !strings.HasPrefix(from.String(), "127.0.0.1:") {
			t.Errorf("from %v, %v", from, err)
			return
		}
		relay.WriteTo(buf[:n], from)
		waitForClose(t, c)
	})
	for _, local := range []string{"", ":0", "0.0.0.0:0"} {
		d, err := client.New("socks5://" + proxy)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := d.ListenPacket(t.Context(), "udp", local)
		if err != nil {
			t.Fatal(err)
		}
		checkPing(t, conn, address("192.0.2.7:53"))
		conn.Close()
	}
}

// checkPing sends a datagram and wants it back.
func checkPing(t *testing.T, conn net.PacketConn, to net.Addr) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo([]byte("ping"), to); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "ping" || from.String() != to.String() {
		t.Errorf("got %q from %v, %v", buf[:n], from, err)
	}
}

// startServer5 plays a script on every connection to a port on loopback.
func startServer5(t *testing.T, run script) string {
	t.Helper()
	server := startServer(func(c net.Conn) { run(t, c) })
	t.Cleanup(server.Close)
	return server.Addr()
}

func TestListenPacketFails(t *testing.T) {
	direct := new(net.ListenConfig)
	errNoSocket := errors.New("no socket")
	broken := &net.ListenConfig{Control: func(string, string, syscall.RawConn) error { return errNoSocket }}
	for name, c := range map[string]struct {
		url, network, address string
		config                *net.ListenConfig
		scripts               []script
		is                    error
		says                  string
	}{
		"network":     {"socks5://gw", "tcp", "", direct, nil, net.UnknownNetworkError("tcp"), "unknown network"},
		"protocol":    {"socks4a://gw", "udp", "", direct, nil, errors.ErrUnsupported, "SOCKS 4 has no UDP"},
		"chain":       {"socks4a://a,socks5://gw", "udp", "", direct, nil, errors.ErrUnsupported, "SOCKS 4 has no UDP"},
		"refused":     {"socks5://gw", "udp", "", direct, []script{turns(hello5, turn{request5(t, socks.Associate, "0.0.0.0:0"), reply5(t, 7, "0.0.0.0:0")})}, client.ErrUnsupported, "udp 0.0.0.0:0: reply 7"},
		"nowhere":     {"socks5://gw", "udp", "", direct, []script{associateAt("0.0.0.0:7", nil)}, nil, "does not say at which address"},
		"local":       {"socks5://gw", "udp", "no port", direct, []script{associateAt("127.0.0.1:7", nil)}, nil, "missing port"},
		"socket":      {"socks5://gw", "udp", "", broken, []script{associateAt("127.0.0.1:7", nil)}, errNoSocket, "udp listen: "},
		"other proxy": {"socks5://gw", "udp", "", direct, []script{turns(turn{[]byte{5, 1, 0}, []byte{0}})}, socks.ErrVersion, "SOCKS 4"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := dialerFor(t, c.url, udpDialer{play(t, c.scripts...), c.config}).ListenPacket(t.Context(), c.network, c.address)
			if conn != nil || err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %v, %q", err, c.is, c.says)
			}
		})
	}
	// TCP takes a way that UDP cannot: better none than another.
	if _, err := dialerFor(t, "socks5://gw", play(t)).ListenPacket(t.Context(), "udp", ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("forward without ListenPacket: %v", err)
	}
}

// In a chain the datagrams go through all the proxies, each with its header.
func TestPacketsThroughChain(t *testing.T) {
	relay := relaySocket(t)
	const second = "192.0.2.200:2000"
	forward := udpDialer{play(t,
		turns(hello5, turn{request5(t, socks.Connect, "b.example:1080"), reply5(t, 0, "0.0.0.0:0")},
			hello5, turn{request5(t, socks.Associate, "0.0.0.0:0"), reply5(t, 0, second)}),
		associateAt(relay.LocalAddr().String(), nil)), new(net.ListenConfig)}
	conn, err := dialerFor(t, "socks5h://a.example,socks5h://b.example", forward).ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var echoing sync.WaitGroup
	defer echoing.Wait()
	echoing.Go(func() {
		buf := make([]byte, 200)
		n, from, err := relay.ReadFrom(buf)
		outer := socks.Datagram5{Host: host5(t, second)}.Append(nil)
		inner := socks.Datagram5{Host: host5(t, "dns.example:53")}.Append(nil)
		if want := string(outer) + string(inner) + "ping"; err != nil || string(buf[:n]) != want {
			t.Errorf("got %q, %v; want %q", buf[:n], err, want)
		}
		relay.WriteTo(buf[:n], from)
	})
	checkPing(t, conn, client.Addr{Transport: "udp", HostPort: "dns.example:53"})
}

// What a net.Dialer does to its sockets is done to those of UDP too.
func TestControlReachesUDP(t *testing.T) {
	proxy := startServer5(t, associateAt("127.0.0.1:7", nil))
	var networks []string
	control := func(network, _ string, _ syscall.RawConn) error {
		networks = append(networks, network)
		return nil
	}
	for _, forward := range []*net.Dialer{
		{Control: control},
		{ControlContext: func(_ context.Context, network, address string, c syscall.RawConn) error {
			return control(network, address, c)
		}},
	} {
		networks = nil
		conn, err := dialerFor(t, "socks5://"+proxy, forward).ListenPacket(t.Context(), "udp", "")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if len(networks) != 2 || networks[1] != "udp4" {
			t.Errorf("control was called for %q", networks)
		}
	}
}
