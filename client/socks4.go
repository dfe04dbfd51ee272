package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// marker4a is a DSTIP that no target has. It says that a host name follows.
var marker4a = netip.AddrFrom4([4]byte{0, 0, 0, 1})

// fits4 reports whether a plain SOCKS 4 request can name ip: IPv4, and not
// 0.0.0.x, which is the mark of 4a, save 0.0.0.0 itself.
func fits4(ip netip.Addr) bool {
	return ip.Is4() && !socks.Request4{IP: ip}.Is4a()
}

// request builds the request for a target. Without an IP that fits, the target
// goes as the text of a 4a host.
func (p proxy) request(cmd socks.Command, target socks.Addr) socks.Request4 {
	r := socks.Request4{Command: cmd, Port: target.Port, IP: target.IP, UserID: p.userID}
	if !fits4(target.IP) {
		r.IP, r.Host = marker4a, target.Host()
	}
	return r
}

// exchange sends the request and returns the first reply, whatever its code. It
// leaves no deadline on conn, unless it fails: then conn is of no more use.
func exchange(ctx context.Context, conn net.Conn, request socks.Request4) (socks.Reply4, error) {
	stop := context.AfterFunc(ctx, func() { interrupt(conn) })
	reply, err := sendAndRead(conn, request)
	if !stop() { // whatever came of it, conn has been interrupted or is about to be
		return socks.Reply4{}, fmt.Errorf("waiting for the reply: %w", ended(ctx))
	}
	return reply, err
}

func sendAndRead(conn net.Conn, request socks.Request4) (socks.Reply4, error) {
	// One write: some servers take a request only if it comes in one segment.
	if _, err := conn.Write(request.Append(nil)); err != nil {
		return socks.Reply4{}, fmt.Errorf("sending the request: %w", err)
	}
	var r replyReader
	return r.read(conn)
}

// interrupt ends what is blocked on conn, and what will be.
func interrupt(conn net.Conn) {
	if conn.SetDeadline(time.Unix(1, 0)) != nil {
		conn.Close() // channels of an SSH connection, for one, have no deadlines
	}
}

// replyReader reads one reply and not a byte more: what follows is the target's.
// It may be asked again after a timeout, and goes on where it was.
type replyReader struct {
	buf [8]byte
	n   int
}

func (r *replyReader) read(conn io.Reader) (socks.Reply4, error) {
	for {
		reply, _, err := socks.ParseReply4(r.buf[:r.n])
		if err == nil {
			return reply, nil
		}
		if errors.Is(err, socks.ErrVersion) {
			return reply, fmt.Errorf("%w: the reply begins with %#02x%s", err, r.buf[0], guess(r.buf[0]))
		}
		n, err := conn.Read(r.buf[r.n:])
		r.n += n
		if n > 0 {
			continue // an error that came with bytes comes again without
		}
		if errors.Is(err, io.EOF) {
			return reply, fmt.Errorf("the proxy closed the connection after %d of 8 bytes of the reply: %w", r.n, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return reply, fmt.Errorf("reading the reply: %w", err)
		}
	}
}

// guess says what is probably at the other end if it does not speak SOCKS 4.
func guess(first byte) string {
	switch first {
	case 5:
		return "; this looks like a proxy for SOCKS 5 only"
	case 'H':
		return "; this looks like an HTTP server"
	case 0x15:
		return "; this looks like a TLS server"
	}
	return ""
}
