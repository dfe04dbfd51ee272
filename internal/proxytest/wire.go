package proxytest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// Say writes all of b.
func Say(tb testing.TB, c io.Writer, b []byte) {
	tb.Helper()
	if _, err := c.Write(b); err != nil {
		tb.Fatalf("writing %d bytes: %v", len(b), err)
	}
}

// Hear reads exactly what is wanted.
func Hear(tb testing.TB, c io.Reader, want string) {
	tb.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		tb.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

// End reads to the end and returns what came, and how it ended: nil for a FIN,
// else the error (syscall.ECONNRESET for a reset).
func End(c io.Reader) (rest []byte, how error) { return io.ReadAll(c) }

// Ends fails the test unless c ends by FIN with nothing before it.
func Ends(tb testing.TB, c io.Reader) {
	tb.Helper()
	if rest, err := End(c); err != nil || len(rest) > 0 {
		tb.Fatalf("%d bytes (%.40q), then %v; want nothing but FIN", len(rest), rest, err)
	}
}

// Connect4 is the CONNECT request of SOCKS 4 for a target.
func Connect4(target netip.AddrPort, userid string) []byte {
	return request4(socks.Connect, target, userid)
}

// Bind4 is the BIND request of SOCKS 4 for a peer.
func Bind4(peer netip.AddrPort, userid string) []byte {
	return request4(socks.Bind, peer, userid)
}

func request4(command socks.Command, to netip.AddrPort, userid string) []byte {
	return socks.Request4{Command: command, Port: to.Port(), IP: to.Addr(), UserID: userid}.Append(nil)
}

// Connect4a is the CONNECT request of SOCKS 4a for a host.
func Connect4a(host string, port uint16, userid string) []byte {
	return request4a(socks.Connect, host, port, userid)
}

// Bind4a is the BIND request of SOCKS 4a for a host.
func Bind4a(host string, port uint16, userid string) []byte {
	return request4a(socks.Bind, host, port, userid)
}

func request4a(command socks.Command, host string, port uint16, userid string) []byte {
	marker := netip.AddrFrom4([4]byte{0, 0, 0, 1})
	return socks.Request4{Command: command, Port: port, IP: marker, UserID: userid, Host: host}.Append(nil)
}

// ReadReply4 reads the 8 bytes of a SOCKS 4 reply and not one more. It fails the
// test where none comes, or where its first byte is not 0, as the paper has it.
func ReadReply4(tb testing.TB, c io.Reader) socks.Reply4 {
	tb.Helper()
	var b [8]byte
	if n, err := io.ReadFull(c, b[:]); err != nil {
		tb.Fatalf("reading a reply: %d bytes, %v", n, err)
	}
	r, _, err := socks.ParseReply4(b[:])
	if err != nil || r.Version != 0 {
		tb.Fatalf("reply % x, %v; want one that begins with 0", b, err)
	}
	return r
}

// Granted4 reads a reply that must be 90, and returns its address.
func Granted4(tb testing.TB, c io.Reader) netip.AddrPort {
	tb.Helper()
	r := ReadReply4(tb, c)
	if r.Code != socks.Granted4 {
		tb.Fatalf("reply %d, want 90", r.Code)
	}
	return netip.AddrPortFrom(r.IP, r.Port)
}

// Refused4 reads a reply that must be code, then FIN, and returns the reply's
// address.
func Refused4(tb testing.TB, c net.Conn, code socks.Code4) netip.AddrPort {
	tb.Helper()
	r := ReadReply4(tb, c)
	if r.Code != code {
		tb.Fatalf("reply %d, want %d", r.Code, code)
	}
	Ends(tb, c)
	return netip.AddrPortFrom(r.IP, r.Port)
}

// Greeting5 is the greeting of SOCKS 5 that offers the methods.
func Greeting5(methods ...socks.Method) []byte {
	var offered []byte
	for _, m := range methods {
		offered = append(offered, byte(m))
	}
	return socks.Greeting5{Methods: string(offered)}.Append(nil)
}

// Login5 is the login of SOCKS 5.
func Login5(name, password string) []byte {
	return socks.Login5{Name: name, Password: password}.Append(nil)
}

// Ask5 is the request of SOCKS 5 for an address, without what comes before it.
func Ask5(command socks.Command, to netip.AddrPort) []byte {
	return socks.Request5{Command: command, Host: socks.Host5{IP: to.Addr(), Port: to.Port()}}.Append(nil)
}

// AskName5 is the request of SOCKS 5 for a name, without what comes before it.
func AskName5(command socks.Command, host string, port uint16) []byte {
	return socks.Request5{Command: command, Host: socks.Host5{Name: host, Port: port}}.Append(nil)
}

// ReadReply5 reads a reply of SOCKS 5 that carries an address, and not one byte
// more. It fails the test where none comes.
func ReadReply5(tb testing.TB, c io.Reader) (socks.Code5, netip.AddrPort) {
	tb.Helper()
	r, err := readReply5(c)
	if err != nil {
		tb.Fatalf("reading a reply: %v", err)
	}
	return r.Code, netip.AddrPortFrom(r.Host.IP, r.Host.Port)
}

// readReply5 takes one byte at a time, so as to take none too many.
func readReply5(from io.Reader) (socks.Reply5, error) {
	var b []byte
	for {
		r, n, err := socks.ParseReply5(b)
		switch {
		case err == nil && (n != len(b) || !r.Host.IP.IsValid()):
			return r, fmt.Errorf("reply % x carries no address", b)
		case !errors.Is(err, socks.ErrShort):
			return r, err
		}
		var next [1]byte
		if _, err := io.ReadFull(from, next[:]); err != nil {
			return r, fmt.Errorf("after % x: %w", b, err)
		}
		b = append(b, next[0])
	}
}

// Granted5 reads a reply of SOCKS 5 that must be 0, and returns its address.
func Granted5(tb testing.TB, c io.Reader) netip.AddrPort {
	tb.Helper()
	code, about := ReadReply5(tb, c)
	if code != socks.Succeeded5 {
		tb.Fatalf("reply %d (%s), want 0", code, code)
	}
	return about
}

// Refused5 reads a reply of SOCKS 5 that must be code, then FIN, and returns the
// reply's address.
func Refused5(tb testing.TB, c net.Conn, code socks.Code5) netip.AddrPort {
	tb.Helper()
	got, about := ReadReply5(tb, c)
	if got != code {
		tb.Fatalf("reply %d (%s), want %d (%s)", got, got, code, code)
	}
	Ends(tb, c)
	return about
}
